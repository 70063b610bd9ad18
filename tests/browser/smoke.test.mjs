// The harness itself: a browser, and the service in both ways that tests start it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { launch } from './browser.mjs';
import { listen, startProvider } from './provider.mjs';
import { dev, serve } from './service.mjs';

test('a page reads the key set of a running service, and one of an allowed origin exchanges', async (t) => {
  const provider = await startProvider();
  t.after(() => provider.stop());
  const app = await listen((_, answer) => answer.setHeader('content-type', 'text/html').end('<!doctype html>'));
  t.after(() => app.stop());
  const service = await serve({ env: { CLERK_JWT_ISSUER: provider.url, EXCHEQUER_ALLOWED_ORIGINS: app.url } });
  t.after(() => service.stop());
  const browser = await launch();
  t.after(() => browser.close());

  const page = await browser.newPage();
  await page.goto(app.url);
  const shown = await page.evaluate(async ([url, session_token]) => {
    const { keys } = await (await fetch(`${url}/.well-known/jwks.json`)).json();
    const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ session_token }) };
    const answer = await fetch(`${url}/auth/exchange`, init);
    return { keys: keys.map(({ alg }) => alg), status: answer.status, user: (await answer.json()).user.id };
  }, [service.url, provider.sessionToken()]);
  assert.deepEqual(shown, { keys: ['ES256', 'ES256'], status: 200, user: 'user_1' });
});

test('the service starts with its stand-in for Clerk, and ends', async () => {
  const service = await dev();
  const body = JSON.stringify({ session_id: await service.provider.sessionId() });
  const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body };
  const answer = await fetch(`${service.url}/auth/exchange`, init);
  assert.equal(answer.status, 200, await answer.text());
  await service.stop();
  await assert.rejects(fetch(service.url));
});

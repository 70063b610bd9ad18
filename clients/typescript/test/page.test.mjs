// The client in a page of another origin than the service: what a browser lets it see, of good answers and
// of bad ones. The page has a strict policy of its own, and the test watches what it keeps and prints.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { build } from 'esbuild';
import { launch } from '../../../tests/browser/browser.mjs';
import { freePort, listen, startProvider } from '../../../tests/browser/provider.mjs';
import { serve } from '../../../tests/browser/service.mjs';
import { startApi } from './api.mjs';

const ending = [];
after(async () => {
  for (const end of ending.reverse()) await end();
});

let provider, api, app, stranger, service, browser;

/** A page that has the client as `client`, and can ask its own server for session tokens. */
async function startApp() {
  const entry = { contents: 'export * from "./dist/index.js"; export * from "./dist/dpop.js";', resolveDir: new URL('..', import.meta.url).pathname };
  const { outputFiles } = await build({ stdin: entry, bundle: true, minify: true, format: 'iife', globalName: 'client', write: false });
  return listen((request, answer) => {
    const { pathname, searchParams } = new URL(request.url, 'http://app');
    if (pathname === '/client.js') return answer.setHeader('content-type', 'text/javascript').end(outputFiles[0].text);
    if (pathname === '/session-token') return answer.end(provider.sessionToken({ age: Number(searchParams.get('age')) }));
    answer.setHeader('content-security-policy', "default-src 'none'; script-src 'self'; connect-src http:");
    answer.setHeader('content-type', 'text/html').end('<!doctype html><script src="client.js"></script>');
  });
}

before(async () => {
  provider = await startProvider();
  api = await startApi();
  [app, stranger] = [await startApp(), await startApp()];
  ending.push(provider.stop, api.stop, app.stop, stranger.stop);
  const port = await freePort();
  service = await serve({
    env: { EXCHEQUER_LISTEN: `127.0.0.1:${port}`, EXCHEQUER_ISSUER: `http://127.0.0.1:${port}`, EXCHEQUER_ALLOWED_ORIGINS: app.url },
    config: `[issuers.clerk]\nissuer = "${provider.url}"\nkind = "clerk"\n
      [apps.web]\nissuers = ["clerk"]\naudience = "${api.url}"\n
      [apps.bound]\nissuers = ["clerk"]\naudience = "${api.url}"\ndpop = "required"\ndpop_nonce = true\n
      [issuers.gone]\nissuer = "http://127.0.0.1:1"\nkind = "clerk"\n[apps.orphan]\nissuers = ["gone"]\n`,
  });
  ending.push(service.stop);
  api.gate = service.url;
  browser = await launch();
  ending.push(() => browser.close());
});

/** Runs in a page of the app; gives its result, and fails where the page printed or kept anything. */
async function inPage(origin, run, more = {}) {
  const context = await browser.newContext();
  const page = await context.newPage();
  const printed = [];
  page.on('console', (message) => printed.push(message.text()));
  page.on('pageerror', (error) => printed.push(`${error}`));
  await page.goto(origin.url);
  await page.evaluate(() => {
    window.sessionToken = async (age = 0) => (await fetch(`/session-token?age=${age}`)).text();
    window.seen = ({ name, code, message, status, retryable, action, requestId, retryAfter, docs }) => ({ name, code, message, status, retryable, action, requestId, retryAfter, docs });
  });
  const result = await page.evaluate(run, { url: service.url, api: api.url, ...more });
  const kept = await page.evaluate(async () => [localStorage.length, sessionStorage.length, (await indexedDB.databases()).length, document.cookie]);
  assert.deepEqual(kept, [0, 0, 0, ''], 'what the page kept');
  const cookies = await context.cookies();
  await context.close();
  assert.deepEqual(cookies, []);
  return { result, printed };
}

test('a page of an allowed origin gets a token, and its API takes it', async () => {
  const { result, printed } = await inPage(app, async ({ url, api }) => {
    const session = client.createAppSession({ url, app: 'web', audience: api, getSubjectToken: ({ forceRefresh }) => sessionToken(forceRefresh ? 0 : 90) });
    const [answer, { user }] = await Promise.all([session.fetch(`${api}/me`, { method: 'POST', body: '{}' }), session.ensure()]);
    return { status: answer.status, me: await answer.json(), user: user.id };
  });
  assert.deepEqual(result, { status: 200, me: { user: 'user_1' }, user: 'user_1' });
  // Chromium's own words about the token that had expired, and nothing of ours.
  assert.deepEqual(printed, ['Failed to load resource: the server responded with a status of 401 (Unauthorized)']);
});

test('a page of an allowed origin can read why it was refused', async () => {
  const { result } = await inPage(app, async ({ url }) => {
    const session = client.createAppSession({ url, app: 'web', getSubjectToken: () => 'no.jwt.atall' });
    const raw = await fetch(`${url}/auth/exchange`, { method: 'POST', headers: { authorization: 'Bearer no.jwt.atall' } });
    return { error: await session.getToken().catch(seen), header: raw.headers.get('x-request-id') === (await raw.json()).request_id };
  });
  const { message, requestId, ...error } = result.error;
  assert.deepEqual(error, { name: 'ExchangeError', code: 'subject_token_malformed', status: 401, retryable: false, action: 'fix_request', retryAfter: undefined, docs: 'docs/errors.md#subject_token_malformed' });
  assert.ok(message && requestId);
  assert.equal(result.header, true, 'x-request-id is exposed');
});

test('a page can read how long it should wait', async () => {
  const { result } = await inPage(app, async ({ url, token }) => {
    const session = client.createAppSession({ url, app: 'orphan', getSubjectToken: () => token });
    return session.getToken().catch(seen);
  }, { token: provider.sessionToken({ iss: 'http://127.0.0.1:1' }) });
  assert.deepEqual([result.code, result.status, result.retryable], ['issuer_keys_unavailable', 503, true]);
  assert.equal(typeof result.retryAfter, 'number');
});

test('a page of another origin gets no token, and its session token never arrives', async () => {
  const logged = () => service.log().filter((line) => line.includes('request_id')).length;
  // Asks for one more exchange and waits for its line: the lines of what came before are there then.
  const count = async () => {
    const answer = await fetch(`${service.url}/auth/exchange`, { method: 'POST' });
    const { request_id } = await answer.json();
    await service.logged(request_id);
    return logged();
  };
  const before = await count();
  const { result } = await inPage(stranger, async ({ url }) => {
    const session = client.createAppSession({ url, app: 'web', getSubjectToken: () => sessionToken() });
    return session.getToken().catch(seen);
  });
  assert.deepEqual([result.code, result.status, result.retryable, result.requestId], ['network_error', 0, true, undefined]);
  assert.equal(await count(), before + 1);
});

test('a page without a network keeps its token, and gets another when the network is back', async (t) => {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(app.url);
  const first = await page.evaluate(async ({ url, api, token }) => {
    window.subject = token;
    window.session = client.createAppSession({ url, app: 'web', origins: [api], getSubjectToken: () => subject });
    return session.getToken();
  }, { url: service.url, api: api.url, token: provider.sessionToken() });
  await context.setOffline(true);
  assert.equal(await page.evaluate(() => session.getToken()), first);
  const code = await page.evaluate(() => (session.clear(), session.getToken().catch(({ code }) => code)));
  assert.equal(code, 'network_error');
  await context.setOffline(false);
  await page.evaluate((token) => (subject = token), provider.sessionToken());
  const again = page.evaluate(async () => {
    for (;;) {
      const token = await session.getToken().catch(() => undefined);
      if (token) return token;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  });
  assert.notEqual(await again, first);
});

test('a page proves its key with nonces, and its API takes the bound token', async () => {
  const { result } = await inPage(app, async ({ url, api }) => {
    const session = client.createAppSession({ url, app: 'bound', audience: api, getSubjectToken: () => sessionToken(), fetch: client.createDpopFetch() });
    const answer = await session.fetch(`${api}/me`);
    return { status: answer.status, me: await answer.json() };
  });
  assert.deepEqual(result, { status: 200, me: { user: 'user_1' } });
  assert.match(api.seen.at(-1), /^DPoP /);
});

test('an address without an origin is one of the page, and gets the token only where that is allowed', async () => {
  const { result } = await inPage(app, async ({ url, api }) => {
    const asked = [];
    const send = (input, init) => {
      const authorization = new Headers(init?.headers).get('authorization');
      if (`${input}`.endsWith('/auth/exchange')) return fetch(input, init);
      asked.push([`${input}`, authorization?.split(' ')[0] ?? null]);
      return Promise.resolve(new Response(''));
    };
    for (const origins of [[api], [location.origin]]) {
      const session = client.createAppSession({ url, app: 'web', origins, getSubjectToken: () => sessionToken(), fetch: send });
      for (const path of ['/me', 'me', '//other.example/me', '\\\\other.example/me', '/\t/other.example/me']) await session.fetch(path);
    }
    return asked;
  });
  const foreign = ['//other.example/me', '\\\\other.example/me', '/\t/other.example/me'].map((path) => [path, null]);
  assert.deepEqual(result, [['/me', null], ['me', null], ...foreign, ['/me', 'Bearer'], ['me', 'Bearer'], ...foreign]);
});

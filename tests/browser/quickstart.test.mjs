// The quickstart's app, as docs/quickstart.md starts it: a user signs in, sees their tasks, signs out, and is a
// stranger again.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch } from './browser.mjs';
import { BINARY } from './service.mjs';

const APP = fileURLToPath(new URL('../../examples/quickstart/', import.meta.url));

async function start(t) {
  const free = { EXCHEQUER_LISTEN: '127.0.0.1:0', EXCHEQUER_ADMIN_LISTEN: '127.0.0.1:0', PORT: '0' };
  const env = { ...process.env, ...free, BINARY };
  const app = spawn(process.execPath, ['start.mjs'], { cwd: APP, env, stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => app.kill());
  for await (const line of createInterface({ input: app.stdout })) {
    const url = /^The app is at (\S+)$/.exec(line)?.[1];
    if (url) return url;
  }
  throw new Error('the app does not start');
}

test('a user signs in, loads what is theirs, and signs out', { timeout: 60_000 }, async (t) => {
  const url = await start(t);
  const browser = await launch();
  t.after(() => browser.close());
  const page = await browser.newPage();
  const wrong = [];
  page.on('pageerror', (error) => wrong.push(error.message));
  await page.goto(url);
  const status = page.getByRole('status');
  const press = (name) => page.getByRole('button', { name }).click();
  const says = (text) => status.filter({ hasText: text }).waitFor();

  await press('Load my tasks');
  await says('Nobody is signed in.');
  await press('Sign in');
  await says('Signed in as user_2standin.');
  await press('Load my tasks');
  await page.getByRole('listitem').filter({ hasText: 'Water the plants' }).waitFor();
  await press('Sign out');
  await says('Nobody is signed in.');
  await press('Load my tasks');
  await page.getByRole('listitem').waitFor({ state: 'detached' });
  await says('Nobody is signed in.');
  assert.deepEqual(wrong, []);
});

test('the backend lets nobody in without an app token of its own', { timeout: 60_000 }, async (t) => {
  const url = await start(t);
  const { url: issuer } = await (await fetch(`${url}/config.json`)).json();
  const provider = await (await fetch(`${url}/stand-in/session-token`, { method: 'POST' })).text();
  const ask = (token) => fetch(`${url}/api/tasks`, { headers: { authorization: `Bearer ${token}` } });

  assert.equal((await fetch(`${url}/api/tasks`)).status, 401);
  assert.equal((await ask(provider)).status, 401);
  const exchanged = await fetch(`${issuer}/auth/exchange`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ session_token: provider }),
  });
  const { token } = await exchanged.json();
  const answer = await ask(token);
  assert.equal(answer.status, 200);
  assert.equal((await answer.json()).user, 'user_2standin');
  assert.equal((await ask(`${token.slice(0, -4)}AAAA`)).status, 401);
});

// The bundle where React Native would run it: no window, no document, no crypto, an AbortSignal without
// `reason`, `any` and `timeout`, and the polyfills that React Native itself uses for Headers and Request.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { createContext, runInContext } from 'node:vm';
import { build } from 'esbuild';
import { readFileSync } from 'node:fs';
import { startProvider } from '../../../tests/browser/provider.mjs';
import { serve } from '../../../tests/browser/service.mjs';
import { startApi } from './api.mjs';

const require = createRequire(import.meta.url);

/** A context with the globals of React Native alone; `fetch` is Node's, told in its own words. */
async function reactNative(more) {
  const { AbortController, AbortSignal } = require('abort-controller');
  const sent = [];
  const phone = {
    AbortController, AbortSignal, performance, setTimeout, clearTimeout, console,
    fetch: async (input, { signal, headers, ...init } = {}) => {
      const url = typeof input === 'string' ? input : input.url;
      const native = new globalThis.AbortController();
      signal?.addEventListener('abort', () => native.abort());
      const plain = headers?.forEach ? [...headers.entries()] : headers;
      sent.push(url);
      return fetch(url, { ...init, ...(input.method && { method: input.method, body: input._bodyInit }), headers: plain, signal: native.signal });
    },
    ...more,
  };
  createContext(phone);
  phone.self = phone;
  // The file is UMD: in a context without `exports` it fills `WHATWGFetch`, and leaves our fetch alone.
  runInContext(readFileSync(require.resolve('whatwg-fetch/dist/fetch.umd.js'), 'utf8'), phone);
  Object.assign(phone, { Headers: phone.WHATWGFetch.Headers, Request: phone.WHATWGFetch.Request });
  const { outputFiles } = await build({ entryPoints: [new URL('../dist/index.js', import.meta.url).pathname], bundle: true, minify: true, format: 'iife', globalName: 'client', write: false });
  runInContext(outputFiles[0].text, phone);
  for (const absent of ['window', 'document', 'crypto', 'location', 'localStorage', 'URL', 'TextEncoder', 'btoa', 'structuredClone']) {
    assert.equal(runInContext(`typeof ${absent}`, phone), 'undefined', absent);
  }
  assert.equal(AbortSignal.timeout ?? AbortSignal.any ?? new AbortController().signal.reason, undefined);
  return { phone, sent, run: (code) => runInContext(code, phone) };
}

test('the client exchanges, calls its API and renews after a 401', async (t) => {
  const [provider, api] = await Promise.all([startProvider(), startApi()]);
  t.after(() => Promise.all([provider.stop(), api.stop()]));
  const service = await serve({ env: { CLERK_JWT_ISSUER: provider.url, EXCHEQUER_AUDIENCE: api.url } });
  t.after(() => service.stop());
  api.gate = service.url;
  const { run } = await reactNative({ url: service.url, api: api.url, getSubjectToken: () => provider.sessionToken() });
  run('var session = client.createAppSession({ url, origins: [api], getSubjectToken })');
  assert.equal(await run('session.fetch(api + "/me").then((answer) => answer.status)'), 200);
  assert.equal(await run('session.fetch(new Request(api + "/me", { method: "POST", body: "x" })).then((answer) => answer.status)'), 200);
  assert.deepEqual(await run('session.ensure().then(({ user }) => user.id)'), 'user_1');
  const refused = run('client.createAppSession({ url, getSubjectToken: () => "no.jwt.atall" }).getToken()');
  await assert.rejects(refused, { name: 'ExchangeError', code: 'subject_token_malformed', status: 401 });

  api.gate = `${service.url}/nowhere`; // 404: the API would take nothing, so no renewal helps
  assert.equal(await run('session.fetch(api + "/me").then((answer) => answer.status)'), 404);
});

test('the client renews after a 401, stops waiting and signs out', async () => {
  const script = {
    exchanges: 0,
    fetch: async (input, { headers } = {}) => {
      const url = typeof input === 'string' ? input : input.url;
      if (url.endsWith('/auth/exchange')) {
        script.exchanges++;
        return Response.json({ access_token: `token_${script.exchanges}`, expires_in: 600, user: { id: 'user_1' } });
      }
      return new Response('', { status: headers.get('authorization') === 'Bearer token_2' ? 200 : 401 });
    },
  };
  const { phone, run } = await reactNative({ fetch: script.fetch });
  run('var session = client.createAppSession({ url: "https://auth.example.com", origins: ["https://api.example.com"], getSubjectToken: () => subject })');
  phone.subject = 'x';
  assert.equal(await run('session.fetch("https://api.example.com/me", { method: "POST", body: "x" }).then(({ status }) => status)'), 200);
  assert.equal(script.exchanges, 2);

  phone.subject = new Promise(() => {});
  run('session.clear(); var controller = new AbortController(); var waiting = session.getToken({ signal: controller.signal }); var other = session.getToken(); controller.abort()');
  await assert.rejects(phone.waiting, { name: 'AbortError' });
  run('session.clear()');
  await assert.rejects(phone.other, { name: 'ExchangeError', code: 'signed_out' });
});

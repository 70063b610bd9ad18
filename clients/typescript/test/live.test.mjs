// The client under Node against the built service, and against servers that break as servers do.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createServer } from 'node:net';
import { createAppSession } from '../dist/index.js';
import { createDpopFetch } from '../dist/dpop.js';
import { freePort, listen, startProvider } from '../../../tests/browser/provider.mjs';
import { dev, serve } from '../../../tests/browser/service.mjs';
import { startApi } from './api.mjs';

const claims = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));

/** A provider, an API, and a service with the app `web` for that API, all of them ended after the test. */
async function world(t, { app = '', env = {} } = {}) {
  const [provider, api, port] = await Promise.all([startProvider(), startApi(), freePort()]);
  t.after(() => Promise.all([provider.stop(), api.stop()]));
  const service = await serve({
    env: { EXCHEQUER_LISTEN: `127.0.0.1:${port}`, EXCHEQUER_ISSUER: `http://127.0.0.1:${port}`, ...env },
    config: `[issuers.clerk]\nissuer = "${provider.url}"\nkind = "clerk"\n[apps.web]\nissuers = ["clerk"]\naudience = "${api.url}"\n${app}\n`,
  });
  t.after(() => service.stop());
  api.gate = service.url;
  return { provider, api, service };
}

test('a session token becomes an app token that the service\'s own gate takes', async (t) => {
  const { provider, api, service } = await world(t);
  const session = createAppSession({ url: service.url, app: 'web', audience: api.url, getSubjectToken: () => provider.sessionToken({ o: { id: 'org_1', rol: 'admin' } }) });
  assert.deepEqual(await session.ensure(), { user: { id: 'user_1', org_id: 'org_1', roles: ['org:admin'] }, scope: undefined });
  const token = await session.getToken();
  const { iss, aud, sub, client_id } = claims(token);
  assert.deepEqual({ iss, aud, sub, client_id }, { iss: service.url, aud: api.url, sub: 'user_1', client_id: 'web' });
  assert.deepEqual(await (await session.fetch(`${api.url}/me`)).json(), { user: 'user_1' });
  assert.deepEqual(api.seen, [`Bearer ${token}`]);
});

test('a session token that expired is replaced by a fresh one', async (t) => {
  const { provider, service } = await world(t);
  const asked = [];
  const getSubjectToken = ({ forceRefresh }) => (asked.push(forceRefresh), provider.sessionToken({ age: forceRefresh ? 0 : 90 }));
  const session = createAppSession({ url: service.url, getSubjectToken });
  assert.equal(claims(await session.getToken()).sub, 'user_1');
  assert.deepEqual(asked, [false, true]);
});

test('an app token of half a minute is exchanged once, and renewed when half of it is over', async (t) => {
  const { provider, api, service } = await world(t, { app: 'ttl = "30s"' });
  let exchanges = 0;
  const session = createAppSession({ url: service.url, origins: [api.url], getSubjectToken: () => (exchanges++, provider.sessionToken()) });
  const first = await session.getToken();
  for (let request = 0; request < 20; request++) assert.equal((await session.fetch(api.url)).status, 200);
  assert.equal(exchanges, 1);
  const renewed = new Promise((resolve) => session.on('session', resolve));
  const clock = performance.now.bind(performance);
  t.mock.method(performance, 'now', () => clock() + 16_000);
  assert.equal(await session.getToken(), first);
  await renewed;
  assert.notEqual(await session.getToken(), first);
  assert.equal(exchanges, 2);
});

test('a refusal is an error with the service\'s code, words and request id', async (t) => {
  const { service } = await world(t);
  const session = createAppSession({ url: service.url, getSubjectToken: () => 'no.jwt.atall' });
  const error = await session.getToken().catch((error) => error);
  const { code, status, retryable, action, requestId, docs, name } = error;
  assert.deepEqual({ code, status, retryable, action, docs, name }, { code: 'subject_token_malformed', status: 401, retryable: false, action: 'fix_request', docs: 'docs/errors.md#subject_token_malformed', name: 'ExchangeError' });
  assert.ok(error.message.length > 10, error.message);
  await service.logged(requestId);
});

test('who is limited is told until when, and asks no more meanwhile', async (t) => {
  const { provider, service } = await world(t, { env: { EXCHEQUER_RATE_LIMIT: '1/1m' } });
  const session = createAppSession({ url: service.url, getSubjectToken: () => provider.sessionToken() });
  await session.getToken();
  session.clear();
  const limited = await session.getToken().catch((error) => error);
  assert.deepEqual([limited.code, limited.status, limited.retryable], ['rate_limited', 429, true]);
  assert.ok(limited.retryAfter > 5 && limited.retryAfter <= 60, `${limited.retryAfter}`);
  await service.logged(limited.requestId);
  const lines = service.log().length;
  await assert.rejects(session.getToken(), (error) => error === limited);
  const answer = await fetch(`${service.url}/auth/exchange`, { method: 'POST' });
  await service.logged((await answer.json()).request_id);
  assert.equal(service.log().length, lines + 1, 'ours alone');
});

test('a session id is exchanged, and after the sign-out at the provider nothing is', async (t) => {
  const service = await dev();
  t.after(() => service.stop());
  const api = await startApi();
  t.after(() => api.stop());
  api.gate = service.url;
  const sessionId = await service.provider.sessionId();
  let native = true; // as right after a native sign-in: the SDK has no token yet
  const getSubjectToken = () => (native ? { sessionId } : service.provider.sessionToken({ session: sessionId }));
  const session = createAppSession({ url: service.url, origins: [api.url], getSubjectToken });
  assert.equal((await session.fetch(api.url)).status, 200);
  native = false;
  await fetch(`${service.provider.url}/dev/sign-out?session=${sessionId}`, { method: 'POST' });
  const told = new Promise((resolve) => session.on('error', resolve));
  assert.equal((await session.fetch(api.url)).status, 401);
  const { code, action } = await told;
  assert.deepEqual({ code, action }, { code: 'session_revoked', action: 'sign_in' });
});

for (const nonces of [false, true]) {
  test(`a token is bound to a key, and of use with it alone, ${nonces ? 'with' : 'without'} nonces`, async (t) => {
    const { provider, api, service } = await world(t, { app: `dpop = "required"\ndpop_nonce = ${nonces}` });
    const options = { url: service.url, origins: [api.url], getSubjectToken: () => provider.sessionToken() };
    const session = createAppSession({ ...options, fetch: createDpopFetch() });
    for (const init of [undefined, { method: 'post', body: 'x' }]) {
      const answer = await session.fetch(`${api.url}/me?x=1`, init);
      assert.deepEqual([answer.status, await answer.json()], [200, { user: 'user_1' }]);
    }
    assert.equal((await session.fetch(new Request(`${api.url}/me`, { method: 'PUT', body: 'y' }))).status, 200);
    const token = await session.getToken();
    assert.ok(claims(token).cnf.jkt);
    assert.ok(api.seen.every((authorization) => authorization === `DPoP ${token}`));
    assert.equal((await fetch(api.url, { headers: { authorization: `Bearer ${token}` } })).status, 401);
    assert.equal((await createDpopFetch()(api.url, { headers: { authorization: `DPoP ${token}` } })).status, 401);
    await assert.rejects(createAppSession(options).getToken(), { code: 'dpop_proof_missing' });
  });
}

test('a proof goes where a token goes, and nowhere else', async (t) => {
  const seen = [];
  const server = await listen((request, answer) => (seen.push(request.headers.dpop), answer.end()));
  t.after(() => server.stop());
  const dpop = createDpopFetch();
  await dpop(server.url);
  await dpop(server.url, { headers: { authorization: 'Bearer x' } });
  await dpop(server.url, { headers: { authorization: 'DPoP x' } });
  const proofs = seen.map((proof) => proof && claims(proof));
  const { jti, iat, ...proof } = proofs[2];
  assert.deepEqual([proofs[0], proofs[1]], [undefined, undefined]);
  const ath = 'LXEWQrcmsEQBYnyp-6wy9chTD7GQPMTbAiWHF5IaSIE';
  assert.deepEqual(proof, { htm: 'GET', htu: `${server.url}/`, ath });
  assert.match(jti, /^[0-9a-f-]{36}$/);
  assert.ok(Math.abs(iat - Date.now() / 1000) < 60);
});

test('servers that refuse, hang up, stall, redirect or talk nonsense give an error, and no credential away', async (t) => {
  const stolen = [];
  const thief = await listen((request, answer) => (stolen.push(request.url), answer.end('{}')));
  t.after(() => thief.stop());
  const behave = async (handler) => {
    const server = await listen(handler);
    t.after(() => server.stop());
    return server.url;
  };
  const rude = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
  t.after(() => rude.close());
  await new Promise((resolve) => rude.once('listening', resolve));
  const cases = [
    ['network_error', `http://127.0.0.1:${await freePort()}`],
    ['network_error', `http://127.0.0.1:${rude.address().port}`],
    ['network_error', await behave((_, answer) => answer.writeHead(307, { location: `${thief.url}/auth/exchange` }).end())],
    ['network_error', await behave((_, answer) => (answer.writeHead(200, { 'content-length': '100' }), answer.write('{"tok', () => answer.destroy())))],
    ['timeout', await behave(() => {})],
    ['timeout', await behave((_, answer) => (answer.writeHead(200), answer.write('{"tok')))],
    ['answer_invalid', await behave((_, answer) => answer.writeHead(200, { 'content-type': 'text/html' }).end('<html>'))],
    ['answer_invalid', await behave((_, answer) => answer.writeHead(502).end('Bad Gateway'))],
  ];
  await Promise.all(cases.map(([code, url]) =>
    assert.rejects(createAppSession({ url, timeout: code === 'timeout' ? 300 : 10_000, getSubjectToken: () => 'x' }).getToken(), { code }, `${code} ${url}`)));
  assert.deepEqual(stolen, []);
});

// `session.fetch`: who gets the token, and what follows a 401.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { refusal, session, stopTime, token } from './world.mjs';

const API = 'https://api.example.com';
const only = (good) => (_, headers) => new Response('', { status: headers.get('authorization') === `Bearer ${good}` ? 200 : 401 });

test('the token goes to the allowed origins and to no other', async (t) => {
  stopTime(t);
  const world = session([token('a')], { origins: ['https://API.example.com/', 'http://localhost:4000'] });
  const allowed = [`${API}/me`, API, `${API}?q`, `${API}#f`, new URL(`${API}/me`), new Request(`${API}/me`), 'https://API.example.com:443/me', 'http://localhost:4000/me'];
  const others = ['https://evil.example/', `${API}.evil.example/`, `${API}:8443/`, 'http://api.example.com/', 'http://localhost/', 'https://evil.example/?https://api.example.com/'];
  for (const url of [...allowed, ...others]) await world.fetch(url);
  const authorized = world.sent.map(([, authorization]) => authorization);
  assert.deepEqual(authorized, [...allowed.map(() => 'Bearer a'), ...others.map(() => null)]);
});

test('a platform that does not normalise addresses gives the token to no doubtful one', async (t) => {
  stopTime(t);
  // As React Native's polyfill has it.
  const { Request } = globalThis;
  t.after(() => (globalThis.Request = Request));
  globalThis.Request = class {
    url;
    constructor(input) {
      this.url = String(input);
    }
  };
  const world = session([token('a')], { origins: [API] });
  const others = [`${API}@evil.example/`, `${API}\\@evil.example/`, `${API}\t.evil.example/`, `${API}\n@evil.example/`, ` ${API}/`, '//api.example.com/', '/me', `https://user@api.example.com/`, 'https:api.example.com', `${API}%2eevil.example/`];
  for (const url of others) await world.fetch(url);
  assert.deepEqual(world.sent, others.map((url) => [url, null]));
  await world.fetch(`${API}/me`);
  assert.equal(world.sent.at(-1)[1], 'Bearer a');
});

test('without origins it is the origin of the audience, and without either an error that says so', async (t) => {
  stopTime(t);
  const world = session([token('a')], { audience: `${API}/graphql` });
  await world.fetch(`${API}/me`);
  assert.deepEqual(world.sent, [[`${API}/me`, 'Bearer a']]);
  for (const options of [{}, { audience: 'graphql-api' }, { origins: [] }]) {
    const none = session([token('a')], options);
    await assert.rejects(none.fetch(`${API}/me`), { code: 'origins_missing', action: 'fix_request' });
    assert.deepEqual([none.sent, none.asked], [[], []]);
  }
});

test('what is no origin is told when the session is made', () => {
  for (const wrong of ['api.example.com', 'https://user@api.example.com', '/api', '*', 'https://', ' https://api.example.com', 'ftp://api.example.com']) {
    assert.throws(() => session([token('a')], { origins: [API, wrong] }), TypeError, wrong);
  }
});

test('what the caller says stays as it is, but for Authorization', async (t) => {
  stopTime(t);
  let seen;
  const world = session([token('a')], { origins: [API], api: (_, headers, input, init) => ((seen = { headers, init }), new Response('ok')) });
  await world.fetch(`${API}/me`, { method: 'PUT', body: 'x', headers: { 'x-mine': '1', authorization: 'Basic abc' }, credentials: 'include' });
  assert.deepEqual([seen.headers.get('x-mine'), seen.headers.get('authorization')], ['1', 'Bearer a']);
  assert.deepEqual([seen.init.method, seen.init.body, seen.init.credentials], ['PUT', 'x', 'include']);
  await world.fetch(new Request(`${API}/me`, { headers: { 'x-mine': '2' } }));
  assert.deepEqual([seen.headers.get('x-mine'), seen.headers.get('authorization')], ['2', 'Bearer a']);
});

test('after a 401 the token is renewed and the request sent again, once', async (t) => {
  stopTime(t);
  const world = session([token('a'), token('b'), token('c')], { origins: [API], api: only('b') });
  assert.equal((await world.fetch(`${API}/me`, { method: 'POST', body: 'x' })).status, 200);
  assert.deepEqual(world.sent.map(([, token]) => token), ['Bearer a', 'Bearer b']);
  assert.equal((await world.fetch(`${API}/me`)).status, 200);
  assert.equal(world.asked.length, 2);
});

test('of many requests that get a 401 at the same time one renews, and all are sent again', async (t) => {
  stopTime(t);
  const world = session([token('a'), token('b'), token('c')], { origins: [API], api: only('b') });
  const answers = await Promise.all(Array.from({ length: 20 }, () => world.fetch(`${API}/me`)));
  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
  assert.equal(world.asked.length, 2);
});

test('a 401 that comes late, for a token that has been replaced meanwhile, renews nothing', async (t) => {
  const time = stopTime(t);
  let late;
  const api = (url, headers) => (url.endsWith('/slow') && !late ? new Promise((resolve) => (late = () => resolve(only('b')(url, headers)))) : only('b')(url, headers));
  const world = session([token('a'), token('b'), token('c')], { origins: [API], api });
  const slow = world.fetch(`${API}/slow`);
  await time.settled();
  assert.equal((await world.fetch(`${API}/me`)).status, 200);
  late();
  assert.equal((await slow).status, 200);
  assert.equal(world.asked.length, 2);
});

test('an API that refuses every token costs one exchange each ten seconds', async (t) => {
  const time = stopTime(t);
  const world = session([token('a')], { origins: [API], api: () => new Response('', { status: 401 }) });
  for (let second = 0; second < 30; second++) {
    assert.equal((await world.fetch(`${API}/me`)).status, 401);
    await time.pass(1_000);
  }
  assert.equal(world.asked.length, 4);
});

test('a 401 stays one where no new token is to be had, and the error is told', async (t) => {
  const time = stopTime(t);
  const world = session([token('a'), refusal(401, 'session_revoked', { action: 'sign_in' })], { origins: [API], api: () => new Response('why', { status: 401 }) });
  const answer = await world.fetch(`${API}/me`);
  await time.settled();
  assert.deepEqual([answer.status, await answer.text(), world.errors], [401, 'why', ['session_revoked']]);
});

test('other refusals renew nothing', async (t) => {
  stopTime(t);
  for (const status of [400, 403, 404, 429, 500, 503]) {
    const world = session([token('a')], { origins: [API], api: () => new Response('', { status }) });
    assert.equal((await world.fetch(`${API}/me`)).status, status);
    assert.deepEqual([world.asked.length, world.sent.length], [1, 1]);
  }
});

test('a body that is a stream is not sent again; that of a Request is', async (t) => {
  stopTime(t);
  const bodies = [];
  const api = async (url, headers, input, init) => (bodies.push(await new Response(init.body ?? input.body).text()), only('b')(url, headers));
  const world = session([token('a'), token('b')], { origins: [API], api });
  const stream = new Blob(['x']).stream();
  assert.equal((await world.fetch(`${API}/me`, { method: 'POST', body: stream, duplex: 'half' })).status, 401);
  async function* generated() {
    yield new TextEncoder().encode('g');
  }
  assert.equal((await world.fetch(`${API}/me`, { method: 'POST', body: generated(), duplex: 'half' })).status, 401);
  assert.deepEqual([world.asked.length, bodies], [1, ['x', 'g']]);
  assert.equal((await world.fetch(new Request(`${API}/me`, { method: 'POST', body: 'y' }))).status, 200);
  assert.deepEqual(bodies, ['x', 'g', 'y', 'y']);
});

test('a signal ends the wait for a token, before and after a 401', async (t) => {
  const time = stopTime(t);
  const hang = ({ signal }) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
  const first = new AbortController();
  const before = session([hang], { origins: [API] });
  const waiting = before.fetch(new Request(`${API}/me`, { signal: first.signal }));
  await time.settled();
  first.abort(new Error('enough'));
  await assert.rejects(waiting, /enough/);
  assert.deepEqual(before.sent, []);

  const second = new AbortController();
  const after = session([token('a'), hang], { origins: [API], api: () => new Response('', { status: 401 }) });
  const request = after.fetch(`${API}/me`, { signal: second.signal });
  await time.settled();
  second.abort(new Error('enough'));
  await assert.rejects(request, /enough/);
  before.clear();
  after.clear();
});

test('an API that cannot be reached is the caller\'s to deal with', async (t) => {
  stopTime(t);
  const world = session([token('a')], { origins: [API], api: () => { throw new TypeError('fetch failed'); } });
  await assert.rejects(world.fetch(`${API}/me`), { name: 'TypeError', message: 'fetch failed' });
});

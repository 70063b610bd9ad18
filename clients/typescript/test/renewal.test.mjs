// When the client asks the service, and what it does when that does not answer as it should.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExchangeError } from '../dist/index.js';
import { later, offline, refusal, session, stopTime, token } from './world.mjs';

const rejects = (promise, code) =>
  assert.rejects(promise, (error) => error instanceof ExchangeError && error.code === code && !/subject_\d/.test(JSON.stringify(error) + error.stack));

test('one exchange serves all who ask at the same time, and who ask later', async (t) => {
  stopTime(t);
  const world = session([token('a')]);
  const tokens = await Promise.all(Array.from({ length: 50 }, () => world.getToken()));
  assert.deepEqual(new Set(tokens), new Set(['a']));
  assert.equal(await world.getToken(), 'a');
  assert.equal(world.asked.length, 1);
});

test('an exchange says what was asked for and nothing else, and takes no cookies and no redirects', async (t) => {
  stopTime(t);
  const world = session([token('a')], { url: 'https://auth.example.com/', app: 'web', audience: 'graphql', scope: 'read:tasks' });
  await world.getToken();
  assert.deepEqual(world.asked, [{ subject_token: 'subject_1', app: 'web', audience: 'graphql', scope: 'read:tasks' }]);
  assert.equal(world.request.url, 'https://auth.example.com/auth/exchange');
  assert.deepEqual([world.request.method, world.request.credentials, world.request.redirect, world.request.cache], ['POST', 'omit', 'error', 'no-store']);
  assert.deepEqual(world.request.headers, { 'content-type': 'application/json' });
});

test('a session id is exchanged as such, with its code verifier', async (t) => {
  stopTime(t);
  const world = session([token('a')], { provider: () => ({ sessionId: 'sess_1', codeVerifier: 'v' }) });
  await world.getToken();
  assert.deepEqual(world.asked, [{ session_id: 'sess_1', code_verifier: 'v' }]);
});

// The token's life, the second until which it is used as it is, and that until which nobody waits for the next.
for (const [life, fresh, calm] of [[30, 15, 27.5], [60, 30, 55], [120, 60, 110], [600, 540, 590], [3600, 3240, 3540]]) {
  test(`a token of ${life} s is used for ${fresh} s, then renewed while it serves, and waited for from ${calm} s on`, async (t) => {
    const time = stopTime(t);
    const slow = later();
    const world = session([token('a', life), slow]);
    await world.getToken();
    await time.pass(fresh * 1000 - 100);
    assert.equal(await world.getToken(), 'a');
    assert.equal(world.asked.length, 1, 'too early');
    await time.pass(200);
    assert.equal(await world.getToken(), 'a');
    await time.settled();
    assert.equal(world.asked.length, 2, 'too late');
    slow.answer(token('b', life));
    await time.settled();
    assert.equal(await world.getToken(), 'b');
    assert.equal(world.asked.length, 2);

    const late = session([token('a', life), token('b', life)]);
    await late.getToken();
    await time.pass(calm * 1000 + 100);
    assert.equal(await late.getToken(), 'b');
  });
}

test('a wall clock that is set back does not keep a token alive, and one that is set ahead costs one exchange', async (t) => {
  const time = stopTime(t);
  const world = session([token('a'), token('b'), token('c')]);
  await world.getToken();
  time.sleep(-86_400_000);
  assert.equal(await world.getToken(), 'a');
  await time.pass(600_000);
  assert.equal(await world.getToken(), 'b');
  time.sleep(86_400_000);
  assert.equal(await world.getToken(), 'c');
  assert.equal(await world.getToken(), 'c');
  assert.equal(world.asked.length, 3);
});

test('after a sleep in which the monotonic clock stood still a new token is waited for', async (t) => {
  const time = stopTime(t);
  const world = session([token('a'), token('b')]);
  await world.getToken();
  time.sleep(3_600_000);
  assert.equal(await world.getToken(), 'b');
});

test('the life of a token is counted from when it was asked for, however long the answer took', async (t) => {
  const time = stopTime(t);
  const slow = later();
  const world = session([slow, token('b')]);
  const first = world.getToken();
  await time.settled();
  time.sleep(595_000);
  slow.answer(token('a'));
  assert.equal(await first, 'a');
  assert.equal(await world.getToken(), 'b');
});

for (const [what, failing] of [['no network', offline], ['503', refusal(503, 'overloaded', { action: 'retry' })], ['429', refusal(429, 'rate_limited', { action: 'retry' })], ['502 of a proxy', () => new Response('<html>', { status: 502 })]]) {
  test(`${what}: tried again after growing pauses, four times, and then left alone for a while`, async (t) => {
    const time = stopTime(t);
    const world = session([failing]);
    const failed = rejects(world.getToken(), what === 'no network' ? 'network_error' : what.startsWith('502') ? 'answer_invalid' : what === '503' ? 'overloaded' : 'rate_limited');
    const asked = [];
    for (const pause of [0, 199, 1, 399, 1, 799, 1]) {
      await time.pass(pause);
      asked.push(world.asked.length);
    }
    assert.deepEqual(asked, [1, 1, 2, 2, 3, 3, 4]);
    await failed;
    assert.equal(world.errors.length, 1);

    // At once, from memory, and without asking the provider.
    await assert.rejects(world.getToken());
    assert.deepEqual([world.asked.length, world.subjects.length, world.errors.length], [4, 4, 1]);
    await time.pass(1_000);
    const second = assert.rejects(world.getToken());
    await time.pass(1_400);
    await second;
    assert.equal(world.asked.length, 8);
    // Twice as long now, and sixteen seconds at the most.
    for (const rest of [2, 4, 8, 16, 16]) {
      await time.pass(rest * 1_000 - 100);
      const before = world.asked.length;
      await assert.rejects(world.getToken());
      assert.equal(world.asked.length, before, `rests ${rest} s`);
      await time.pass(100);
      const next = assert.rejects(world.getToken());
      await time.pass(1_400);
      await next;
      assert.equal(world.asked.length, before + 4, `asks after ${rest} s`);
    }
  });
}

test('a success ends the growing of the rests', async (t) => {
  const time = stopTime(t);
  const broken = refusal(503, 'overloaded', { action: 'retry' });
  const world = session([broken, broken, broken, broken, broken, broken, broken, broken, token('a', 30), broken]);
  for (const rest of [1, 2]) {
    const failed = rejects(world.getToken(), 'overloaded');
    await time.pass(1_400);
    await failed;
    await time.pass(rest * 1_000);
  }
  assert.equal(await world.getToken(), 'a');
  await time.pass(30_000);
  const failed = rejects(world.getToken(), 'overloaded');
  await time.pass(1_400);
  await failed;
  const before = world.asked.length;
  await time.pass(1_000);
  const again = rejects(world.getToken(), 'overloaded');
  await time.pass(1_400);
  await again;
  assert.equal(world.asked.length, before + 4);
});

test('the provider is asked by force once, and not again when the service then fails', async (t) => {
  const time = stopTime(t);
  const world = session([refusal(401, 'subject_token_expired', { action: 'refresh_subject_token' }), offline, token('a')]);
  const waiting = world.getToken();
  await time.pass(200);
  assert.equal(await waiting, 'a');
  assert.deepEqual(world.subjects, [false, true, false]);
});

test('a failure that passes while it is tried again is not seen', async (t) => {
  const time = stopTime(t);
  const world = session([offline, refusal(503, 'store_unavailable', { action: 'retry', after: 2 }), token('a')]);
  const waiting = world.getToken();
  await time.pass(200 + 2_399);
  assert.equal(world.asked.length, 2);
  await time.pass(1);
  assert.equal(await waiting, 'a');
  assert.deepEqual(world.errors, []);
});

test('Retry-After is obeyed: waited for where it is short, and rested for where it is long', async (t) => {
  const time = stopTime(t);
  const world = session([refusal(429, 'rate_limited', { action: 'retry', after: 42 }), token('a')]);
  await assert.rejects(world.getToken(), { code: 'rate_limited', retryAfter: 42, status: 429, retryable: true });
  await time.pass(41_900);
  await rejects(world.getToken(), 'rate_limited');
  assert.equal(world.asked.length, 1);
  await time.pass(100);
  assert.equal(await world.getToken(), 'a');
});

test('a Retry-After of a year does not keep an app down for more than five minutes', async (t) => {
  const time = stopTime(t);
  const world = session([refusal(503, 'overloaded', { action: 'retry', after: 31_536_000 }), token('a')]);
  await rejects(world.getToken(), 'overloaded');
  await time.pass(300_000);
  assert.equal(await world.getToken(), 'a');
});

test('a Retry-After that is a date, or nonsense, is as good as none', async (t) => {
  const time = stopTime(t);
  const world = session([refusal(503, 'overloaded', { action: 'retry', after: 'Fri, 21 Nov 2036 05:20:00 GMT' }), token('a')]);
  const waiting = world.getToken();
  await time.pass(200);
  assert.equal(await waiting, 'a');
});

test('a token that is still valid serves while its early renewal fails, until its very end', async (t) => {
  const time = stopTime(t);
  const world = session([token('a'), offline]);
  await world.getToken();
  await time.pass(541_000);
  for (let second = 541; second < 598; second += 3) {
    const waiting = world.getToken();
    await time.pass(2_950);
    assert.equal(await waiting, 'a', `at ${second} s`);
    await time.pass(50);
  }
  assert.ok(world.errors.includes('network_error'));
  await time.pass(3_000);
  const waiting = rejects(world.getToken(), 'network_error');
  await time.pass(3_000);
  await waiting;
});

test('an expired subject token is replaced by a fresh one, once', async (t) => {
  stopTime(t);
  const expired = refusal(401, 'subject_token_expired', { action: 'refresh_subject_token' });
  const world = session([expired, token('a')]);
  assert.equal(await world.getToken(), 'a');
  assert.deepEqual(world.subjects, [false, true]);
  assert.deepEqual(world.asked.map(({ subject_token }) => subject_token), ['subject_1', 'subject_2']);
  assert.deepEqual(world.errors, []);

  const hopeless = session([expired]);
  await rejects(hopeless.getToken(), 'subject_token_expired');
  assert.deepEqual([hopeless.subjects, hopeless.asked.length, hopeless.errors], [[false, true], 2, ['subject_token_expired']]);
});

test('a refused credential is not sent again, whatever the provider calls fresh', async (t) => {
  const time = stopTime(t);
  const world = session([refusal(401, 'session_id_used', { action: 'refresh_subject_token' })], { provider: () => ({ sessionId: 'sess_1' }) });
  await rejects(world.getToken(), 'session_id_used');
  assert.equal(world.asked.length, 1);
  await rejects(world.getToken(), 'session_id_used');
  assert.deepEqual([world.asked.length, world.errors.length, world.subjects], [1, 1, [false, true, false]]);
  await time.pass(1_000);
  await rejects(world.getToken(), 'session_id_used');
  assert.equal(world.asked.length, 2);
});

test('what a retry cannot mend is not retried; another credential is tried at once', async (t) => {
  const time = stopTime(t);
  let subject = 'one';
  const world = session([refusal(401, 'session_revoked', { action: 'sign_in' }), token('a')], { provider: () => subject });
  await assert.rejects(world.getToken(), { code: 'session_revoked', status: 401, retryable: false, action: 'sign_in', requestId: 'req_1', docs: 'docs/errors.md#session_revoked', message: 'It is session_revoked.' });
  await rejects(world.getToken(), 'session_revoked');
  assert.equal(world.asked.length, 1);
  subject = 'two';
  assert.equal(await world.getToken(), 'a');
  await time.pass(0);
});

test('what no credential mends is not asked again at once with another one', async (t) => {
  const time = stopTime(t);
  const world = session([refusal(400, 'audience_not_allowed', { action: 'fix_request' }), token('a')]);
  for (let call = 0; call < 20; call++) await rejects(world.getToken(), 'audience_not_allowed');
  assert.deepEqual([world.asked.length, world.subjects.length, world.errors.length], [1, 1, 1]);
  await time.pass(1_000);
  assert.equal(await world.getToken(), 'a');
});

test('who is not signed in gets that for an answer, and the service is not asked', async (t) => {
  stopTime(t);
  for (const nothing of [null, undefined, '']) {
    let subject = nothing;
    const world = session([token('a')], { provider: async () => subject });
    await assert.rejects(world.getToken(), { code: 'signed_out', action: 'sign_in', status: 0, retryable: false });
    assert.deepEqual([world.asked.length, world.errors], [0, []]);
    subject = 'now';
    assert.equal(await world.getToken(), 'a');
  }
});

test('a provider that fails is asked again, and its error is the cause', async (t) => {
  const time = stopTime(t);
  const error = new Error('clerk is offline');
  const world = session([token('a')], { provider: () => { throw error; } });
  const failed = assert.rejects(world.getToken(), { code: 'subject_token_unavailable', cause: error, retryable: true });
  await time.pass(2_000);
  await failed;
  assert.deepEqual([world.subjects.length, world.asked.length], [4, 0]);
});

test('whoever hangs is waited for ten seconds, four times: the service, and the provider', async (t) => {
  const time = stopTime(t);
  for (const world of [session([later()]), session([token('a')], { provider: () => new Promise(() => {}) })]) {
    const failed = rejects(world.getToken(), 'timeout');
    await time.pass(41_400);
    await failed;
  }
  const quick = session([later(), token('a')], { timeout: 500 });
  const waiting = quick.getToken();
  await time.pass(700);
  assert.equal(await waiting, 'a');
});

test('an answer that is not the service\'s gives no token', async (t) => {
  stopTime(t);
  const answers = {
    'a captive portal': () => new Response('<html>Sign in to the Wi-Fi</html>'),
    'no token': token(''),
    'no life': token('a', 0),
    'null': () => new Response('null'),
    'a code and no refusal': () => Response.json({ code: 'session_revoked' }),
    'no user': token('a', 600, { user: null }),
    'a 404 of something else': () => new Response('not found', { status: 404 }),
  };
  for (const [what, answer] of Object.entries(answers)) {
    await assert.rejects(session([answer]).getToken(), { code: 'answer_invalid', retryable: false, action: 'fix_config' }, what);
  }
});

test('one who stops waiting disturbs nobody else', async (t) => {
  const time = stopTime(t);
  const slow = later();
  const world = session([slow]);
  const controller = new AbortController();
  const [impatient, patient] = [world.getToken({ signal: controller.signal }), world.getToken()];
  await time.settled();
  controller.abort(new Error('enough'));
  await assert.rejects(impatient, /enough/);
  await assert.rejects(world.getToken({ signal: controller.signal }), /enough/);
  slow.answer(token('a'));
  assert.equal(await patient, 'a');
  assert.equal(world.asked.length, 1);
});

test('ensure tells of the user, and so does the event of a new token, once', async (t) => {
  const time = stopTime(t);
  const user = { id: 'user_1', org_id: 'org_1', roles: ['org:admin'], is_new: true };
  const world = session([token('a', 600, { user, scope: 'read:tasks' })]);
  assert.deepEqual(await world.ensure(), { user, scope: 'read:tasks' });
  await world.ensure();
  await time.settled();
  assert.deepEqual(world.events, ['user_1']);
});

test('who stopped listening hears no more', async (t) => {
  const time = stopTime(t);
  const world = session([offline]);
  const heard = [];
  const end = world.on('error', ({ code }) => heard.push(code));
  end();
  const failed = rejects(world.getToken(), 'network_error');
  await time.pass(2_000);
  await failed;
  assert.deepEqual([heard, world.errors], [[], ['network_error']]);
});

// Sign-out: whatever is under way, nothing of the user who left reaches the next one.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { later, offline, refusal, session, stopTime, token } from './world.mjs';

const signedOut = { code: 'signed_out', action: 'sign_in', retryable: false };

test('an exchange that is under way is given up, and its token never seen', async (t) => {
  const time = stopTime(t);
  const slow = later();
  const world = session([slow, token('next')]);
  const waiting = world.getToken();
  await time.settled();
  world.clear();
  await assert.rejects(waiting, signedOut);
  assert.equal(world.request.signal.aborted, true);
  slow.answer(token('late'));
  await time.settled();
  assert.equal(await world.getToken(), 'next');
  await time.settled();
  assert.deepEqual([world.events, world.errors], [['clear', 'user_1'], []]);
});

test('a new exchange is not joined to the old one, and the old one ends nothing of it', async (t) => {
  const time = stopTime(t);
  const [old, next] = [later(), later()];
  const world = session([(init) => old({ ...init, signal: undefined }), next]);
  const waiting = world.getToken();
  await time.settled();
  world.clear();
  const second = world.getToken();
  await assert.rejects(waiting, signedOut);
  old.answer(token('old'));
  await time.settled();
  next.answer(token('next'));
  assert.equal(await second, 'next');
  assert.equal(await world.getToken(), 'next');
  assert.equal(world.asked.length, 2);
});

test('a credential that comes after the sign-out is not sent', async (t) => {
  const time = stopTime(t);
  let give;
  const world = session([token('a')], { provider: () => new Promise((resolve) => (give = resolve)) });
  const waiting = world.getToken();
  await time.settled();
  world.clear();
  await assert.rejects(waiting, signedOut);
  give('left already');
  await time.settled();
  assert.deepEqual([world.asked, world.errors], [[], []]);
});

test('a pause between two attempts ends at once, and no attempt follows', async (t) => {
  const time = stopTime(t);
  const world = session([offline]);
  const waiting = world.getToken();
  await time.pass(100);
  world.clear();
  await assert.rejects(waiting, signedOut);
  await time.pass(5_000);
  assert.equal(world.asked.length, 1);
});

test('a token that is held is forgotten, and so is a failure', async (t) => {
  stopTime(t);
  const world = session([token('a'), token('b')]);
  assert.equal(await world.getToken(), 'a');
  world.clear();
  assert.equal(await world.getToken(), 'b');

  const failed = session([refusal(503, 'overloaded', { action: 'retry', after: 60 }), token('a')]);
  await assert.rejects(failed.getToken());
  failed.clear();
  assert.equal(await failed.getToken(), 'a');
});

test('a renewal in the background is dropped too', async (t) => {
  const time = stopTime(t);
  const slow = later();
  const world = session([token('a'), slow, token('b')]);
  await world.getToken();
  await time.pass(550_000);
  assert.equal(await world.getToken(), 'a');
  world.clear();
  slow.answer(token('late'));
  assert.equal(await world.getToken(), 'b');
});

test('a request is never repeated with the token of another user', async (t) => {
  const time = stopTime(t);
  const slow = later();
  const world = session([token('a'), slow, token('b')], { origins: ['https://api.example.com'], api: () => new Response('', { status: 401 }) });
  const request = world.fetch('https://api.example.com/mine', { method: 'POST', body: 'of the first' });
  await time.settled();
  world.clear();
  assert.equal(await world.getToken(), 'b');
  slow.answer(token('late'));
  assert.equal((await request).status, 401);
  assert.deepEqual(world.sent, [['https://api.example.com/mine', 'Bearer a']]);
});

test('nor is one whose 401 comes when the next user has a token already', async (t) => {
  const time = stopTime(t);
  let refuse;
  const api = () => new Promise((resolve) => (refuse = () => resolve(new Response('', { status: 401 }))));
  const world = session([token('a'), token('b')], { origins: ['https://api.example.com'], api });
  const request = world.fetch('https://api.example.com/mine', { method: 'POST', body: 'of the first' });
  await time.settled();
  world.clear();
  assert.equal(await world.getToken(), 'b');
  refuse();
  assert.equal((await request).status, 401);
  assert.deepEqual(world.sent, [['https://api.example.com/mine', 'Bearer a']]);
});

test('at whatever moment of an exchange it comes, the next user gets a token of their own', async (t) => {
  const time = stopTime(t);
  for (let moment = 0; moment < 60; moment++) {
    let user = 'first';
    const world = session([({ body }) => token(`of ${JSON.parse(body).subject_token}`)()], { provider: () => user });
    const waiting = world.getToken().catch(({ code }) => code);
    for (let turn = 0; turn < moment; turn++) await null;
    user = 'second';
    world.clear();
    const next = world.getToken();
    await time.settled();
    assert.equal(await next, 'of second', `moment ${moment}`);
    assert.equal(await world.getToken(), 'of second', `moment ${moment}, later`);
    assert.ok(['of first', 'signed_out'].includes(await waiting), `moment ${moment}, before`);

    const quiet = session([token('a')]);
    quiet.getToken().catch(() => {});
    for (let turn = 0; turn < moment; turn++) await null;
    quiet.clear();
    await time.settled();
    assert.equal(quiet.events.at(-1), 'clear', `moment ${moment}: nothing follows`);
  }
});

test('one who waited for a token never gets that of the next user', async (t) => {
  const time = stopTime(t);
  let user = 'first';
  const slow = later();
  const world = session([token('of first'), slow, ({ body }) => token(`of ${JSON.parse(body).subject_token}`)()], { provider: () => user });
  await world.getToken();
  await time.pass(595_000); // so late that the next one is waited for
  const waiting = world.getToken().catch(({ code }) => code);
  await time.settled();
  user = 'second';
  world.clear();
  assert.equal(await world.getToken(), 'of second');
  assert.equal(await waiting, 'signed_out');
});

test('clearing twice, and clearing what never began, harms nothing', async (t) => {
  stopTime(t);
  const world = session([token('a')]);
  world.clear();
  world.clear();
  assert.equal(await world.getToken(), 'a');
});

// createDpopFetch against scripted servers: which requests it repeats, and what it makes a key of.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDpopFetch } from '../dist/dpop.js';

const bound = { authorization: 'DPoP x' };
const API = 'https://api.example.com/me';
const claims = (proof) => JSON.parse(Buffer.from(proof.split('.')[1], 'base64url'));

/** A fetch with a key, whose servers answer with `answer(count)`; `proofs` has the claims of each request. */
function world(answer) {
  const proofs = [];
  const send = async (input, init) => {
    proofs.push(claims(init.headers.get('dpop')));
    if (init.body) await new Response(init.body).text();
    return answer(proofs.length, input);
  };
  return { proofs, dpop: createDpopFetch({ fetch: send }) };
}

const nonce = (value, status, body = '', challenge) =>
  new Response(body, { status, headers: { 'dpop-nonce': value, ...(challenge && { 'www-authenticate': challenge }) } });
const WANTED = 'DPoP error="use_dpop_nonce"';

test('a server that never has enough of nonces is asked twice', async () => {
  const { proofs, dpop } = world((count) => nonce(`n${count}`, 401, 'again', WANTED));
  const answer = await dpop(API, { headers: bound });
  assert.deepEqual([answer.status, await answer.text()], [401, 'again']);
  assert.deepEqual(proofs.map(({ nonce }) => nonce), [undefined, 'n1']);
  assert.notEqual(proofs[0].jti, proofs[1].jti);
});

test('a server that wants the nonce that it got is asked once', async () => {
  const { proofs, dpop } = world(() => nonce('n', 401, '', WANTED));
  await dpop(API, { headers: bound });
  await dpop(API, { headers: bound });
  assert.deepEqual(proofs.map(({ nonce }) => nonce), [undefined, 'n', 'n']);
});

test('a refusal that is not about the nonce is not repeated, and can be read, though it brings one', async () => {
  for (const [url, refused] of [
    [API, () => nonce('n', 401, 'why', 'DPoP error="invalid_token"')],
    ['https://auth.example.com/auth/exchange', () => nonce('n', 400, '{"error":"invalid_dpop_proof"}')],
    [API, () => nonce('n', 403, 'why', WANTED)],
  ]) {
    const { proofs, dpop } = world(refused);
    const answer = await dpop(url, { method: 'POST', headers: bound });
    assert.match(await answer.text(), /why|invalid_dpop_proof/);
    assert.equal(proofs.length, 1);
  }
});

test('a nonce is for the server that gave it', async () => {
  const { proofs, dpop } = world(() => nonce('n', 200));
  for (const url of [API, 'https://other.example/me', 'https://api.example.com/you?x#y']) await dpop(url, { headers: bound });
  assert.deepEqual(proofs.map(({ htu, nonce }) => [htu, nonce]), [
    [API, undefined],
    ['https://other.example/me', undefined],
    ['https://api.example.com/you', 'n'],
  ]);
});

test('a body that is a stream is not sent again', async () => {
  const { proofs, dpop } = world(() => nonce('n', 401, '', WANTED));
  const answer = await dpop(API, { method: 'POST', headers: bound, body: new Blob(['x']).stream(), duplex: 'half' });
  assert.deepEqual([answer.status, proofs.length], [401, 1]);
});

test('one key is made for all requests, and cannot be taken out', async (t) => {
  const made = t.mock.method(crypto.subtle, 'generateKey');
  const { proofs, dpop } = world(() => nonce('n', 200));
  await Promise.all([dpop(API, { headers: bound }), dpop(API, { headers: bound })]);
  assert.deepEqual([proofs.length, made.mock.callCount()], [2, 1]);
  const { privateKey } = await made.mock.calls[0].result;
  assert.deepEqual([privateKey.extractable, privateKey.usages], [false, ['sign']]);
});

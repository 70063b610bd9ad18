// A client with a key, as jose makes its proofs (RFC 9449 §4.2): one line of JSON in, one out.
import { createHash, randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';
import { SignJWT, calculateJwkThumbprint, exportJWK, generateKeyPair } from 'jose';

const keys = new Map();

async function key(alg) {
  if (!keys.has(alg)) {
    const { privateKey, publicKey } = await generateKeyPair(alg);
    keys.set(alg, { privateKey, jwk: await exportJWK(publicKey) });
  }
  return keys.get(alg);
}

async function proof({ alg, method, uri, token, nonce }) {
  const { privateKey, jwk } = await key(alg);
  const ath = token && createHash('sha256').update(token).digest('base64url');
  const signed = await new SignJWT({ htm: method, htu: uri, ath, nonce })
    .setProtectedHeader({ typ: 'dpop+jwt', alg, jwk })
    .setJti(randomUUID())
    .setIssuedAt()
    .sign(privateKey);
  return { proof: signed, thumbprint: await calculateJwkThumbprint(jwk) };
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await proof(JSON.parse(line)))}\n`);
}

#!/usr/bin/env node
// A foreign verifier: checks tokens as a Node service would, with `jose` and its defaults.
//
// What it is: createRemoteJWKSet + jwtVerify. There is one key set per jwks_uri for the life of the
// process, with jose's own cache (10 min; an unknown kid refetches, at most once in 30 s), so that a key
// rotation is seen here as a real service sees it. Start a new process for an empty cache.
// What it is not: a second implementation of our checks. It decides nothing that jose does not.
//
//   stdin   {"token":"...","jwks_uri":"...","issuer":"...","audience":"..."}   one a line, all four needed
//   stdout  {"ok":true,"kid":"...","alg":"...","sub":"..."} or {"ok":false,"error":"CODE: message"}

import { createInterface } from 'node:readline';
import { createRemoteJWKSet, jwtVerify } from 'jose';

const keySets = new Map();

async function verify(line) {
  const input = JSON.parse(line);
  for (const name of ['token', 'jwks_uri', 'issuer', 'audience']) {
    // jose skips the check of an issuer or audience that is not given; a test must not.
    if (typeof input?.[name] !== 'string') throw new Error(`"${name}" must be a string`);
  }
  const { token, jwks_uri, issuer, audience } = input;
  if (!keySets.has(jwks_uri)) keySets.set(jwks_uri, createRemoteJWKSet(new URL(jwks_uri)));
  const { payload, protectedHeader } = await jwtVerify(token, keySets.get(jwks_uri), { issuer, audience });
  return { ok: true, kid: protectedHeader.kid, alg: protectedHeader.alg, sub: payload.sub };
}

for await (const line of createInterface({ input: process.stdin })) {
  if (!line.trim()) continue;
  const answer = await verify(line).catch((error) => {
    const cause = error.cause instanceof Error ? ` (${error.cause.message || error.cause.code})` : '';
    return { ok: false, error: `${error.code ?? error.name}: ${error.message}${cause}` };
  });
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0); // kept-alive connections would hold it open

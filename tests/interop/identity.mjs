#!/usr/bin/env node
// An example of a service behind the gate: checks X-Signature as a Node backend would.
//
// What it is: `verified` below, with Node's own crypto alone, ready to be copied.
// What it is not: a check of anything else; roles and scopes are for the service to look at.
//
//   stdin   {"secret":"whsec_...","method":"...","target":"/path?query","headers":{"x-app":"..."},
//            "body":"...","now":1763700000}   one a line
//   stdout  {"ok":true,"user":"..."} or {"ok":false,"error":"..."}

import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { createInterface } from 'node:readline';

const IDENTITY = ['x-app', 'x-user-id', 'x-org-id', 'x-roles', 'x-scopes', 'x-rate-limit-key', 'x-client-id'];
const MAX_AGE = 60; // seconds

// The user, where the identity headers are signed for this very request.
function verified({ secret, method, target, headers, body, now }) {
  const [, time, code] = /^v1,t=(\d{1,15}),([A-Za-z0-9+/]{43}=)$/.exec(headers['x-signature'] ?? '') ?? [];
  if (!code) throw new Error('no signature of version 1');
  if (Math.abs(now - Number(time)) > MAX_AGE) throw new Error('too old');
  const digest = body ? createHash('sha256').update(body).digest('base64') : '-';
  // A gateway may leave out a header that has nothing to say.
  const identity = IDENTITY.map((name) => `${name}:${headers[name] ?? ''}`);
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64');
  const expected = createHmac('sha256', key)
    .update(['v1', time, method, target, digest, ...identity].join('\n'))
    .digest();
  if (!timingSafeEqual(expected, Buffer.from(code, 'base64'))) {
    throw new Error('signed for another request, or by somebody else');
  }
  return headers['x-user-id'];
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = { ok: true, user: verified(JSON.parse(line)) };
  } catch (error) {
    answer = { ok: false, error: error.message };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

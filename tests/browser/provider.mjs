// A stand-in identity provider of a test: a key, the key set that shows it, and session tokens as Clerk's.
import { generateKeyPairSync, sign } from 'node:crypto';
import { createServer } from 'node:http';

/** Listens on a free port. Gives `url` (its `iss`), `sessionToken(claims)`, and `stop()`. */
export async function startProvider() {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'ins_1', alg: 'RS256', use: 'sig' };
  const { url, stop } = await listen((request, answer) => {
    const known = request.url === '/.well-known/jwks.json';
    answer.writeHead(known ? 200 : 404, { 'content-type': 'application/json' });
    answer.end(JSON.stringify(known ? { keys: [jwk] } : {}));
  });
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return {
    url,
    stop,
    /** A good token of a minute, but for these claims; `age` makes it so many seconds older. */
    sessionToken({ age = 0, ...claims } = {}) {
      const now = Math.floor(Date.now() / 1000) - age;
      const all = { iss: url, sub: 'user_1', sid: 'sess_1', sts: 'active', v: 2, iat: now, nbf: now - 10, exp: now + 60, ...claims };
      const message = `${part({ alg: 'RS256', kid: 'ins_1', typ: 'JWT' })}.${part(all)}`;
      return `${message}.${sign('sha256', Buffer.from(message), privateKey).toString('base64url')}`;
    },
  };
}

/** Any handler as a server on a free port of loopback: its `url`, and `stop()`. */
export async function listen(handler) {
  const server = createServer(handler);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    stop: () => new Promise((resolve) => (server.close(resolve), server.closeAllConnections())),
  };
}

/** A port of loopback that is free now. */
export async function freePort() {
  const { url, stop } = await listen(() => {});
  await stop();
  return Number(new URL(url).port);
}

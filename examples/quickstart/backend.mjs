// The backend: an API that knows its users by app JWTs alone, and the page that calls it.
import { createRemoteJWKSet, jwtVerify } from 'jose';
import { readFile } from 'node:fs/promises';
import { extname } from 'node:path';

const FILES = {
  '/': new URL('public/index.html', import.meta.url),
  '/app.js': new URL('public/app.js', import.meta.url),
};
const CLIENT = new URL('../../clients/typescript/dist/', import.meta.url); // the client library, as npm has it
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8' };

/** Answers requests. `issuer` is Exchequer, `audience` what this API is, `standIn` its provider where it has one. */
export function backend({ issuer, audience, standIn }) {
  const keys = createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks.json`));

  async function user(request) {
    const token = /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '';
    const { payload } = await jwtVerify(token, keys, { issuer, audience, algorithms: ['ES256'] });
    return payload;
  }

  return async (request, response) => {
    const { pathname, search } = new URL(request.url, 'http://backend');
    const send = (status, type, body) => response.writeHead(status, { 'content-type': type }).end(body);
    const json = (status, body) => send(status, 'application/json', JSON.stringify(body));
    if (pathname === '/api/tasks') {
      const caller = await user(request).catch(() => undefined);
      if (!caller) return json(401, { error: 'invalid_token' });
      return json(200, { user: caller.sub, organization: caller.org_id, tasks: ['Water the plants', 'Pay the rent'] });
    }
    if (pathname === '/config.json') return json(200, { url: issuer, audience });
    // The stand-in has no sign-in page: this asks it for what a provider's SDK would hold.
    if (standIn && request.method === 'POST' && /^\/stand-in\/(session-id|session-token)$/.test(pathname)) {
      const answer = await fetch(`${standIn}${pathname.slice('/stand-in'.length)}${search}`);
      return send(answer.status, 'text/plain', await answer.text());
    }
    const file = FILES[pathname] ?? (/^\/client\/\w+\.js$/.test(pathname) && new URL(pathname.slice(8), CLIENT));
    const text = file && (await readFile(file).catch(() => undefined));
    return text ? send(200, TYPES[extname(file.pathname)], text) : json(404, { error: 'not_found' });
  };
}

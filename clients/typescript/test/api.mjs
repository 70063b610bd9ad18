// An API that believes what the service's /auth/verify says, as one behind a gateway does; any page may call it.
import { listen } from '../../../tests/browser/provider.mjs';

const CORS = {
  'access-control-allow-origin': '*',
  'access-control-allow-headers': 'authorization, content-type, dpop',
  'access-control-expose-headers': 'dpop-nonce, www-authenticate',
};

/** Starts it. `api.gate` must be set to the service's URL; `api.seen` has the Authorization of each request. */
export async function startApi() {
  const api = { gate: undefined, seen: [] };
  const server = await listen(async (request, answer) => {
    if (request.method === 'OPTIONS') return answer.writeHead(204, CORS).end();
    const { authorization = '', dpop } = request.headers;
    api.seen.push(authorization);
    const headers = { authorization, 'x-original-method': request.method, 'x-original-uri': request.url, ...(dpop && { dpop }) };
    const verdict = await fetch(`${api.gate}/auth/verify`, { headers });
    const told = ['dpop-nonce', 'www-authenticate'].map((name) => [name, verdict.headers.get(name)]).filter(([, value]) => value);
    answer.writeHead(verdict.status, { ...CORS, ...Object.fromEntries(told) });
    answer.end(JSON.stringify({ user: verdict.headers.get('x-user-id') }));
  });
  return Object.assign(api, server);
}

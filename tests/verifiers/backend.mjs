// A backend with one route, for libraries that no example shows: `verified` gives the claims, or throws.
import { createServer } from 'node:http';

export const { ISSUER, AUDIENCE, ALG, PORT } = process.env;
export const jwksUri = `${ISSUER}/.well-known/jwks.json`;

export function serve(verified) {
  createServer(async (request, response) => {
    const token = request.headers.authorization?.replace(/^Bearer /, '') ?? '';
    const claims = await verified(token).catch((error) => console.error(`${error.name}: ${error.message}`));
    const granted = claims?.scope.split(' ').includes('read:reports');
    response.writeHead(granted ? 200 : claims ? 403 : 401);
    response.end(granted ? JSON.stringify({ user: claims.sub }) : '');
  }).listen(PORT, '127.0.0.1');
}

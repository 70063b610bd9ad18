// A backend on Express that verifies app JWTs with jose.
import express from 'express';
import { createRemoteJWKSet, jwtVerify } from 'jose';

const { ISSUER, AUDIENCE, ALG = 'ES256', PORT = 3000 } = process.env;
// jose skips the check of an issuer or audience that is undefined.
if (!ISSUER || !AUDIENCE) throw new Error('set ISSUER and AUDIENCE');

// One for the life of the process: it keeps the keys for 10 minutes.
const keys = createRemoteJWKSet(new URL(`${ISSUER}/.well-known/jwks.json`));

const requires = (scope) => async (request, response, next) => {
  const token = request.get('authorization')?.replace(/^Bearer +/i, '') ?? '';
  try {
    const { payload } = await jwtVerify(token, keys, {
      algorithms: [ALG], // never what the token's header says
      issuer: ISSUER,
      audience: AUDIENCE,
      requiredClaims: ['exp', 'sub'],
    });
    request.token = payload;
  } catch {
    return response.status(401).set('WWW-Authenticate', 'Bearer error="invalid_token"').end();
  }
  if (!(request.token.scope ?? '').split(' ').includes(scope)) {
    return response.status(403).set('WWW-Authenticate', 'Bearer error="insufficient_scope"').end();
  }
  next();
};

const app = express();
app.get('/reports', requires('read:reports'), (request, response) => {
  response.json({ user: request.token.sub });
});
app.listen(PORT, '127.0.0.1');

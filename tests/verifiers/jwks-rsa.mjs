// jsonwebtoken, with the keys that jwks-rsa fetches.
import jwt from 'jsonwebtoken';
import jwks from 'jwks-rsa';
import { AUDIENCE, ALG, ISSUER, jwksUri, serve } from './backend.mjs';

const client = jwks({ jwksUri });
const key = (header, done) => client.getSigningKey(header.kid).then((found) => done(null, found.getPublicKey()), done);

serve((token) => new Promise((resolve, reject) => {
  const rules = { algorithms: [ALG], issuer: ISSUER, audience: AUDIENCE };
  jwt.verify(token, key, rules, (error, claims) => (error ? reject(error) : resolve(claims)));
}));

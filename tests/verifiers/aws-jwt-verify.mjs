// aws-jwt-verify. It fetches keys over https alone: here its fetcher is replaced, and nothing else.
import { SimpleJwksCache } from 'aws-jwt-verify/jwk';
import { JwtVerifier } from 'aws-jwt-verify';
import { AUDIENCE, ISSUER, jwksUri, serve } from './backend.mjs';

const fetcher = { fetch: async (uri) => (await fetch(uri)).arrayBuffer() };
const verifier = JwtVerifier.create(
  { issuer: ISSUER, audience: AUDIENCE, jwksUri },
  { jwksCache: new SimpleJwksCache({ fetcher }) },
);

serve((token) => verifier.verify(token));

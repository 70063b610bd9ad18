#!/usr/bin/env node
// A foreign OAuth client: openid-client and oauth4webapi, unmodified, against our token endpoint.
//
// What it is: discovery of the issuer, then the one call that the line names, with the library's own
// client authentication, PKCE and DPoP. Requests to the issuer's address go to `url`, where the
// service under test listens; nothing else is changed on their way.
// What it is not: a second implementation of OAuth. It decides nothing that the libraries do not.
//
//   stdin   {"lib":"openid-client"|"oauth4webapi","url":"...","issuer":"...","client_id":"...",
//            "auth":"basic"|"post"|"secret_jwt"|"key_jwt"|"none","secret":"...","key":{JWK},
//            "dpop":true|false,"do":"...","parameters":{...}, ...}          one a line
//   do      metadata | client_credentials | grant (grant_type) | refresh (refresh_token)
//           | code (callback, code_verifier, redirect_uri, state) | introspect (token) | revoke (token)
//   stdout  {"ok":{...}} or {"error":"CODE","description":"..."}

import { createInterface } from 'node:readline';
import * as oidc from 'openid-client';
import * as oauth from 'oauth4webapi';

const keys = new Map(); // one DPoP key for each client id, as an app keeps one

async function dpopKeys(input, generate) {
  const name = `${input.lib} ${input.client_id}`;
  if (!keys.has(name)) keys.set(name, await generate());
  return keys.get(name);
}

function redirected(input) {
  return (url, options) => fetch(String(url).replace(input.issuer, input.url), options);
}

async function signingKey(jwk) {
  const { kid, alg, ...rest } = jwk;
  const names = { ES256: { name: 'ECDSA', namedCurve: 'P-256' }, EdDSA: { name: 'Ed25519' } };
  const algorithm = names[alg] ?? { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
  return { key: await crypto.subtle.importKey('jwk', rest, algorithm, false, ['sign']), kid };
}

async function authentication(library, input) {
  switch (input.auth) {
    case 'basic': return library.ClientSecretBasic(input.secret);
    case 'post': return library.ClientSecretPost(input.secret);
    case 'secret_jwt': return library.ClientSecretJwt(input.secret);
    case 'key_jwt': return library.PrivateKeyJwt(await signingKey(input.key));
    case 'none': return library.None();
    default: throw new Error(`auth ${input.auth}?`);
  }
}

async function withOpenidClient(input) {
  const config = await oidc.discovery(
    new URL(input.issuer), input.client_id, undefined, await authentication(oidc, input),
    { algorithm: input.algorithm ?? 'oauth2', execute: [oidc.allowInsecureRequests], [oidc.customFetch]: redirected(input) },
  );
  config[oidc.customFetch] = redirected(input);
  const options = {};
  if (input.dpop) options.DPoP = oidc.getDPoPHandle(config, await dpopKeys(input, () => oidc.randomDPoPKeyPair('ES256')));
  const parameters = new URLSearchParams(input.parameters ?? {});
  switch (input.do) {
    case 'metadata': return config.serverMetadata();
    case 'client_credentials': return oidc.clientCredentialsGrant(config, parameters, options);
    case 'grant': return oidc.genericGrantRequest(config, input.grant_type, parameters, options);
    case 'refresh': return oidc.refreshTokenGrant(config, input.refresh_token, parameters, options);
    case 'introspect': return oidc.tokenIntrospection(config, input.token);
    case 'revoke': return (await oidc.tokenRevocation(config, input.token)) ?? {};
    case 'code': {
      const checks = { pkceCodeVerifier: input.code_verifier, expectedState: input.state, idTokenExpected: false };
      return oidc.authorizationCodeGrant(config, new URL(input.callback), checks, undefined, options);
    }
    default: throw new Error(`do ${input.do}?`);
  }
}

async function withOauth4webapi(input) {
  const http = { [oauth.allowInsecureRequests]: true, [oauth.customFetch]: redirected(input) };
  const issuer = new URL(input.issuer);
  const discovered = await oauth.discoveryRequest(issuer, { algorithm: input.algorithm ?? 'oauth2', ...http });
  const server = await oauth.processDiscoveryResponse(issuer, discovered);
  const client = { client_id: input.client_id };
  const authenticates = await authentication(oauth, input);
  const parameters = new URLSearchParams(input.parameters ?? {});
  const options = { ...http };
  if (input.dpop) options.DPoP = oauth.DPoP(client, await dpopKeys(input, () => oauth.generateKeyPair('ES256')));
  const twice = async (request, process) => {
    // As the library's documentation says: a server's nonce is known after the first answer.
    const read = async () => process(await request());
    return read().catch((error) => {
      if (input.dpop && oauth.isDPoPNonceError(error)) return read();
      throw error;
    });
  };
  switch (input.do) {
    case 'metadata': return server;
    case 'client_credentials': return twice(
      () => oauth.clientCredentialsGrantRequest(server, client, authenticates, parameters, options),
      (answer) => oauth.processClientCredentialsResponse(server, client, answer));
    case 'grant': return twice(
      () => oauth.genericTokenEndpointRequest(server, client, authenticates, input.grant_type, parameters, options),
      (answer) => oauth.processGenericTokenEndpointResponse(server, client, answer));
    case 'refresh': return twice(
      () => oauth.refreshTokenGrantRequest(server, client, authenticates, input.refresh_token, { ...options, additionalParameters: parameters }),
      (answer) => oauth.processRefreshTokenResponse(server, client, answer));
    case 'introspect': return oauth.processIntrospectionResponse(
      server, client, await oauth.introspectionRequest(server, client, authenticates, input.token, http));
    case 'revoke': return (await oauth.processRevocationResponse(
      await oauth.revocationRequest(server, client, authenticates, input.token, http))) ?? {};
    case 'code': {
      const callback = oauth.validateAuthResponse(server, client, new URL(input.callback), input.state);
      return twice(
        () => oauth.authorizationCodeGrantRequest(server, client, authenticates, callback, input.redirect_uri, input.code_verifier, options),
        (answer) => oauth.processAuthorizationCodeResponse(server, client, answer));
    }
    default: throw new Error(`do ${input.do}?`);
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  if (!line.trim()) continue;
  const input = JSON.parse(line);
  const library = input.lib === 'openid-client' ? withOpenidClient : withOauth4webapi;
  const answer = await library(input).then(
    (ok) => ({ ok }),
    async (error) => (error.code === 'OAUTH_WWW_AUTHENTICATE_CHALLENGE' ? {
      // The libraries leave the body of a 401 with a challenge to the caller.
      error: (await error.response.json()).error, challenge: error.cause.map((each) => each.scheme),
    } : {
      error: error.error ?? error.code ?? error.name,
      description: error.error_description ?? `${error.message}${error.cause ? ` (${error.cause.message ?? error.cause})` : ''}`,
    }),
  );
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0); // kept-alive connections would hold it open

#!/usr/bin/env node
// A real, certified OpenID provider (npm `oidc-provider`) on loopback, so that Exchequer is tested
// against tokens that it had no part in making.
//
// What it is: the provider with its own development login and consent pages, two public clients
// (RS256 and ES256 ID tokens, authorization code + PKCE), a resource server that introspects the
// opaque access tokens (RFC 7662), fresh keys and an empty store per start.
// What it is not: a mock. This script never signs anything: it plays the browser and the client,
// over HTTP, and hands back what the provider answered. It is not a provider to deploy either: any
// name may log in, with any password.
//
//   node oidc-provider.mjs [PORT]         (0 or nothing: a free port)
//   stdout, first line:  {"issuer":"...","client_id":"...","es256_client_id":"...",
//                         "resource_server":{"client_id":"...","client_secret":"..."},
//                         "web":{"client_id":"...","client_secret":"...","redirect_uri":"..."}}
//   stdin  `token SUB [CLIENT]`  ->  stdout {"id_token":"...","access_token":"..."} or {"error":"..."}
//   stdin  `client-token`        ->  stdout {"access_token":"..."}: the resource server's own
//   stdin  `revoke TOKEN CLIENT` ->  stdout {"revoked":true}
//   stdin  `browse SUB URL`      ->  stdout {"location":"..."}: a browser signs SUB in, from the URL
//                                    until it is sent back to the client `web`
// Answers come one a line, in order. It ends when stdin closes. The provider's own notices go to stderr.

import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { calculateJwkThumbprint, exportJWK, generateKeyPair } from 'jose';

console.info = console.log = console.error; // stdout belongs to the protocol
const { default: Provider } = await import('oidc-provider');

const RS256_CLIENT = 'exchequer-interop';
const ES256_CLIENT = 'exchequer-interop-es256';
// What HTTP Basic would misread unless it is encoded first (RFC 6749 section 2.3.1).
const RESOURCE_SERVER = { client_id: 'resource server:1', client_secret: 'a+b%20c:d&e=f/g' };

// A service that begins sign-ins itself; its redirect URI is never requested from here.
const WEB = {
  client_id: 'exchequer web',
  client_secret: 'f+g%20h:i&j=k/l',
  redirect_uri: 'http://localhost:8080/auth/callback/op',
};

const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
const random = () => randomBytes(32).toString('base64url');

async function newKey(alg) {
  const { privateKey } = await generateKeyPair(alg, { extractable: true });
  const jwk = await exportJWK(privateKey);
  return { ...jwk, alg, use: 'sig', kid: await calculateJwkThumbprint(jwk) };
}

// Listen first: the issuer has to carry the port.
const server = createServer().listen(Number(process.argv[2] ?? 0), '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;
const redirectUri = `${issuer}/callback`; // never requested: the flow below stops at it

const client = (id, alg) => ({
  client_id: id,
  redirect_uris: [redirectUri],
  grant_types: ['authorization_code'],
  response_types: ['code'],
  token_endpoint_auth_method: 'none',
  id_token_signed_response_alg: alg,
});

const provider = new Provider(issuer, {
  clients: [
    client(RS256_CLIENT, 'RS256'),
    client(ES256_CLIENT, 'ES256'),
    {
      client_id: WEB.client_id,
      client_secret: WEB.client_secret,
      redirect_uris: [WEB.redirect_uri],
      response_types: ['code'],
      grant_types: ['authorization_code'],
      token_endpoint_auth_method: 'client_secret_basic',
    },
    {
      ...RESOURCE_SERVER,
      redirect_uris: [],
      response_types: [],
      grant_types: ['client_credentials'],
      token_endpoint_auth_method: 'client_secret_basic',
    },
  ],
  jwks: { keys: [await newKey('RS256'), await newKey('ES256')] },
  cookies: { keys: [random()] },
  claims: { openid: ['sub'], email: ['email', 'email_verified'] },
  conformIdTokenClaims: false, // put `email` into the ID token, as the large providers do
  findAccount: (_ctx, sub) => ({
    accountId: sub,
    claims: () => ({ sub, email: `${sub}@example.com`, email_verified: true }),
  }),
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
  },
  ttl: { AccessToken: 3600, ClientCredentials: 3600, Grant: 3600, IdToken: 3600, Interaction: 600, Session: 3600 },
});
provider.on('server_error', (_ctx, error) => console.error(error));
server.on('request', provider.callback());

async function json(response) {
  const body = await response.json();
  if (!response.ok) throw new Error(`${response.status} ${body.error}: ${body.error_description}`);
  return body;
}

// One sign-in at this client.
async function signIn(sub, clientId) {
  const metadata = await json(await fetch(`${issuer}/.well-known/openid-configuration`));
  const [verifier, state, nonce] = [random(), random(), random()];

  const url = new URL(metadata.authorization_endpoint);
  url.search = new URLSearchParams({
    client_id: clientId,
    redirect_uri: redirectUri,
    response_type: 'code',
    scope: 'openid email',
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
    state,
    nonce,
  });

  const answer = (await browse(sub, url, redirectUri)).searchParams;
  if (answer.has('error')) throw new Error(`${answer.get('error')}: ${answer.get('error_description')}`);
  if (answer.get('state') !== state) throw new Error('the state came back changed');
  return json(await fetch(metadata.token_endpoint, {
    method: 'POST',
    body: new URLSearchParams({
      grant_type: 'authorization_code',
      client_id: clientId,
      code: answer.get('code'),
      redirect_uri: redirectUri,
      code_verifier: verifier,
    }),
  }));
}

// A new browser (an empty cookie jar), from a URL until it is sent to the end.
async function browse(sub, start, end) {
  const cookies = new Map();
  let url = start;
  let form;
  for (let step = 0; !url.href.startsWith(`${end}?`); step += 1) {
    if (step === 20) throw new Error(`the sign-in does not end, last at ${url}`);
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const response = await fetch(url, {
      method: form ? 'POST' : 'GET',
      body: form,
      headers: cookie ? { cookie } : {},
      redirect: 'manual',
    });
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      if (value) cookies.set(name, value);
      else cookies.delete(name);
    }
    const page = await response.text();
    const location = response.headers.get('location');
    form = undefined;
    if (location) {
      url = new URL(location, url);
      continue;
    }
    // A page: the login form or the consent form, else the provider's error page.
    const action = /<form[^>]* action="([^"]+)"/.exec(page)?.[1];
    const prompt = /name="prompt" value="([^"]+)"/.exec(page)?.[1];
    if (!response.ok || !action || !prompt) {
      const reason = page.replace(/<head[\s\S]*?<\/head>|<[^>]*>/g, ' ').replace(/\s+/g, ' ').trim();
      throw new Error(`${response.status} from ${url.pathname}: ${reason.slice(0, 300)}`);
    }
    url = new URL(action, url);
    form = new URLSearchParams(prompt === 'login' ? { prompt, login: sub, password: 'any' } : { prompt });
  }

  return url;
}

// An access token of the resource server itself: there is no user behind it.
async function clientToken() {
  const { client_id: id, client_secret: secret } = RESOURCE_SERVER;
  const basic = Buffer.from(`${encodeURIComponent(id)}:${encodeURIComponent(secret)}`).toString('base64');
  return json(await fetch(`${issuer}/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${basic}` },
    body: new URLSearchParams({ grant_type: 'client_credentials' }),
  }));
}

async function revoke(token, clientId) {
  const response = await fetch(`${issuer}/token/revocation`, {
    method: 'POST',
    body: new URLSearchParams({ token, client_id: clientId }),
  });
  if (!response.ok) throw new Error(`${response.status} from the revocation endpoint`);
}

async function answer(command, first, clientId = RS256_CLIENT) {
  if (command === 'token' && first) {
    const { id_token, access_token } = await signIn(first, clientId);
    return { id_token, access_token };
  }
  if (command === 'client-token') {
    const { access_token } = await clientToken();
    return { access_token };
  }
  if (command === 'revoke' && first) {
    await revoke(first, clientId);
    return { revoked: true };
  }
  if (command === 'browse' && first) {
    return { location: (await browse(first, new URL(clientId), WEB.redirect_uri)).href };
  }
  throw new Error('usage: token SUB [CLIENT] | client-token | revoke TOKEN [CLIENT] | browse SUB URL');
}

print({
  issuer,
  client_id: RS256_CLIENT,
  es256_client_id: ES256_CLIENT,
  resource_server: RESOURCE_SERVER,
  web: WEB,
});

for await (const line of createInterface({ input: process.stdin })) {
  const words = line.trim().split(/\s+/);
  if (!words[0]) continue;
  try {
    print(await answer(...words));
  } catch (error) {
    print({ error: error.message });
  }
}
process.exit(0); // kept-alive connections would hold it open

// Clerk's own SDK and Svix's, against what claims to be Clerk: a question a line, an answer a line.
//
// A question: { "apiUrl", "secretKey", "machineSecretKey"?, "call", "arguments" }. `call` is a method of the
// SDK's client ("sessions.getSession") or one of the doors below. The answer: { "value" } or { "error" }.
import { createClerkClient, verifyToken } from '@clerk/backend';
import { verifyWebhook } from '@clerk/backend/webhooks';
import { createInterface } from 'node:readline';
import { Webhook } from 'svix';

const publishableKey = `pk_test_${Buffer.from('clerk.example.com$').toString('base64')}`;

const doors = {
  verifyToken: ({ apiUrl, secretKey }, token, options) => verifyToken(token, { apiUrl, secretKey, ...options }),
  // What a back end sees of a request that carries the token.
  async authenticateRequest({ client }, token, options) {
    const request = new Request('https://api.example.com/', { headers: { authorization: `Bearer ${token}` } });
    const state = await client.authenticateRequest(request, options);
    const { getToken, has, debug, ...auth } = state.toAuth() ?? {};
    return { authenticated: state.isAuthenticated, reason: state.reason, auth };
  },
  svix: (_, secret, headers, body) => new Webhook(secret).verify(body, headers),
  verifyWebhook(_, signingSecret, headers, body) {
    const request = new Request('https://api.example.com/', { method: 'POST', headers, body });
    return verifyWebhook(request, { signingSecret });
  },
};

async function answer({ call, arguments: given = [], ...options }) {
  const client = createClerkClient({ ...options, publishableKey, telemetry: { disabled: true } });
  const door = doors[call];
  if (door) return door({ client, ...options }, ...given);
  const [resource, method] = call.split('.');
  return client[resource][method](...given);
}

function refusal(error) {
  return {
    name: error.name ?? error.constructor.name,
    message: error.message,
    reason: error.reason,
    status: error.status,
    codes: error.errors?.map(each => each.code),
    parameters: error.errors?.map(each => each.meta?.paramName),
    retryAfter: error.retryAfter,
    traced: Boolean(error.clerkTraceId),
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  const said = await answer(JSON.parse(line)).then(
    value => ({ value: value ?? null }),
    error => ({ error: refusal(error) }),
  );
  // `_raw` is the SDK's copy of what it was sent.
  console.log(JSON.stringify(said, (name, value) => (name === '_raw' ? undefined : value)));
}

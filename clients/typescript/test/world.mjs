// A world for one test: time that passes when the test says so, a service that answers from a script, a
// provider, and an API. Nothing here is real but the client; session.test.mjs and page.test.mjs have the rest.
import { createAppSession } from '../dist/index.js';

const settled = async () => {
  for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
};

/** Time by the test's clock, for `t`: `pass(ms)`, `sleep(ms)` of a device, `set(ms)` of its wall clock. */
export function stopTime(t) {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_763_700_000_000 });
  t.mock.method(Math, 'random', () => 0);
  let monotonic = 5_000;
  t.mock.method(performance, 'now', () => monotonic);
  return {
    async pass(milliseconds) {
      await settled();
      for (let rest = milliseconds; rest > 0; rest -= 50) {
        const step = Math.min(rest, 50);
        monotonic += step;
        t.mock.timers.tick(step);
        await settled();
      }
    },
    /** The wall clock alone goes on, and no timer fires: what a device that sleeps looks like to a page. */
    sleep: (milliseconds) => t.mock.timers.setTime(Date.now() + milliseconds),
    settled,
  };
}

/** An answer of the service: a token of so many seconds. */
export function token(name, seconds = 600, more = {}) {
  return () => Response.json({ access_token: name, token: name, token_type: 'Bearer', expires_in: seconds, user: { id: 'user_1' }, ...more });
}

/** A refusal of the service. */
export function refusal(status, code, { action = 'fix_config', retryable = action === 'retry', after } = {}) {
  const body = { error: 'x', error_description: `It is ${code}.`, code, request_id: 'req_1', retryable, action };
  return () => Response.json(body, { status, headers: after === undefined ? {} : { 'retry-after': `${after}` } });
}

/** No answer: what `fetch` does offline. */
export function offline() {
  throw new TypeError('fetch failed');
}

/** No answer yet: give it with `answer(makeOne)`. */
export function later() {
  let answer;
  const promise = new Promise((resolve) => (answer = (make) => resolve(make())));
  const make = ({ signal }) =>
    new Promise((resolve, reject) => {
      promise.then(resolve);
      signal?.addEventListener('abort', () => reject(signal.reason));
    });
  return Object.assign(make, { answer });
}

/**
 * A session, with what was asked of the service (`asked`: bodies), of the provider (`subjects`: whether by
 * force) and of other servers (`sent`: address and Authorization). `script` answers exchanges in turn, and
 * with its last for ever; `api` answers everything else.
 */
export function session(script, { api = () => new Response('ok'), provider, ...options } = {}) {
  const world = { asked: [], subjects: [], sent: [], errors: [], events: [] };
  const send = async (input, init = {}) => {
    const url = typeof input === 'string' ? input : (input.url ?? String(input));
    if (url.endsWith('/auth/exchange')) {
      world.asked.push(JSON.parse(init.body));
      world.request = { url, ...init };
      return (script.length > 1 ? script.shift() : script[0])(init);
    }
    const headers = new Headers(init.headers ?? input.headers);
    world.sent.push([url, headers.get('authorization')]);
    return api(url, headers, input, init);
  };
  const getSubjectToken = ({ forceRefresh }) => {
    world.subjects.push(forceRefresh);
    return provider ? provider({ forceRefresh }) : `subject_${world.subjects.length}`;
  };
  const made = createAppSession({ url: 'https://auth.example.com', getSubjectToken, fetch: send, ...options });
  made.on('error', (error) => world.errors.push(error.code));
  made.on('session', ({ user }) => world.events.push(user.id));
  made.on('clear', () => world.events.push('clear'));
  return Object.assign(world, made);
}

// A session of an app: holds one app token in memory, and sees that it is good whenever it is asked for.
import { ExchangeError } from "./error.js";
import { exchange, now, since } from "./exchange.js";
import type { Answer, AppUser } from "./exchange.js";
import { address, copy, given, headersOf, repeatable } from "./request.js";

export type { AppUser } from "./exchange.js";

/** What proves the user: the provider's token, a session's id where the app takes those, or nothing. */
export type Subject = string | { sessionId: string; codeVerifier?: string | undefined } | null | undefined;

/** What `createAppSession` is told. */
export interface AppSessionOptions {
  /** Where Exchequer is reached: its EXCHEQUER_ISSUER. */
  url: string;
  /** The app, where the service has several that would fit. */
  app?: string | undefined;
  /** Whom the token is for, where the app has several audiences. */
  audience?: string | undefined;
  /** Scopes, with spaces between them, where less than all is wanted. */
  scope?: string | undefined;
  /** Asks the provider's SDK; with `forceRefresh` past its cache. Nothing means that nobody is signed in. */
  getSubjectToken: (options: { forceRefresh: boolean }) => Subject | Promise<Subject>;
  /** The origins that `fetch` sends the token to; the origin of `audience` unless set. */
  origins?: readonly string[] | undefined;
  /** Milliseconds that an attempt may take; 10,000 unless set. */
  timeout?: number | undefined;
  /** What to send with, in the place of the platform's `fetch`. */
  fetch?: typeof fetch | undefined;
}

/** How long the caller waits; others who wait for the same are not disturbed. */
export interface Waiting {
  signal?: AbortSignal | null | undefined;
}

/** What is known of a token beside itself. */
export interface Exchanged {
  user: AppUser;
  /** What was granted, where the app has scopes. */
  scope: string | undefined;
}

/** What can be listened to. */
export interface AppSessionEvents {
  /** A new token is there. */
  session: Exchanged;
  /** An exchange failed for good or for now. */
  error: ExchangeError;
  /** The session was cleared. */
  clear: undefined;
}

/** See the README. Its functions need no `this`. */
export interface AppSession {
  /** A good app token: the one that is here, or a new one. Rejects with an `ExchangeError`. */
  getToken: (options?: Waiting) => Promise<string>;
  /** The same, for who wants to know about the user. */
  ensure: (options?: Waiting) => Promise<Exchanged>;
  /** `fetch` with the token, to the allowed origins; after a 401 once more with a new one. */
  fetch: typeof fetch;
  /** Listens; the answer ends that. */
  on: <E extends keyof AppSessionEvents>(event: E, listener: (value: AppSessionEvents[E]) => void) => () => void;
  /** Forgets everything, at once: whoever waits gets `signed_out`. To be called when the user changes. */
  clear: () => void;
}

/** The token that is here. */
interface Held extends Answer {
  /** Whether an API had refused the one before. */
  forced: boolean;
}

/** Attempts of one renewal, beside that with a fresh credential. */
const ATTEMPTS = 4;
/** Seconds that a renewal waits between two attempts at the most; when told to wait longer it fails. */
const LONGEST_WAIT = 5;
/** Seconds that `Retry-After` can keep us from asking. */
const LONGEST_REST = 300;
/** Seconds between two renewals that an API asked for by a 401. */
const PATIENCE = 10;

const signedOut = () => new ExchangeError("signed_out", "Nobody is signed in.", { action: "sign_in" });
const ignore = () => {};

/** The origin that an address begins with, where all readers of URLs agree on it. */
const originOf = (url = "") => /^https?:\/\/[^/?#\\\s@]+(?=[/?#]|$)/.exec(url)?.[0].toLowerCase();

/** Makes a session. Nothing is asked before a token is. */
export function createAppSession(options: AppSessionOptions): AppSession {
  const { getSubjectToken, app, audience, scope, timeout = 10_000 } = options;
  const url = `${options.url.replace(/\/+$/, "")}/auth/exchange`;
  const send: typeof fetch = options.fetch ?? ((...all) => fetch(...all));
  const origins = (options.origins ?? [audience]).map(originOf).filter(Boolean);
  if (options.origins && origins.length < options.origins.length) {
    throw new TypeError("`origins` must be origins, such as https://api.example.com");
  }
  const listeners: { [event: string]: Set<(value: any) => void> } = {};

  let held: Held | undefined;
  let flight: Promise<Held> | undefined;
  let stop = ignore;
  let failure: { error: ExchangeError; body: string; at: ReturnType<typeof now>; rest: number } | undefined;
  let failures = 0;
  let generation = 0; // of the user; what belongs to an older one is dropped

  const emit = (event: keyof AppSessionEvents, value?: unknown) =>
    // A listener that throws breaks nothing but itself.
    listeners[event]?.forEach((listener) => void Promise.resolve(value).then(listener));

  const left = () => (held ? held.ttl - since(held.at) : 0);

  /** When to renew: 60 s or a tenth before the end; half of a life where that is short. */
  const margin = () => (held ? Math.min(Math.max(60, held.ttl / 10), held.ttl / 2) : 0);

  const resting = () => failure && since(failure.at) < failure.rest;

  async function credential(forceRefresh: boolean): Promise<string> {
    let subject: Subject;
    try {
      subject = await getSubjectToken({ forceRefresh });
    } catch (cause) {
      throw new ExchangeError("subject_token_unavailable", "The identity provider gave no token.", { retryable: true, cause });
    }
    if (!subject) throw signedOut();
    const proof =
      typeof subject === "string"
        ? { subject_token: subject }
        : { session_id: subject.sessionId, code_verifier: subject.codeVerifier };
    return JSON.stringify({ ...proof, app, audience, scope });
  }

  /** Up to four attempts, and one with a fresh credential where the service asks for that. */
  async function renew(mine: number): Promise<Answer> {
    // The same credential gets the same answer: after a refusal only another one is sent.
    let refused = resting() ? failure : undefined;
    let refresh = false;
    let refreshed = false;
    for (let tries = 1; ; ) {
      let body = "";
      try {
        return await within(async (signal) => {
          body = await credential(refresh);
          if (mine !== generation) throw signedOut();
          if (body === refused?.body) throw refused.error;
          return exchange(send, url, body, signal);
        });
      } catch (error) {
        if (mine !== generation || !(error instanceof ExchangeError) || error === failure?.error) throw error;
        refresh = false;
        if (error.action === "refresh_subject_token" && !refreshed) {
          refreshed = refresh = true;
          refused = { error, body, at: now(), rest: 0 };
          continue;
        }
        const wait = error.retryAfter ?? 0;
        if (error.retryable && tries < ATTEMPTS && wait <= LONGEST_WAIT) {
          await pause(wait * 1000 + 100 * 2 ** tries++ * (1 + Math.random()));
          if (mine !== generation) throw error;
          continue;
        }
        if (error.code !== "signed_out") {
          const rest = Math.max(Math.min(wait, LONGEST_REST), 2 ** Math.min(failures++, 4));
          failure = { error, body, at: now(), rest };
          emit("error", error);
        }
        throw error;
      }
    }
  }

  /** An attempt, bounded in time; `clear` ends it. */
  function within<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const controller = new AbortController();
    return new Promise<T>((resolve, reject) => {
      stop = () => {
        reject(new ExchangeError("timeout", "The exchange took too long.", { retryable: true }));
        controller.abort();
      };
      const timer = setTimeout(stop, timeout);
      work(controller.signal)
        .then(resolve, reject)
        .finally(() => clearTimeout(timer));
    });
  }

  /** A wait; `clear` ends it. */
  function pause(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      setTimeout((stop = resolve), milliseconds);
    });
  }

  /** The one renewal that is under way, or a new one. */
  function renewal(forced = false): Promise<Held> {
    if (flight) return flight;
    // Another credential may mend what is wrong with one, and nothing else.
    if (failure && resting() && !/sign_in|refresh/.test(failure.error.action)) return Promise.reject(failure.error);
    const mine = generation;
    flight = renew(mine).then(
      (answer) => {
        if (mine !== generation) throw signedOut();
        held = { ...answer, forced };
        failure = flight = undefined;
        failures = 0;
        emit("session", { user: held.user, scope: held.scope });
        return held;
      },
      (error) => {
        if (mine !== generation) throw signedOut();
        flight = undefined;
        throw error;
      },
    );
    return flight;
  }

  /** The token to use now. */
  async function current(signal?: AbortSignal | null): Promise<Held> {
    const mine = generation;
    if (held && left() > margin()) return held;
    const coming = renewal();
    if (held && left() > margin() / 6) {
      // Good for a while: nobody waits, and a failure changes nothing.
      coming.catch(ignore);
      return held;
    }
    try {
      return await unlessAborted(coming, signal);
    } catch (error) {
      if (mine === generation && held && left() > 0 && !signal?.aborted) return held;
      throw error;
    }
  }

  const appFetch: typeof fetch = async (input, init) => {
    if (!origins.length) {
      throw new ExchangeError("origins_missing", "Say with `origins` which origins the token is for.", { action: "fix_request" });
    }
    if (!origins.includes(originOf(address(input)))) return send(input, init);
    const mine = generation;
    const signal = init?.signal ?? given(input)?.signal;
    const sendWith = ({ type, token }: Held) => {
      const headers = headersOf(input, init);
      headers.set("authorization", `${type} ${token}`);
      return send(copy(input), { ...init, headers });
    };
    const used = await current(signal);
    const response = await sendWith(used);
    if (response.status !== 401 || !repeatable(init)) return response;
    try {
      // Another request may have got a new one already; and one that does not help is not asked for again and again.
      if (held === used) {
        if (used.forced && since(used.at) < PATIENCE) return response;
        await unlessAborted(renewal(true), signal);
      }
    } catch (error) {
      if (signal?.aborted) throw error;
      return response;
    }
    // Never with the token of another user.
    if (mine !== generation || !held || held === used) return response;
    response.body?.cancel().catch(ignore);
    return sendWith(held);
  };

  return {
    getToken: async (waiting) => (await current(waiting?.signal)).token,
    ensure: async (waiting) => {
      const { user, scope: granted } = await current(waiting?.signal);
      return { user, scope: granted };
    },
    fetch: appFetch,
    on(event, listener) {
      const all = (listeners[event] ??= new Set());
      all.add(listener);
      return () => void all.delete(listener);
    },
    clear() {
      generation++;
      held = failure = flight = undefined;
      failures = 0;
      stop();
      emit("clear");
    },
  };
}

/** Waits for it until the signal aborts; what is waited for goes on. */
function unlessAborted<T>(promise: Promise<T>, signal?: AbortSignal | null): Promise<T> {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason ?? Object.assign(new Error("Aborted"), { name: "AbortError" }));
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort);
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

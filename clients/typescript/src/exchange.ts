// One exchange: a credential goes to the service, and an app token or an ExchangeError comes back.
import { ExchangeError } from "./error.js";

/** A moment, by two clocks. */
type Moment = readonly [monotonic: number, wall: number];

/** This moment. */
export const now = (): Moment => [performance.now(), Date.now()];

/**
 * Seconds since then, of this device's own clocks. The wall clock may be set back, and the monotonic one may
 * stand still while a device sleeps: whichever saw more time is believed.
 */
export const since = ([monotonic, wall]: Moment): number =>
  Math.max(performance.now() - monotonic, Date.now() - wall) / 1000;

/** Who the token is for, as the service names them. */
export interface AppUser {
  id: string;
  org_id?: string;
  roles?: string[];
  /** True at the first sight of the user, where the app has a profile. */
  is_new?: boolean;
}

/** What came of an exchange. */
export interface Answer {
  token: string;
  /** The scheme of the Authorization header. */
  type: string;
  /** Seconds from `at` to its end. */
  ttl: number;
  /** When it was asked for: its life began later, so it ends no earlier than we believe. */
  at: Moment;
  user: AppUser;
  scope: string | undefined;
}

/** Sends the body; rejects with an `ExchangeError`. */
export async function exchange(
  send: typeof fetch,
  url: string,
  body: string,
  signal: AbortSignal,
): Promise<Answer> {
  const at = now();
  let response: Response;
  let text: string;
  try {
    response = await send(url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
      signal,
      cache: "no-store",
      credentials: "omit",
      // Whoever redirects would get the credential.
      redirect: "error",
    });
    text = await response.text();
  } catch (cause) {
    throw new ExchangeError("network_error", "The exchange cannot be reached.", { retryable: true, cause });
  }
  const { status, headers } = response;
  const answer = parse(text);
  const { access_token: token, expires_in: ttl, token_type: type = "Bearer", user, scope } = answer;
  if (response.ok && token && ttl > 0 && user) {
    return { token, type, ttl, at, user, scope };
  }
  const seconds = headers.get("retry-after") ?? "";
  const details = {
    status,
    requestId: answer.request_id ?? headers.get("x-request-id") ?? undefined,
    retryAfter: /^\d+$/.test(seconds) ? +seconds : undefined,
  };
  if (response.ok || !answer.code) {
    const retryable = status > 499 || status === 429;
    throw new ExchangeError("answer_invalid", `The answer (${status}) is not one of Exchequer's.`, { ...details, retryable });
  }
  const { code, error_description: message, retryable, action } = answer;
  throw new ExchangeError(code, message, { ...details, retryable, action, docs: `docs/errors.md#${code}` });
}

function parse(text: string): any {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

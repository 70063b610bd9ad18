// Why there is no app token: one error type for what the service answered and for what never reached it.
import type { ServiceCode } from "./codes.js";

/** What to do about an error; the service's own words. */
export type Action = "retry" | "refresh_subject_token" | "sign_in" | "fix_request" | "fix_config";

/** What this client says itself. */
export type ClientCode =
  /** `getSubjectToken` gave nothing, or the session was cleared meanwhile. */
  | "signed_out"
  /** `getSubjectToken` failed; `cause` says how. */
  | "subject_token_unavailable"
  /** No answer: offline, refused, or a browser that may not read it (CORS). */
  | "network_error"
  /** No answer in time. */
  | "timeout"
  /** The answer is not one of Exchequer's: a proxy's, perhaps, or a wrong `url`. */
  | "answer_invalid"
  /** `fetch` was called, and nobody said which origins the token is for. */
  | "origins_missing";

/** Every code of today. A newer service may have more. */
export type ExchangeErrorCode = ServiceCode | ClientCode;

/** What is known of an error beside its code and its sentence. */
export interface ErrorDetails {
  status?: number;
  retryable?: boolean;
  action?: Action;
  requestId?: string | undefined;
  retryAfter?: number | undefined;
  docs?: string;
  cause?: unknown;
}

/** Why there is no app token. Holds no token. */
export class ExchangeError extends Error {
  /** One code, one cause; stable. */
  readonly code: ExchangeErrorCode | (string & {});
  /** The HTTP status; 0 where there was no answer. */
  readonly status: number;
  /** Whether the same may succeed later. */
  readonly retryable: boolean;
  /** What to do about it. */
  readonly action: Action;
  /** The service's id of the request: its log has the rest of the story under it. */
  readonly requestId: string | undefined;
  /** Seconds that the service asked to wait. */
  readonly retryAfter: number | undefined;
  /** Where the code is explained: a page of Exchequer's repository. */
  readonly docs: string;
  /** The error below, where there is one. */
  readonly cause?: unknown;

  constructor(code: ExchangeErrorCode | (string & {}), message: string, details: ErrorDetails = {}) {
    super(message);
    this.name = "ExchangeError";
    this.code = code;
    this.status = details.status ?? 0;
    this.retryable = details.retryable ?? false;
    this.action = details.action ?? (this.retryable ? "retry" : "fix_config");
    this.requestId = details.requestId;
    this.retryAfter = details.retryAfter;
    this.docs = details.docs ?? "clients/typescript/README.md#errors";
    if (details.cause !== undefined) this.cause = details.cause;
  }
}

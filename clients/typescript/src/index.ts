// The client: createAppSession, its types, and its errors.
export { createAppSession } from "./session.js";
export type { AppSession, AppSessionEvents, AppSessionOptions, AppUser, Exchanged, Subject, Waiting } from "./session.js";
export { ExchangeError } from "./error.js";
export type { Action, ClientCode, ErrorDetails, ExchangeErrorCode } from "./error.js";
export type { ServiceCode } from "./codes.js";

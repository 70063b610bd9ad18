// The way to the service. Where the console asks for a token, it is kept here, in memory alone.

const PATIENCE = 10_000; // milliseconds for an answer

let token = null;

export const useToken = (text) => (token = text);
export const forgetToken = () => (token = null);
export const hasToken = () => token !== null;

/** Asks the service, with the token where there is one. */
export function ask(path, init = {}) {
  const headers = { ...init.headers, ...(token && { authorization: `Bearer ${token}` }) };
  const signal = AbortSignal.timeout(PATIENCE);
  return fetch(path, { ...init, headers, cache: 'no-store', credentials: 'omit', redirect: 'error', signal });
}

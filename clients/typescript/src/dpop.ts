// DPoP (RFC 9449): a fetch that proves a key with each request, so that a token is of no use to others.
//
// Hand it to `createAppSession` as `fetch`. It needs Web Crypto.
import { address, copy, given, headersOf, repeatable } from "./request.js";

const text = new TextEncoder();

function base64url(bytes: ArrayBuffer | Uint8Array): string {
  const characters = Array.from(new Uint8Array(bytes), (byte) => String.fromCharCode(byte));
  return btoa(characters.join("")).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

const encoded = (value: unknown) => base64url(text.encode(JSON.stringify(value)));

/**
 * Makes a `fetch` with a new key, which lives as long as the function and cannot be exported. It proves the
 * key to the exchange, and wherever a request is authorized with a token bound to it; other requests pass
 * as they are.
 */
export function createDpopFetch(options: { fetch?: typeof fetch | undefined } = {}): typeof fetch {
  const send: typeof fetch = options.fetch ?? ((...all) => fetch(...all));
  const nonces = new Map<string, string>(); // by origin: each server has its own (§8.2)
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  let pair: Promise<CryptoKeyPair> | undefined;

  async function proof(htm: string, htu: string, token: string | undefined, nonce: string | undefined): Promise<string> {
    const { privateKey, publicKey } = await (pair ??= crypto.subtle.generateKey(algorithm, false, ["sign"]));
    const { kty, crv, x, y } = await crypto.subtle.exportKey("jwk", publicKey);
    const ath = token && base64url(await crypto.subtle.digest("SHA-256", text.encode(token)));
    const iat = Math.floor(Date.now() / 1000);
    const header = { typ: "dpop+jwt", alg: "ES256", jwk: { kty, crv, x, y } };
    const message = `${encoded(header)}.${encoded({ htm, htu, ath, nonce, iat, jti: crypto.randomUUID() })}`;
    return `${message}.${base64url(await crypto.subtle.sign(algorithm, privateKey, text.encode(message)))}`;
  }

  return async (input, init) => {
    const headers = headersOf(input, init);
    const token = /^DPoP (.+)$/.exec(headers.get("authorization") ?? "")?.[1];
    const [htu = ""] = address(input).split(/[?#]/);
    if (!token && !htu.endsWith("/auth/exchange")) return send(input, init);
    const htm = (init?.method ?? given(input)?.method ?? "GET").toUpperCase();
    const origin = htu.split("/", 3).join("/");
    for (let last = !repeatable(init); ; last = true) {
      const nonce = nonces.get(origin);
      headers.set("dpop", await proof(htm, htu, token, nonce));
      const response = await send(copy(input), { ...init, headers });
      const next = response.headers.get("dpop-nonce");
      if (next) nonces.set(origin, next);
      if (last || !next || next === nonce || !(await wantsNonce(response))) return response;
    }
  };
}

/** Whether it was refused for want of this server's nonce: by a resource (§9), or where tokens are given (§8). */
async function wantsNonce(response: Response): Promise<boolean> {
  if (response.status === 401) return (response.headers.get("www-authenticate") ?? "").includes("use_dpop_nonce");
  return response.status === 400 && (await response.clone().text()).includes('"use_dpop_nonce"');
}

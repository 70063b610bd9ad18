// A program with the types of the OpenAPI document; `types_for_typescript_compile` in
// tests/suite/openapi.rs generates them and compiles it. Each @ts-expect-error must be an error.

import type { components, operations, webhooks } from "./exchequer.js";

type Exchange = operations["exchange"];
type Body = NonNullable<Exchange["requestBody"]>["content"]["application/json"];
type Answer = Exchange["responses"][200]["content"]["application/json"];
type Refusal = Exchange["responses"][401]["content"]["application/json"];

export async function exchange(url: string, body: Body): Promise<Answer | Refusal> {
  const answer = await fetch(`${url}/auth/exchange`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return answer.json();
}

export async function signedIn(url: string, token: string | null): Promise<string> {
  const answer = await exchange(url, { session_token: token, scope: "read:tasks" });
  if ("token" in answer) return `${answer.user.id} ${answer.expires_in}`;
  switch (answer.code) {
    case "subject_token_expired":
    case "session_revoked":
      return answer.action;
    // @ts-expect-error no 401 of the exchange
    case "rate_limited":
    default:
      return answer.error_description;
  }
}

// @ts-expect-error no such type of token
export const wrong: Body = { subject_token: "…", subject_token_type: "jwt" };

export function grants(code: string): components["schemas"]["TokenRequest"][] {
  return [
    { grant_type: "client_credentials", client_id: "reports", client_secret: "…", audience: ["https://a", "https://b"] },
    { grant_type: "authorization_code", client_id: "web", code, redirect_uri: "https://app.example.com", code_verifier: "…" },
    // @ts-expect-error no refresh token
    { grant_type: "refresh_token", client_id: "web" },
  ];
}

export function organization(claims: components["schemas"]["AppTokenClaims"]): string | undefined {
  return claims.org_id;
}

export type Event = webhooks["user.first_seen"]["post"]["requestBody"]["content"]["application/json"];

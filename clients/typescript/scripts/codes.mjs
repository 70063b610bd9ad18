// Prints src/codes.ts: the codes of the catalogue that an exchange can answer. Reads docs/errors.md, which
// `exchequer errors --markdown` prints.
import { readFileSync } from 'node:fs';

/** Those that other endpoints and commands answer with: the rest of the catalogue is an exchange's. */
const ELSEWHERE = [
  'webhook_', 'client_', 'refresh_token_', 'sign_in_', 'provider_client_', 'provider_code_', 'provider_refused',
  'provider_answer_', 'id_token_', 'authorization_code_', 'code_verifier_wrong', 'redirect_uri_', 'response_type_', 'pkce_',
  'grant_type_', 'requested_token_type_', 'resource_', 'exchange_not_allowed', 'subject_token_not_for_client',
  'subject_token_is_service_token', 'actor_', 'delegation_', 'scope_exceeds_token', 'scope_not_allowed', 'assertion_',
  'token_', 'introspection_', 'admin_', 'bearer_', 'app_token_', 'service_token_', 'session_cookie_', 'pass_through_',
  'insufficient_scope', 'original_request_', 'dpop_proof_token_', 'dpop_key_', 'dpop_proofs_', 'console_',
];

const page = readFileSync(process.argv[2] ?? new URL('../../../docs/errors.md', import.meta.url), 'utf8');
const codes = [...page.matchAll(/^\| \[`(\w+)`\]\(\S+\) \| \d+ \|/gm)]
  .filter(([, code]) => !ELSEWHERE.some((start) => code.startsWith(start)))
  .map(([, code]) => `  | "${code}"`);

console.log(`// Printed by scripts/codes.mjs from docs/errors.md; \`npm run codes\` prints it anew.

/** Each code that the service can answer an exchange with: docs/errors.md has its cause and its mending. */
export type ServiceCode =
${codes.join('\n')};`);

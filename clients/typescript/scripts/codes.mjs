// Prints src/codes.ts: the codes that an exchange can answer, as the service's OpenAPI document has them.
import { readFileSync } from 'node:fs';

const document = JSON.parse(readFileSync(new URL('../../../src/http/openapi.json', import.meta.url), 'utf8'));

/** What a reference leads to. */
function resolved(part) {
  if (!part.$ref) return part;
  return resolved(part.$ref.slice(2).split('/').reduce((inner, name) => inner[name], document));
}

/** The values that a schema allows. */
function values(schema) {
  const { enum: listed, const: only, anyOf = [] } = resolved(schema);
  return [...(listed ?? []), ...(only ? [only] : []), ...anyOf.flatMap(values)];
}

/** What a refusal's schema says of its `code`. */
function codesOf(schema) {
  const { allOf = [], properties } = resolved(schema);
  return [...(properties?.code ? values(properties.code) : []), ...allOf.flatMap(codesOf)];
}

const refusals = Object.entries(document.paths['/auth/exchange'].post.responses).filter(([status]) => status >= '400');
const schemas = refusals.map(([, response]) => resolved(response).content['application/json'].schema);
// Who has the address wrong is refused too.
const codes = new Set([...schemas.flatMap(codesOf), 'not_found', 'method_not_allowed']);

console.log(`// Printed by scripts/codes.mjs from src/http/openapi.json; \`npm run codes\` prints it anew.

/** Each code that the service can answer an exchange with: docs/errors.md has its cause and its mending. */
export type ServiceCode =
${[...codes].sort().map((code) => `  | "${code}"`).join('\n')};`);

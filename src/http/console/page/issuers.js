// The issuers and how their key sets stand.
import { code, el, find, span, table } from './dom.js';

const KINDS = { clerk: 'Clerk', oidc: 'OpenID Connect', introspection: 'introspection', sign_in: 'sign-in', client: 'client' };

function age({ configured, age }) {
  if (configured) return 'configured';
  return age === null ? 'never fetched' : `${span(age)} ago`;
}

function trouble({ failed, failures }) {
  if (failed === null) return 'none';
  const state = failures > 0
    ? el('strong', { class: 'error' }, `failing, ${failures}× in a row`)
    : 'well again';
  return [state, ' · ', code(failed.code), el('small', {}, `${failed.cause}, ${span(failed.age)} ago`)];
}

export function showIssuers(issuers) {
  const rows = issuers.map((issuer) => {
    const name = [issuer.name, issuer.issuer && el('small', {}, issuer.issuer)];
    const apps = (issuer.apps ?? []).join(', ') || '–';
    const kind = KINDS[issuer.kind] ?? issuer.kind;
    const keys = issuer.key_set;
    return keys === null
      ? [name, kind, apps, '–', 'has none: it is asked', '–']
      : [name, kind, apps, String(keys.keys), age(keys), trouble(keys)];
  });
  const columns = [['Issuer'], ['Kind', 'word'], ['Apps'], ['Keys', 'number'], ['Key set', 'word'], ['Last error']];
  find('issuers-body').replaceChildren(rows.length
    ? table('Issuers and their key sets', columns, rows)
    : el('p', { class: 'muted' }, 'No issuer is configured: every exchange is refused. `exchequer check` says what to set.'));
}

// Refusals: how often each code, and the last ones with their ladders. What is open stays open when more come.
import { clockSeconds, code, el, facts, find, ladder, number, stamp, table } from './dom.js';

const MOST = 200;
const PAGE = 12;

let list = []; // newest first: { refused, item }
let newest = 0;
let shown = PAGE;
let checks = null;
let codesDrawn = '';

/** The number of the newest refusal that is known. */
export const newestRefusal = () => newest;

export function forgetRefusals() {
  list = [];
  newest = 0;
  shown = PAGE;
}

/** Shows them; gives how many are new since the last time. */
export function showRefusals({ count, list: more }, codes, known, now) {
  checks = known;
  const first = newest === 0;
  for (const refused of more) {
    list.unshift({ refused, item: null });
    newest = Math.max(newest, refused.number);
  }
  list = list.slice(0, MOST);
  find('refusals-count').textContent = `${number(count)} since the start${count > MOST ? `, the last ${MOST} of them below` : ''}`;
  byCode(codes);
  offer();
  render();
  return first ? 0 : more.length;
}

function byCode(codes) {
  const sign = JSON.stringify(codes);
  if (sign === codesDrawn) return;
  codesDrawn = sign;
  const box = find('codes');
  const focused = box.contains(document.activeElement) ? document.activeElement.getAttribute('href') : null;
  const rows = codes.map((each) => [code(each.code), String(each.status), number(each.recent), number(each.total)]);
  const columns = [['Code'], ['Status', 'number'], ['3 h', 'number'], ['Start', 'number']];
  box.replaceChildren(rows.length
    ? table('Refusals by code, in the last three hours and since the start', columns, rows)
    : el('p', { class: 'muted' }, 'Nobody was refused yet.'));
  if (focused) box.querySelector(`a[href="${focused}"]`)?.focus({ preventScroll: true });
}

function offer() {
  const only = find('only');
  const names = ['', ...new Set(list.map(({ refused }) => refused.code))].sort();
  if (names.join() === [...only.options].map(({ value }) => value).join()) return;
  const chosen = only.value;
  only.replaceChildren(...names.map((name) => el('option', { value: name, selected: name === chosen }, name || 'all')));
}

function render() {
  const only = find('only').value;
  const fitting = list.filter(({ refused }) => only === '' || refused.code === only);
  const visible = fitting.slice(0, shown);
  for (const each of visible) each.item ??= item(each.refused);
  const wanted = visible.map(({ item }) => item);
  const box = find('recent');
  const kept = new Set(wanted);
  for (const child of [...box.children]) if (!kept.has(child)) child.remove();
  wanted.forEach((node, place) => {
    if (box.children[place] !== node) box.insertBefore(node, box.children[place] ?? null);
  });
  find('more').hidden = fitting.length <= shown;
  const none = find('recent-none');
  none.hidden = fitting.length > 0;
  none.textContent = 'None to show.';
}

function item(refused) {
  const body = el('div', {});
  const details = el('details', {},
    el('summary', {},
      el('time', { datetime: new Date(refused.at * 1000).toISOString(), title: stamp(refused.at) }, clockSeconds(refused.at)),
      el('span', { class: 'muted' }, refused.route),
      el('code', {}, refused.code),
      el('span', { class: 'muted' }, refused.check ? `at ${refused.check.replaceAll('_', ' ')}` : String(refused.status))),
    body);
  // Most are never opened: what is in them is made when they are.
  details.addEventListener('toggle', () => {
    if (details.open && body.childElementCount === 0) body.append(...inside(refused));
  });
  return el('li', {}, details);
}

function inside(refused) {
  const subject = refused.subject && el('span', {}, el('code', {}, refused.subject), ' (pseudonym)');
  return [
    facts([
      ['Code', code(refused.code)],
      ['Status', String(refused.status)],
      ['Time', stamp(refused.at)],
      ['Request', el('code', {}, refused.request_id)],
      ['App', refused.app],
      [refused.verified ? 'Issuer' : 'Claimed issuer', refused.issuer],
      ['Subject', subject],
      ['Session', refused.session && el('code', {}, refused.session)],
      ['Behind it', refused.cause],
    ]),
    refused.check
      ? ladder(rungs(refused), 'Checks')
      : el('p', { class: 'muted' }, 'It was refused beside the ladder: no check of a token failed.'),
  ];
}

/** Up to the check that failed all passed, and none above it was reached. */
function rungs({ code, check, seen, expected }) {
  const own = /^(app_token|service_token)_/.test(code) && checks.own.includes(check);
  const order = own ? checks.own : checks.exchange;
  const height = order.indexOf(check);
  return order.map((each, place) => ({
    check: each,
    outcome: place < height ? 'passed' : place === height ? 'failed' : 'not_reached',
    ...(place === height && { seen, expected }),
  }));
}

find('only').addEventListener('change', () => {
  shown = PAGE;
  render();
});
find('more').addEventListener('click', () => {
  const first = find('recent').children.length;
  shown += PAGE * 4;
  render();
  find('recent').children[first]?.querySelector('summary').focus();
});

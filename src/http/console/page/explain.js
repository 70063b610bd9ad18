// The box that explains. What is pasted goes to this service in a request's body and is shown nowhere again;
// box and answer are emptied when the page is left.
import { code, el, facts, find, ladder, number, prose } from './dom.js';
import { ask } from './service.js';

const box = find('explain-text');
const result = find('explained');
let latest = 0;

function clear() {
  latest += 1;
  for (const id of ['explain-text', 'explain-app', 'explain-audience']) find(id).value = '';
  result.replaceChildren();
}

function show(how, title, ...parts) {
  const heading = el('h3', { class: 'verdict', 'data-how': how, tabindex: -1 }, title);
  result.replaceChildren(heading, ...parts.flat().filter(Boolean));
  heading.focus({ preventScroll: true });
  heading.scrollIntoView({ block: 'nearest' });
}

const notes = (texts) => texts.length > 0 && el('ul', { class: 'notes', 'aria-label': 'Notes' }, texts.map((text) => el('li', {}, prose(text))));

function told(report) {
  const refusedAs = report.code && ['Refused as ', code(report.code)];
  if (report.kind === 'answer') {
    return show('wait', 'A copied error answer', el('p', {}, prose(report.description)),
      facts([['Code', report.code && code(report.code)], ['Cause', report.cause && prose(report.cause)], ['Mend', report.mend && prose(report.mend)]]));
  }
  if (report.kind === 'secret') return show('no', 'A secret, and no token', el('p', {}, prose(report.description)));
  if (report.kind === 'assertion') {
    const rungs = report.checks.map(({ check, outcome, seen }) => ({ check, outcome, seen }));
    return show(report.accepted ? 'yes' : 'no', report.accepted ? 'The client would be authenticated' : refusedAs,
      el('p', { class: 'muted' }, 'A client assertion: a JWT with which a client authenticates, not a user’s token.'),
      ladder(rungs, 'Checks'), notes(report.notes));
  }
  const title = report.unasked ? `Not asked: ${report.unasked}` : report.accepted ? `Accepted: ${report.accepted_means}` : refusedAs;
  return show(report.unasked ? 'wait' : report.accepted ? 'yes' : 'no', title,
    !report.accepted && report.description && el('p', {}, prose(report.description)),
    facts([
      ['It is', `a ${report.what} of ${number(report.bytes)} bytes (${report.trust})`],
      ['SHA-256', el('code', {}, report.token_sha256)],
      ['Behind it', report.cause],
    ]),
    ladder(report.ladder, 'Checks'), notes(report.notes));
}

async function explain() {
  latest += 1;
  const mine = latest;
  const [app, audience] = ['explain-app', 'explain-audience'].map((id) => find(id).value.trim() || undefined);
  const body = JSON.stringify({ text: box.value, app, audience });
  const button = find('explain-form').querySelector('button.main');
  button.disabled = true;
  try {
    const answer = await ask('/console/explain', { method: 'POST', headers: { 'content-type': 'application/json' }, body });
    const report = await answer.json();
    if (mine !== latest) return;
    if (answer.ok) told(report);
    else show('no', 'It could not be explained', el('p', {}, prose(report.error_description)));
  } catch {
    if (mine === latest) show('no', 'It could not be explained', el('p', {}, 'The service did not answer. Try again.'));
  } finally {
    button.disabled = false;
  }
}

export function startExplaining() {
  find('explain-form').addEventListener('submit', (event) => {
    event.preventDefault();
    explain();
  });
  box.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) find('explain-form').requestSubmit();
  });
  find('explain-clear').addEventListener('click', () => {
    clear();
    box.focus();
  });
  window.addEventListener('pagehide', clear);
}

// The box that explains. What is pasted goes to this service in a request's body and is shown nowhere again;
// box and answer are emptied when the page is left.
import { code, el, facts, find, ladder, prose } from './dom.js';
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

const list = (title, items, name = 'ul') => items.length > 0 && [
  el('h4', {}, title),
  el(name, { class: 'notes', 'aria-label': title }, items.map((item) => el('li', {}, item))),
];

const sentence = (text) => text[0].toUpperCase() + text.slice(1);

/** What it comes to, in a line: about a token the outcome, of all else what it is. */
function outcome({ accepted, code: slug, title, token, verdict }) {
  if (verdict) return [accepted ? 'yes' : 'wait', accepted ? `Accepted: ${verdict}` : sentence(verdict)];
  if (token && slug) return ['no', 'Refused as ', code(slug)];
  return ['wait', title[0]];
}

/** What `exchequer explain --json` says, in the order in which somebody looks for a cause. */
function told(report) {
  const [how, ...title] = outcome(report);
  const { token, code: slug, known_issues: issues, cause_tests: tests } = report;
  const link = (issue) => el('a', { href: issue.link, target: '_blank', rel: 'noreferrer noopener' }, 'thread');
  show(how, title,
    (token ? report.title : report.title.slice(1)).map((line) => el('p', { class: 'muted wrap' }, line)),
    report.description && el('p', {}, prose(report.description)),
    facts([
      ['Meaning', !token && slug ? code(slug) : null],
      ['Behind it', report.because],
      ['Cause', report.cause && prose(report.cause)],
      ['Confirm', report.confirm && prose(report.confirm)],
      ['SHA-256', token?.sha256 && el('code', {}, token.sha256)],
    ]),
    list('What to do', report.next.map(prose), 'ol'),
    list('What was tried', tests.map(({ found, means }) => `${found}: ${means}`)),
    report.ladder.length > 0 && [el('h4', {}, 'Checks'), ladder(report.ladder, 'Checks')],
    list('Of the checks not reached', report.unreached),
    list('Known issues', issues.map((issue) => [`${issue.library}: `, ...prose(issue.what), ' ', link(issue)])),
    list('Notes', report.notes.map(prose)));
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

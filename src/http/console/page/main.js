// The page's own life: it asks the service every few seconds, shows what it says, says when there is no
// answer and asks again.
import { find, span } from './dom.js';
import { closeEntry, openEntry } from './catalogue.js';
import { startExplaining } from './explain.js';
import { showIssuers } from './issuers.js';
import { showKeys } from './keys.js';
import { forgetRefusals, newestRefusal, showRefusals } from './refusals.js';
import { showRequests } from './requests.js';
import { ask, forgetToken, hasToken, useToken } from './service.js';

const EVERY = 5; // seconds
const SLOWEST = 30; // seconds between attempts while there is no answer

let timer = null;
let failures = 0;
let paused = false;
let startedAt = null;
let asking = false;

function state(kind, text) {
  const pill = find('state');
  pill.dataset.state = kind;
  if (pill.textContent !== text) pill.textContent = text;
}

const announce = (text) => (find('news').textContent = text);

function later(seconds) {
  clearTimeout(timer);
  if (!paused && !document.hidden) timer = setTimeout(refresh, seconds * 1000);
}

async function refresh() {
  if (asking) return;
  asking = true;
  try {
    const answer = await ask(`/console/data?after=${newestRefusal()}`);
    const body = await answer.json();
    if (answer.ok) show(body);
    else refused(answer, body);
  } catch {
    missed();
  } finally {
    asking = false;
  }
}

function show(data) {
  const { service } = data;
  if (startedAt !== null && startedAt !== service.started_at) {
    // Another process: what was refused before is gone with the one before.
    startedAt = service.started_at;
    forgetRefusals();
    announce('The service was started anew.');
    later(0);
    return;
  }
  if (failures > 0) announce('The service answers again.');
  failures = 0;
  startedAt = service.started_at;
  find('gate').hidden = true;
  find('data').hidden = false;
  document.body.classList.remove('old');
  find('issuer').textContent = service.issuer;
  find('version').textContent = `· ${service.version} · up ${span(data.now - service.started_at)}`;
  state(service.ready ? 'well' : 'ill', service.ready ? 'Ready' : `Not ready: ${service.why}`);
  showRequests(data.history);
  const more = showRefusals(data.refusals, data.history.codes, data.checks, data.now);
  if (more > 0) announce(`${more} new refusal${more === 1 ? '' : 's'}.`);
  showKeys(data.keys, data.now);
  showIssuers(data.issuers, data.now);
  later(EVERY);
}

function refused(answer, body) {
  if (answer.status === 401 || (answer.status === 429 && body.code === 'console_tried_too_often')) {
    find('data').hidden = true;
    find('gate').hidden = false;
    state('wait', 'Locked');
    if (hasToken()) find('gate-error').textContent = body.error_description;
    forgetToken();
    find('gate-token').focus();
    return;
  }
  missed(body.error_description);
}

/** No answer, or none that helps: it is said once, and tried again, ever more slowly. */
function missed(why) {
  failures += 1;
  const wait = Math.min(2 ** failures, SLOWEST);
  if (failures === 1) announce(why ?? 'The service does not answer. This page tries again.');
  document.body.classList.add('old');
  state('ill', `${why ?? 'No answer'} · trying again in ${wait} s`);
  later(wait);
}

find('pause').addEventListener('click', ({ currentTarget }) => {
  paused = !paused;
  currentTarget.setAttribute('aria-pressed', String(paused));
  if (paused) clearTimeout(timer);
  else refresh();
});

find('gate-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const field = find('gate-token');
  useToken(field.value.trim());
  field.value = '';
  find('gate-error').textContent = '';
  refresh();
});

document.addEventListener('visibilitychange', () => (document.hidden ? clearTimeout(timer) : !paused && refresh()));

async function follow() {
  const slug = location.hash.match(/^#code\/([a-z_]+)$/)?.[1];
  if (slug) await openEntry(slug);
  else closeEntry();
}
window.addEventListener('hashchange', follow);

startExplaining();
await refresh();
await follow();

// An entry of the catalogue, in a dialog. The catalogue is fetched when it is first looked into.
import { el, find, prose } from './dom.js';
import { ask } from './service.js';

const dialog = find('entry');
let entries = null;

async function known() {
  if (entries === null) {
    const answer = await ask('/console/catalogue');
    if (!answer.ok) throw new Error('no catalogue');
    entries = new Map((await answer.json()).map((entry) => [entry.code, entry]));
  }
  return entries;
}

export async function openEntry(slug) {
  let entry;
  let problem = 'There is no such code.';
  try {
    entry = (await known()).get(slug);
  } catch {
    problem = 'The catalogue could not be fetched. Close this and try again.';
  }
  find('entry-title').textContent = slug;
  const part = (title, text) => el('div', {}, el('h3', {}, title), el('p', {}, prose(text)));
  find('entry-body').replaceChildren(...(entry
    ? [
        el('p', {}, el('strong', {}, prose(entry.sentence))),
        el('p', { class: 'muted' }, entry.status ? `HTTP ${entry.status} · ` : 'On the command line · ',
          el('code', {}, entry.error), ' · ', el('code', {}, entry.action)),
        part('Cause', entry.cause),
        part('Confirm', entry.confirm),
        part('Mend', entry.mend),
        entry.clerk.length > 0 && el('p', { class: 'muted' }, 'Clerk’s SDK calls it ', entry.clerk.join(', '), '.'),
      ].filter(Boolean)
    : [el('p', {}, problem)]));
  if (!dialog.open) dialog.showModal();
}

export function closeEntry() {
  if (dialog.open) dialog.close();
}

dialog.addEventListener('close', () => {
  if (location.hash.startsWith('#code/')) history.replaceState(null, '', location.pathname);
});
dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
find('entry-close').addEventListener('click', () => dialog.close());

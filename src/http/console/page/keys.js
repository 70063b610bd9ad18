// The key ring: for each algorithm a timeline of its keys, what happens next, and the same as a table.
import { draw, el, find, measured, number, span, stamp, table, when } from './dom.js';

const STATES = { next: 'standing by', active: 'signing', retired: 'retired' };
const EVENTS = {
  signs: 'begins to sign',
  retires: 'stops signing, and stays published',
  gone: 'is no longer published',
};
const ROW = 26;
const LABEL = 168;

let last = null;
let drawn = '';
let width = 0;

const brief = (kid) => kid.slice(0, 8);

export function showKeys(ring, now) {
  last = { ring, now };
  find('ring').textContent = `generation ${number(ring.generation)}`;
  render();
}

function render() {
  if (last === null || width === 0) return;
  const { ring, now } = last;
  // Drawn anew only when something changed or a minute is over: whoever reads it is not disturbed.
  const sign = JSON.stringify([ring, Math.floor(now / 60), width]);
  if (sign === drawn) return;
  drawn = sign;
  const body = find('ring-body');
  const open = new Set([...body.querySelectorAll('details[open]')].map(({ dataset }) => dataset.alg));
  const focused = document.activeElement?.closest?.('#ring-body details')?.dataset.alg;
  body.replaceChildren(...(ring.algorithms.length
    ? ring.algorithms.map((each) => algorithm(each, now, open.has(each.alg)))
    : [el('p', { class: 'muted' }, 'There is no key yet.')]));
  if (focused) body.querySelector(`details[data-alg="${focused}"] summary`)?.focus({ preventScroll: true });
}

function algorithm({ alg, keys, events }, now, open) {
  const sorted = [...keys].sort((a, b) => (a.signs_at ?? Infinity) - (b.signs_at ?? Infinity) || a.published_at - b.published_at);
  const next = events.slice(0, 4).map(({ at, what, kid }) =>
    el('li', {}, el('b', {}, when(at, now)), ` ${EVENTS[what]}: `, el('code', {}, brief(kid)), el('span', { class: 'muted' }, ` · ${stamp(at)}`)));
  const date = (at) => (at === null ? '–' : el('time', { datetime: new Date(at * 1000).toISOString(), class: 'word' }, stamp(at)));
  const rows = sorted.map((key) => [
    el('code', { class: 'wrap' }, key.kid), STATES[key.state], date(key.published_at), date(key.signs_at), date(key.retires_at), date(key.gone_at),
  ]);
  const columns = [['Key'], ['State', 'word'], ['Published'], ['Signs from'], ['Retired'], ['Gone']];
  return el('div', { class: 'alg' },
    el('h3', {}, alg),
    el('div', { class: 'line' }, timeline(alg, sorted, now)),
    el('ol', { class: 'events', 'aria-label': `What happens next to the keys of ${alg}` },
      next.length ? next : el('li', { class: 'muted' }, 'Nothing is planned.')),
    el('details', { 'data-alg': alg, open },
      el('summary', {}, `${alg} as a table`),
      el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': `Keys of ${alg}` },
        table(`Keys of ${alg}`, columns, rows))));
}

/** One row a key: outlined while it is published, full while it signs, paler where that is still to come. */
function timeline(alg, keys, now) {
  const label = width < 560 ? 92 : LABEL;
  const times = keys.flatMap((key) => [key.published_at, key.signs_at, key.retires_at, key.gone_at].filter((at) => at !== null));
  const from = Math.min(now, ...times);
  const to = Math.max(now + 60, ...times);
  const pad = (to - from) * 0.015;
  const room = width - label - 8;
  const x = (at) => label + ((at - from + pad) / (to - from + 2 * pad)) * room;
  const height = keys.length * ROW + 34;
  const picture = draw('svg', { width, height, role: 'img', 'aria-label': `${alg}: ${keys.map(sentence(now)).join(' ')}` });
  const bar = (kind, y, start, end, tall) => {
    const wide = Math.max(2, x(end) - x(start));
    return draw('rect', { class: kind, x: x(start), y: y + (tall ? 4 : 8), width: wide, height: tall ? 16 : 8, rx: 2 });
  };
  keys.forEach((key, place) => {
    const y = place * ROW + 4;
    const gone = key.gone_at ?? to + pad;
    picture.append(
      draw('text', { x: 0, y: y + 16, class: 'kid' }, brief(key.kid)),
      label > 100 ? draw('text', { x: 78, y: y + 16 }, STATES[key.state]) : '',
      bar('shown', y, key.published_at, gone),
      bar('shown-edge', y, key.published_at, gone));
    if (key.signs_at !== null) {
      const end = key.retires_at ?? to + pad;
      const split = Math.min(Math.max(now, key.signs_at), end);
      if (split > key.signs_at) picture.append(bar('signs', y, key.signs_at, split, true));
      if (end > split) picture.append(bar('signs planned', y, split, end, true));
    }
  });
  const base = keys.length * ROW + 6;
  picture.append(draw('line', { class: 'now', x1: x(now), x2: x(now), y1: 0, y2: base + 4 }));
  const near = x(now) > width - 40;
  picture.append(draw('text', { class: 'now-word', x: x(now), y: base + 18, 'text-anchor': near ? 'end' : x(now) < label + 20 ? 'start' : 'middle' }, 'now'));
  const day = (at) => new Date(at * 1000).toISOString().slice(0, to - from > 2 * 86400 ? 10 : 16).replace('T', ' ');
  if (x(now) > label + 100) picture.append(draw('text', { x: label, y: base + 18 }, day(from)));
  if (x(now) < width - 120) picture.append(draw('text', { x: width, y: base + 18, 'text-anchor': 'end' }, day(to)));
  return picture;
}

const sentence = (now) => (key) => {
  const next = { next: [key.signs_at, 'signs'], active: [key.retires_at, 'is retired'], retired: [key.gone_at, 'is gone'] }[key.state];
  const [at, what] = next;
  return `${brief(key.kid)} is ${STATES[key.state]}${at === null ? '' : ` and ${what} in ${span(at - now)}`}.`;
};

function swatch(...shapes) {
  return draw('svg', { width: 22, height: 16, 'aria-hidden': 'true' }, ...shapes);
}

find('keys-legend').append(
  el('li', {}, swatch(draw('rect', { class: 'shown', x: 1, y: 4, width: 20, height: 8, rx: 2 }), draw('rect', { class: 'shown-edge', x: 1, y: 4, width: 20, height: 8, rx: 2 })), 'published'),
  el('li', {}, swatch(draw('rect', { class: 'signs', x: 1, y: 0, width: 20, height: 16, rx: 2 })), 'signing'),
  el('li', {}, swatch(draw('rect', { class: 'signs planned', x: 1, y: 0, width: 20, height: 16, rx: 2 })), 'will sign'));

measured(find('ring-body'), (now) => {
  width = now;
  render();
});

// What the other files build the page with: elements, texts of times and numbers, small drawings.
// Nothing here makes markup out of text.

const SVG = 'http://www.w3.org/2000/svg';

export const find = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An HTML element with attributes and children; what is absent is left out. */
export const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);

/** The same of SVG. */
export const draw = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

export const number = (value) => value.toLocaleString('en');

/** A length of time in at most two units, as `3 h 20 min`. */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
  const first = units.findIndex(([, size]) => whole >= size);
  if (first < 0) return '0 s';
  const [name, size] = units[first];
  const most = Math.floor(whole / size);
  const [below, part] = units[first + 1] ?? [];
  const rest = part ? Math.floor((whole % size) / part) : 0;
  return rest && most < 10 && name !== 'min' ? `${most} ${name} ${rest} ${below}` : `${most} ${name}`;
}

const two = (value) => String(value).padStart(2, '0');

/** Date and time in UTC, as the log has it. */
export const stamp = (at) => new Date(at * 1000).toISOString().replace('T', ' ').replace(/\.\d+Z/, ' UTC');

/** The time of day as it is here. */
export function clock(at) {
  const date = new Date(at * 1000);
  return `${two(date.getHours())}:${two(date.getMinutes())}`;
}

export function clockSeconds(at) {
  return `${clock(at)}:${two(new Date(at * 1000).getSeconds())}`;
}

/** A time that says how far it is from now, and exactly when in its title. */
export function when(at, now) {
  const text = at > now ? `in ${span(at - now)}` : `${span(now - at)} ago`;
  return el('time', { datetime: new Date(at * 1000).toISOString(), title: stamp(at), class: 'word' }, text);
}

/** A code of the catalogue, as a link to its entry. */
export const code = (slug) => el('a', { href: `#code/${slug}` }, el('code', {}, slug));

/** A table; each column is `[title, class]`, each row a list of cells, the first of which names it. */
export function table(caption, columns, rows) {
  const head = columns.map(([title, kind]) => el('th', { scope: 'col', class: kind }, title));
  const cells = (row) =>
    row.map((cell, place) =>
      place === 0 ? el('th', { scope: 'row', class: columns[0][1] }, cell) : el('td', { class: columns[place][1] }, cell));
  return el('table', {},
    el('caption', { class: 'aside' }, caption),
    el('thead', {}, el('tr', {}, head)),
    el('tbody', {}, rows.map((row) => el('tr', {}, cells(row)))));
}

/** Pairs of a name and what it is, without those of which there is nothing. */
export function facts(pairs) {
  const told = pairs.filter(([, what]) => what !== null && what !== undefined && what !== '');
  return el('dl', { class: 'facts' }, told.flatMap(([name, what]) => [el('dt', {}, name), el('dd', {}, ...[what].flat())]));
}

/** A text in which `names` stand in backquotes, as the catalogue writes them. */
export const prose = (text) =>
  text.split('`').map((part, place) => (place % 2 ? el('code', { class: 'wrap' }, part) : part));

const HOW = { passed: 'passed', failed: 'failed', not_reached: 'not reached' };

/** A ladder: each check, how it ended, what was seen and what was expected. Neighbours that ended alike and say nothing share a line. */
export function ladder(rungs, label) {
  const lines = [];
  rungs.forEach(({ check, outcome, seen, expected }, place) => {
    const line = { first: place + 1, last: place + 1, outcome, checks: [check.replaceAll('_', ' ')], seen, expected };
    const before = lines.at(-1);
    const silent = (each) => each && !each.seen && !each.expected;
    if (silent(line) && silent(before) && before.outcome === outcome && outcome !== 'failed') {
      before.last = line.last;
      before.checks.push(...line.checks);
    } else {
      lines.push(line);
    }
  });
  return el('ol', { class: 'ladder', 'aria-label': label }, lines.map(({ first, last, outcome, checks, seen, expected }) =>
    el('li', { 'data-how': outcome, class: checks.length > 1 && 'many' },
      el('span', { class: 'place' }, first === last ? String(first) : `${first}–${last}`),
      el('span', { class: 'how' }, HOW[outcome]),
      el('span', { class: 'check' }, checks.join(', ')),
      el('div', { class: 'told' },
        seen && el('span', {}, seen),
        expected && el('span', {}, el('i', {}, 'expected '), expected)))));
}

/** Calls back with the width of an element, now and whenever it changes. */
export function measured(element, then) {
  let last = 0;
  new ResizeObserver(([{ contentRect }]) => {
    const width = Math.floor(contentRect.width);
    if (width > 0 && width !== last) then((last = width));
  }).observe(element);
}

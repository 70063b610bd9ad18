// How requests ended, minute by minute: stacked bars, their sums, and the same as a table.
import { clock, draw, el, find, measured, number, stamp, table } from './dom.js';

const OUTCOMES = [
  ['ok', 'ok'],
  ['refused', 'refused'],
  ['failed', 'failed'],
  ['shed', 'turned away, overloaded'],
];
const HEIGHT = 132;
const FOOT = 20;
const LEFT = 40;

let last = null;
let width = 0;

export function showRequests(history) {
  last = history;
  render();
}

const route = find('route');
const spans = [...document.querySelectorAll('input[name="span"]')];

function offer(routes) {
  const names = ['exchange', ...routes.filter((name) => name !== 'exchange')];
  if (routes.length > 1) names.push('all');
  if (names.join() === [...route.options].map(({ value }) => value).join()) return;
  const chosen = route.value;
  route.replaceChildren(...names.map((name) => el('option', { value: name, selected: name === chosen }, name)));
}

function chosen() {
  const most = Number(spans.find(({ checked }) => checked).value);
  const skipped = last.minutes - most;
  const counts = new Map(OUTCOMES.map(([name]) => [name, new Array(most).fill(0)]));
  for (const series of last.series) {
    if (route.value !== 'all' && series.route !== route.value) continue;
    const sum = counts.get(series.outcome);
    series.counts.slice(skipped).forEach((count, place) => (sum[place] += count));
  }
  return { most, from: last.from + skipped * 60, counts };
}

function render() {
  if (last === null || width === 0) return;
  offer([...new Set(last.series.map((series) => series.route))].sort());
  const { most, from, counts } = chosen();
  const sums = OUTCOMES.map(([name]) => counts.get(name).reduce((sum, each) => sum + each, 0));
  find('legend').replaceChildren(...OUTCOMES.map(([name, words], place) =>
    el('li', {}, swatch(name), el('span', {}, el('b', {}, number(sums[place])), ` ${words}`))));
  const words = OUTCOMES.map(([, name], place) => `${number(sums[place])} ${name}`).join(', ');
  find('chart').replaceChildren(chart(most, from, counts, `Requests in the last ${most / 60 === 1 ? 'hour' : `${most / 60} hours`}: ${words}.`));
  if (find('chart-table').open) asTable(most, from, counts);
}

/** The next round number at or above. */
function round(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value);
}

function chart(most, from, counts, label) {
  const tops = Array.from({ length: most }, (_, place) => OUTCOMES.reduce((sum, [name]) => sum + counts.get(name)[place], 0));
  const highest = Math.max(...tops);
  const top = round(Math.max(4, highest));
  const room = width - LEFT;
  const step = room / most;
  const y = (count) => HEIGHT - (count / top) * (HEIGHT - 8);
  const picture = draw('svg', { width, height: HEIGHT + FOOT, role: 'img', 'aria-label': label });
  for (const tick of [0, top / 2, top]) {
    picture.append(
      draw('line', { class: 'axis', x1: LEFT, x2: width, y1: y(tick) + 0.5, y2: y(tick) + 0.5 }),
      draw('text', { x: LEFT - 8, y: y(tick) + 4, 'text-anchor': 'end' }, number(tick)));
  }
  const every = most / (width < 560 ? 3 : 6);
  for (let minute = 0; minute <= most; minute += every) {
    const anchor = minute === 0 ? 'start' : minute === most ? 'end' : 'middle';
    picture.append(draw('text', { x: LEFT + minute * step, y: HEIGHT + 15, 'text-anchor': anchor }, clock(from + minute * 60)));
  }
  for (let minute = 0; minute < most; minute += 1) {
    let below = 0;
    for (const [name] of OUTCOMES) {
      const count = counts.get(name)[minute];
      if (count === 0) continue;
      // One of thousands is still to be seen.
      const tall = Math.max(1.5, y(below) - y(below + count));
      const place = { x: LEFT + minute * step + 0.5, y: Math.min(y(below) - tall, HEIGHT - tall), width: Math.max(1, step - 1), height: tall };
      picture.append(...shape(name, place));
      below += count;
    }
  }
  if (highest === 0) {
    picture.append(draw('text', { x: LEFT + room / 2, y: HEIGHT / 2 + 4, 'text-anchor': 'middle' }, 'No request in this time.'));
  }
  return picture;
}

/** Each outcome has its own pattern, so that none is told by its colour alone. */
function shape(name, place) {
  if (name === 'refused' || name === 'shed') {
    return [draw('rect', { ...place, class: `back-${name}` }), draw('rect', { ...place, fill: `url(#pattern-${name})` })];
  }
  return [draw('rect', { ...place, class: name })];
}

function swatch(name) {
  return draw('svg', { width: 14, height: 14, 'aria-hidden': 'true' }, ...shape(name, { x: 0, y: 0, width: 14, height: 14, rx: 2 }));
}

function asTable(most, from, counts) {
  const rows = [];
  for (let minute = most - 1; minute >= 0; minute -= 1) {
    const row = OUTCOMES.map(([name]) => counts.get(name)[minute]);
    const at = from + minute * 60;
    if (row.some((count) => count > 0)) {
      rows.push([el('time', { datetime: new Date(at * 1000).toISOString() }, stamp(at)), ...row.map(number)]);
    }
  }
  const columns = [['Minute', 'word'], ...OUTCOMES.map(([, words]) => [words, 'number'])];
  const box = find('chart-table').querySelector('div');
  box.replaceChildren(rows.length ? table('Requests by minute, newest first', columns, rows) : el('p', { class: 'muted' }, 'No request in this time.'));
}

document.body.append(draw('svg', { width: 0, height: 0, class: 'aside', 'aria-hidden': 'true' },
  draw('defs', {},
    draw('pattern', { id: 'pattern-refused', width: 5, height: 5, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' },
      draw('line', { class: 'stroke-refused', x1: 1, x2: 1, y1: 0, y2: 5 })),
    draw('pattern', { id: 'pattern-shed', width: 4, height: 4, patternUnits: 'userSpaceOnUse' },
      draw('line', { class: 'stroke-shed', x1: 0, x2: 4, y1: 1, y2: 1 })))));

route.addEventListener('change', render);
spans.forEach((each) => each.addEventListener('change', render));
find('chart-table').addEventListener('toggle', render);
measured(find('chart'), (now) => {
  width = now;
  render();
});

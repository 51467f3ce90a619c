// The list of studies, with search.

import { again, list, patiently } from './api.js';
import { announce, button, count, date, el, later, moveBetween, person, state } from './dom.js';
import { conflictsOf, identity, sequencesOf, shownSeries, stateOf } from './facts.js';
import { drawInto, picture } from './pictures.js';
import { parametersOf, searchForm } from './search.js';

const PAGE = 25;
// The service answers no more at once.
const MOST = 100;
const THUMBNAIL = [96, 96];
const AGAIN_MS = 5000;
const TYPED_MS = 350;
// Columns that the list can be ordered by: what the service calls it, and what comes first at the first click.
const ORDERS = {
  Date: { key: 'StudyDate', falling: true, words: ['oldest study first', 'newest study first'] },
  Study: { key: 'StudyDescription', falling: false, words: ['descriptions from A to Z', 'descriptions from Z to A'] },
  Received: { key: 'received', falling: true, words: ['first received first', 'last received first'] },
};
const NEWEST = '-StudyDate';

export function studiesView({ go, remember, state: given, settings, signal }) {
  const search = { ...given.search };
  const rows = el('tbody');
  let order = given.order ?? NEWEST;
  // Where the reader was, until the first rows are there: later ones are not to move the focus.
  let back = given.focus ? given : null;
  const table = el('table', { class: 'studies' }, head(settings, order, sortBy), rows);
  const around = el('div', { class: 'results', 'aria-busy': 'true' }, el('p', { class: 'loading' }, 'Loading studies…'));
  const more = button('Show more', () => load(rows.children.length + PAGE), { class: 'more', hidden: true });
  const form = searchForm(search, settings, later(() => remember({ search }), 0), later(() => load(PAGE), TYPED_MS));
  let timer = 0;
  let asked = 0;

  /** Show so many, from the first on: what arrived meanwhile has its place among them. */
  async function load(wanted, { quiet = false } = {}) {
    clearTimeout(timer);
    const turn = (asked += 1);
    if (!quiet) around.setAttribute('aria-busy', 'true');
    try {
      const found = await first(wanted + 1);
      if (turn === asked) put(found, wanted, quiet);
    } catch (error) {
      if (error.name !== 'AbortError' && turn === asked) {
        fill(state('error', error.title ?? 'It went wrong', error.message, button('Try again', () => load(PAGE))));
      }
    }
  }

  /** So many studies, or all that are there. A page follows the last study of the one before, whatever arrives meanwhile. */
  async function first(number) {
    const found = [];
    while (found.length < number) {
      const limit = Math.min(MOST, number - found.length);
      const query = parametersOf(search, { limit, order, after: found.at(-1)?.StudyInstanceUID });
      const { results } = await patiently(
        () => list('/studies', query, { signal }),
        (problem) => fill(state('wait', problem.title, `${problem.detail} ${again(problem)}`)),
        signal,
      );
      found.push(...results);
      if (results.length < limit) break;
    }
    return found;
  }

  function put(found, wanted, quiet) {
    const shown = found.slice(0, wanted);
    const isMore = found.length > wanted;
    if (shown.length === 0) return fill(nothing(search, () => form.reset()));
    const focused = rows.contains(document.activeElement) ? document.activeElement.dataset.study : null;
    rows.replaceChildren(...shown.map((study) => row(study, settings, open)));
    more.hidden = !isMore;
    // A table that is there already stays: the focus may be in its head.
    if (table.isConnected) around.setAttribute('aria-busy', 'false');
    else fill(table, more);
    const there = focused ?? (form.contains(document.activeElement) ? null : back?.focus);
    const kept = there && [...rows.querySelectorAll('button.open')].find(({ dataset }) => dataset.study === there);
    if (kept) kept.focus();
    if (kept && back?.scrolled) window.scrollTo(0, back.scrolled);
    back = null;
    if (!quiet) announce(`${count(shown.length, 'study', 'studies')}${isMore ? ', and more' : ''}, ${orderWords(order)}`);
    const waits = shown.some((study) => stateOf(study)[0] === 'waiting');
    if (waits) timer = setTimeout(() => load(Math.max(PAGE, shown.length), { quiet: true }), AGAIN_MS);
  }

  function open(uid) {
    go({ view: 'study', study: uid }, { focus: uid, rows: rows.children.length, scrolled: window.scrollY });
  }

  function fill(...content) {
    around.setAttribute('aria-busy', 'false');
    around.replaceChildren(...content.filter(Boolean));
  }

  function sortBy(key) {
    order = key;
    remember({ order });
    for (const heading of table.tHead.querySelectorAll('[data-column]')) showOrder(heading, order);
    load(PAGE);
  }

  rows.addEventListener('keydown', (event) => moveBetween(event, [...rows.querySelectorAll('button.open')]));
  signal.addEventListener('abort', () => clearTimeout(timer));
  load(Math.max(PAGE, given.rows ?? 0));
  return {
    title: 'Studies',
    element: el('div', { class: 'list' }, el('h1', { tabindex: '-1' }, 'Studies'), form, around),
    keys: { '/': () => form.querySelector('input').focus(), ArrowDown: () => rows.querySelector('button.open')?.focus() },
  };
}

function head(settings, order, sortBy) {
  const names = ['Picture', 'Date', 'Study', ...(settings.show_identity ? ['Patient'] : []), 'Sex, age', 'Sequences', 'Images', 'Received', 'State'];
  const cells = names.map((name) => {
    const heading = el('th', { scope: 'col', class: `col-${name.split(/[ ,]/)[0].toLowerCase()}` }, name in ORDERS ? null : name);
    if (!(name in ORDERS)) return heading;
    heading.dataset.column = name;
    heading.append(button(name, () => sortBy(next(name, heading)), { class: 'sort' }));
    showOrder(heading, order);
    return heading;
  });
  return el('thead', {}, el('tr', {}, cells));
}

/** What a click on a column's head asks for: its first order, or the other way where it has that. */
function next(name, heading) {
  const { key, falling } = ORDERS[name];
  const is = heading.getAttribute('aria-sort');
  return (is === null ? falling : is === 'ascending') ? `-${key}` : key;
}

function showOrder(heading, order) {
  const { key } = ORDERS[heading.dataset.column];
  const sorted = { [key]: 'ascending', [`-${key}`]: 'descending' }[order];
  if (sorted) heading.setAttribute('aria-sort', sorted);
  else heading.removeAttribute('aria-sort');
}

function orderWords(order) {
  const { words } = Object.values(ORDERS).find(({ key }) => order.endsWith(key));
  return words[order.startsWith('-') ? 1 : 0];
}

function row(study, settings, opened) {
  const [kind, words] = stateOf(study);
  const series = shownSeries(study);
  const canvas = el('canvas', { class: 'thumbnail', 'aria-hidden': 'true', width: 96, height: 96 });
  const open = () => opened(study.StudyInstanceUID);
  const name = study.StudyDescription || 'Without description';
  if (series) {
    const frame = { study: study.StudyInstanceUID, series: series.SeriesInstanceUID, instance: series.picture };
    drawInto(canvas, picture(frame, { viewport: THUMBNAIL })).catch(() => {});
  }
  return el(
    'tr',
    { on: { click: (event) => event.target.closest('button, a') || open() } },
    el('td', { class: 'col-picture' }, canvas),
    el('td', { class: 'col-date' }, date(study.StudyDate) || '–'),
    el('td', { class: 'col-study' }, button(name, open, { class: 'open', 'data-study': study.StudyInstanceUID, 'aria-label': `Open ${name}, ${date(study.StudyDate)}` })),
    settings.show_identity ? el('td', { class: 'col-patient' }, identity(study)) : null,
    el('td', { class: 'col-sex' }, person(study)),
    el('td', { class: 'col-sequences' }, sequencesOf(study)),
    el('td', { class: 'col-images' }, String(study.NumberOfStudyRelatedInstances ?? 0)),
    el('td', { class: 'col-received' }, received(study.received)),
    el('td', { class: 'col-state' }, el('span', { class: `status ${kind}` }, words), conflictsOf(study)),
  );
}

/** A moment by the reader's clock: 2024-01-31 09:05. */
function received(moment) {
  const at = new Date(moment);
  const two = (number) => String(number).padStart(2, '0');
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}`;
}

function nothing(search, reset) {
  if (Object.values(search).some(Boolean)) {
    return state('empty', 'No study matches the search', 'Make a field wider, or clear them.', button('Clear the search', reset));
  }
  return state('empty', 'No studies yet', 'Studies appear here once the PACS sends them by C-STORE, and can be searched by seconds later.');
}

// A match: one study that looks like the example, as a card.

import { nameOf, patiently } from './api.js';
import { away, button, count, date, el, person } from './dom.js';
import { viewerUrl } from './facts.js';
import { drawInto, fetched, picture } from './pictures.js';

const DAYS_A_YEAR = 365.25;
const DAYS_A_MONTH = 30.44;
const VIEWPORT = [320, 320];
const INSET = [112, 112];

/** 0.934 → 0.93; never rounded up to 1. */
export function similarity(value) {
  return (Math.floor(value * 100) / 100).toFixed(2);
}

/** How much of the example was compared like with like. */
export function covered({ coverage }) {
  return coverage > 0.995 ? 'all sequences compared' : `${Math.round(coverage * 100)} % of the sequences compared`;
}

/** Whether feedback has moved the example: similarities are to what it has become. */
export function isRefined({ like = [], unlike = [] }) {
  return like.length + unlike.length > 0;
}

/** The similarity that unrelated patients usually reach, where that is known for such a question: sequence → cosine. */
function usualOf(question, settings) {
  if (question.region || question.filters?.parts || isRefined(question)) return {};
  return question.example.instance ? settings.unrelated_slices : settings.unrelated;
}

/** The time between the example's study and a match's, in words. */
export function interval(days) {
  if (days === undefined || days === null) return '';
  if (days === 0) return 'same day';
  const far = Math.abs(days);
  const words =
    far < 60 ? count(far, 'day')
    : far < 2 * DAYS_A_YEAR ? count(Math.round(far / DAYS_A_MONTH), 'month')
    : count(Math.round(far / DAYS_A_YEAR), 'year');
  return `${words} ${days < 0 ? 'earlier' : 'later'}`;
}

/** The two slices that a compared series owes most to, as frames: {example, found}; null where they are not known. */
export function pairOf(question, match, series) {
  if (!series.slice) return null;
  const { like } = series.slice;
  return {
    example: { study: question.example.study, series: series.like, instance: like.SOPInstanceUID, frame: like.frame },
    found: foundIn(match, series),
  };
}

/** Where a match's series was found: at its slice, where one is known. */
export function foundIn(match, series) {
  const { SOPInstanceUID: instance, frame } = series?.slice ?? {};
  return { study: match.StudyInstanceUID, series: series?.SeriesInstanceUID, instance, frame };
}

/** The heat map of a pair: a picture of both, from the service; `waits` hears why it is not there yet. */
export async function heat(pair, question, waits, signal) {
  const query = new URLSearchParams({ example: nameOf(pair.example), match: nameOf(pair.found) });
  if (question.region) query.set('region', question.region);
  const parts = Object.entries(question.filters?.parts ?? {});
  if (parts.length) query.set('parts', parts.map(([part, weight]) => `${part}:${weight}`).join(','));
  const said = (problem) => waits(`${problem.title}; this page asks again in ${count(problem.retryAfter, 'second')}.`);
  const found = await patiently(() => fetched(`/similar/explain?${query}`, 'image/png'), said, signal);
  signal.throwIfAborted();
  return found;
}

/** Badges of what a reader must know before trusting a match. */
export function notes(match) {
  return [
    ['outside-encoder-domain', 'outside domain', 'The encoder was not trained for such pictures: take this ranking with care.'],
    ['slices-missing', 'slices missing', 'Slices between others were rejected or never sent: it was compared without them.'],
  ]
    .filter(([note]) => match.notes?.includes(note))
    .map(([, words, title]) => el('span', { class: 'badge warn', title }, words));
}

/** Bars of what was compared, each from what unrelated patients usually reach to 1, where that is known, else from 0;
 *  `chosen` hears of a click. */
export function bars(match, current, { question, settings, chosen }) {
  const usual = usualOf(question, settings);
  return el(
    'ul',
    { class: 'bars', 'aria-label': 'Similarity by sequence' },
    match.series.map((series, index) => {
      const meter = el('span', { class: 'meter', 'aria-hidden': 'true' });
      const from = usual[series.sequence] ?? 0;
      meter.style.setProperty('--share', String(Math.max(0, (series.similarity - from) / (1 - from))));
      const title = from ? `The bar begins at ${from.toFixed(2)}, which unrelated patients usually reach, and ends at 1` : 'The bar goes from 0 to 1';
      const text = [el('span', { class: 'name' }, series.sequence), meter, el('span', { class: 'value' }, similarity(series.similarity))];
      const properties = { type: 'button', 'aria-pressed': String(index === current), 'data-index': index, title, 'aria-label': `${series.sequence}, similarity ${similarity(series.similarity)}, show` };
      return el('li', {}, el('button', { ...properties, on: { click: () => chosen(index) } }, text));
    }),
  );
}

/** A card of the grid. `act` has compare, like, unlike, similar and, for a match that is liked, knows it. */
export class Card {
  constructor(match, rank, { question, settings, signal, act, liked }) {
    Object.assign(this, { match, rank, question, settings, signal, act, current: 0, hot: false });
    this.canvas = el('canvas', { class: 'found', 'aria-hidden': 'true', width: 320, height: 320 });
    this.inset = el('canvas', { class: 'inset', 'aria-hidden': 'true', width: 112, height: 112 });
    this.message = el('span', { class: 'message', role: 'status' });
    this.hotButton = button('Heat map', () => this.toggleHeat(), { 'aria-pressed': 'false', title: 'Where the two slices are alike' });
    this.viewer = away('Viewer', '#', { class: 'out' });
    this.barsPlace = el('div');
    const title = [`${rank}.`, match.StudyDescription || 'Without description'].join(' ');
    this.element = el(
      'li',
      { class: 'card', tabindex: '-1', 'aria-label': `Match ${title}, similarity ${similarity(match.similarity)}`, 'data-study': match.StudyInstanceUID },
      el('button', { type: 'button', class: 'picture', 'aria-label': `Compare with match ${rank}`, on: { click: () => act.compare(this) } }, this.canvas, this.inset, this.message),
      el('div', { class: 'facts' },
        el('p', { class: 'score' },
          el('span', { class: 'number' }, similarity(match.similarity)),
          question.example.series ? null : el('span', { class: 'coverage', title: "Share of the example's sequences that were compared like with like" }, covered(match)),
          notes(match),
        ),
        el('h2', {}, title),
        el('p', { class: 'who' }, [person(match), date(match.StudyDate), interval(match.days)].filter(Boolean).join(' · ')),
        match.labels?.length ? el('ul', { class: 'chips', 'aria-label': 'Labels' }, match.labels.map((label) => el('li', {}, label))) : null,
        this.barsPlace,
      ),
      el('div', { class: 'actions' },
        button('Compare', () => act.compare(this), { class: 'primary' }),
        button('Like', () => act.like(this), { 'aria-pressed': String(liked), title: 'More like this one', 'data-act': 'like' }),
        button('Unlike', () => act.unlike(this), { title: 'Not this one, and fewer such', 'data-act': 'unlike' }),
        this.hotButton,
        this.viewer,
        match.report ? away('Report', match.report, { class: 'out' }) : null,
        button('As example', () => act.similar(this), { class: 'quiet', title: 'Find studies similar to this one' }),
      ),
    );
    this.choose(0);
  }

  get series() {
    return this.match.series[this.current];
  }

  get pair() {
    return this.series ? pairOf(this.question, this.match, this.series) : null;
  }

  choose(index) {
    const focused = this.barsPlace.contains(document.activeElement);
    this.current = index;
    this.barsPlace.replaceChildren(bars(this.match, index, { question: this.question, settings: this.settings, chosen: (one) => this.choose(one) }));
    if (focused) this.barsPlace.querySelector(`[data-index="${index}"]`)?.focus();
    this.draw();
  }

  async draw() {
    const { pair } = this;
    this.drawing?.abort();
    this.drawing = new AbortController();
    const signal = AbortSignal.any([this.drawing.signal, this.signal]);
    this.viewer.href = viewerUrl(this.settings.viewer_url, foundIn(this.match, this.series));
    this.canvas.hidden = !pair;
    this.inset.hidden = !pair || this.hot;
    if (!pair) {
      this.message.textContent = 'No slice is known yet';
      return;
    }
    this.element.classList.toggle('hot', this.hot);
    this.message.textContent = this.hot ? 'Computing the heat map…' : '';
    try {
      if (this.hot) await drawInto(this.canvas, heat(pair, this.question, (why) => { this.message.textContent = why; }, signal), signal);
      else {
        drawInto(this.inset, picture(pair.example, { viewport: INSET }), signal).catch(() => {});
        await drawInto(this.canvas, picture(pair.found, { viewport: VIEWPORT }), signal);
      }
      this.message.textContent = '';
    } catch (error) {
      if (error.name !== 'AbortError') this.message.textContent = `${this.hot ? 'No heat map' : 'No picture'}: ${error.message}`;
    }
  }

  toggleHeat() {
    this.hot = !this.hot;
    this.hotButton.setAttribute('aria-pressed', String(this.hot));
    this.draw();
  }
}

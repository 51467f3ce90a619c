// The example and one match, side by side, scrolled together from the two slices that are alike.

import { announce, away, button, date, el, person } from './dom.js';
import { viewerUrl } from './facts.js';
import { bars, covered, foundIn, heat, interval, isRefined, notes, pairOf, similarity } from './match.js';
import { answered } from './similar.js';
import { indexOf, isPlaced, nearest, slicesOf } from './stack.js';
import { Viewport } from './viewport.js';

export function compareView(context) {
  return new Comparison(context).view;
}

class Comparison {
  constructor({ go, replace, remember, state: given, settings, signal }) {
    Object.assign(this, { go, replace, remember, settings, signal, linked: true });
    this.question = given.question;
    this.match = given.match;
    this.current = Math.min(given.current ?? 0, this.match.series.length - 1);
    this.viewports = el('div', { class: 'two-up' });
    this.barsPlace = el('div');
    this.partsPlace = el('div');
    this.link = button('Link scrolling', () => this.toggleLink(), { key: 'l', 'aria-pressed': 'true' });
    this.hot = button('Heat map', () => this.toggleHeat(), { key: 'h', 'aria-pressed': 'false' });
    this.viewer = away('Viewer', '#', { class: 'out' });
    this.figure = el('figure', { class: 'heat', hidden: true });
    this.heatPlace = el('strong');
    this.view = { title: 'Compare', element: this.layout(), keys: this.keys(), focus: () => this.left?.stage.focus() };
    this.choose(this.current);
  }

  keys() {
    return {
      l: () => this.toggleLink(),
      h: () => this.toggleHeat(),
      r: () => this.home(),
      n: () => this.next(1),
      p: () => this.next(-1),
      v: () => this.viewer.click(),
      ...Object.fromEntries(this.match.series.map((_, index) => [String(index + 1), () => this.choose(index)])),
    };
  }

  layout() {
    const { match } = this;
    const others = answered(this.question);
    const rank = others.findIndex(({ StudyInstanceUID: uid }) => uid === match.StudyInstanceUID);
    this.neighbour = (step) => (rank < 0 ? undefined : others[rank + step]);
    const facts = [person(match), date(match.StudyDate), interval(match.days)].filter(Boolean).join(' · ');
    return el('div', { class: 'compare' },
      el('h1', { tabindex: '-1' }, 'Example and match', rank < 0 ? '' : ` ${rank + 1}`),
      el('p', { class: 'about' },
        el('strong', {}, `Similarity ${similarity(match.similarity)}${isRefined(this.question) ? ' to the refined example' : ''}`),
        this.question.example.series ? null : el('span', {}, covered(match)),
        notes(match),
        el('span', {}, match.StudyDescription || 'Without description'),
        el('span', {}, facts),
        match.labels?.length ? el('ul', { class: 'chips', 'aria-label': 'Labels' }, match.labels.map((label) => el('li', {}, label))) : null,
      ),
      el('div', { class: 'tools', role: 'group', 'aria-label': 'What to do with the comparison' },
        this.link,
        this.hot,
        button('Back to the matching slices', () => this.home(), { key: 'r', class: 'quiet' }),
        this.neighbour(-1) ? button('Previous match', () => this.next(-1), { key: 'p', class: 'quiet' }) : null,
        this.neighbour(1) ? button('Next match', () => this.next(1), { key: 'n', class: 'quiet' }) : null,
        this.viewer,
        match.report ? away('Report', match.report, { class: 'out' }) : null,
      ),
      el('div', { class: 'compared' }, el('div', {}, this.viewports, this.figure), el('aside', { 'aria-label': 'Why they are similar' }, el('h2', {}, 'By sequence'), this.barsPlace, this.partsPlace)),
    );
  }

  async choose(index) {
    this.current = index;
    const series = this.match.series[index];
    this.barsPlace.replaceChildren(bars(this.match, index, { question: this.question, settings: this.settings, chosen: (one) => this.choose(one) }));
    this.barsPlace.querySelector(`[data-index="${index}"]`)?.classList.add('current');
    this.partsPlace.replaceChildren(...parts(series, Boolean(this.question.example.instance)));
    this.pair = series ? pairOf(this.question, this.match, series) : null;
    this.remember({ current: index });
    this.viewer.href = viewerUrl(this.settings.viewer_url, foundIn(this.match, series));
    const isHot = this.hot.getAttribute('aria-pressed') === 'true';
    if (!this.pair) {
      Object.assign(this, { left: null, right: null });
      if (isHot) this.showHeat();
      this.viewports.replaceChildren(el('p', { class: 'loading' }, 'Which slices are alike is not known yet.'));
      return;
    }
    const held = this.viewports.contains(document.activeElement);
    this.left = new Viewport({ title: `Example, ${series.sequence}`, on: { slice: (moved) => this.follows(moved) } });
    this.right = new Viewport({ title: `Match, ${series.sequence}`, on: { slice: (moved) => this.follows(moved) } });
    this.viewports.replaceChildren(this.left.element, this.right.element);
    if (isHot) this.showHeat();
    if (held) this.left.stage.focus();
    announce(`${series.sequence}, similarity ${similarity(series.similarity)}`);
    await Promise.all([this.load(this.left, this.pair.example), this.load(this.right, this.pair.found)]);
  }

  async load(viewport, frame) {
    try {
      const slices = await slicesOf(frame.study, frame.series);
      viewport.start = indexOf(slices, frame.instance, frame.frame);
      viewport.show(slices, viewport.start);
      this.placeHeat();
    } catch (error) {
      viewport.message.textContent = error.message;
    }
  }

  /** As far from its own slice of the pair as the other one is from its: in mm where both say, else in slices. */
  follows(moved) {
    this.scroll(moved);
    this.placeHeat();
  }

  scroll(moved) {
    const other = moved === this.left ? this.right : this.left;
    if (!this.linked || moved.start === undefined || other.start === undefined) return;
    const byPlace = isPlaced(moved.slices) && isPlaced(other.slices);
    const target = byPlace
      ? nearest(other.slices, other.slices[other.start].mm + moved.slice.mm - moved.slices[moved.start].mm)
      : other.start + moved.index - moved.start;
    other.to(target, { told: false });
  }

  home() {
    for (const viewport of [this.left, this.right]) if (viewport?.start !== undefined) viewport.to(viewport.start, { told: false });
    this.placeHeat();
  }

  toggleLink() {
    this.linked = !this.linked;
    this.link.setAttribute('aria-pressed', String(this.linked));
    announce(this.linked ? 'Example and match scroll together' : 'Example and match scroll alone');
  }

  toggleHeat() {
    const on = this.hot.getAttribute('aria-pressed') !== 'true';
    this.hot.setAttribute('aria-pressed', String(on));
    this.figure.hidden = !on;
    this.view.element.classList.toggle('hot', on);
    if (on) this.showHeat();
  }

  async showHeat() {
    this.heating?.abort();
    this.heating = new AbortController();
    this.figure.replaceChildren();
    if (!this.pair) return;
    const signal = AbortSignal.any([this.heating.signal, this.signal]);
    const words = el('figcaption', {}, 'Computing the heat map…');
    this.figure.replaceChildren(words);
    try {
      const { bitmap } = await heat(this.pair, this.question, (why) => { words.textContent = why; }, signal);
      const halves = ['example', 'match'].map((name, index) => half(bitmap, index, `Heat map of the ${name}`));
      words.replaceChildren(this.heatPlace, ' ', legend(), '. The brighter, the more a place makes the two slices similar to the encoder. It outlines no lesion.');
      this.figure.replaceChildren(el('div', { class: 'two-up' }, halves), words);
      this.placeHeat();
      announce('The heat map is shown');
    } catch (error) {
      if (error.name === 'AbortError') return;
      words.textContent = `There is no heat map: ${error.message}`;
      announce(words.textContent);
    }
  }

  /** Say which slices the heat map is of, and whether they are those above it. */
  placeHeat() {
    const [left, right] = [this.left, this.right];
    if (left?.start === undefined || right?.start === undefined) return;
    const away = left.index !== left.start || right.index !== right.start;
    const which = `of example slice ${left.start + 1} and match slice ${right.start + 1}`;
    this.figure.classList.toggle('elsewhere', away);
    this.heatPlace.textContent = away ? `Not of the slices above, but ${which} (Back to the matching slices shows them).` : `Heat map ${which}.`;
  }

  next(step) {
    const match = this.neighbour(step);
    if (match) this.replace({ view: 'compare', question: this.question, match, current: 0 });
  }
}

function legend() {
  return el('span', { class: 'legend' }, 'adds little', el('span', { class: 'scale', 'aria-hidden': 'true' }), 'adds most');
}

/** One of the two slices that a heat map shows side by side. */
function half(bitmap, index, name) {
  const width = Math.floor(bitmap.width / 2);
  const canvas = el('canvas', { role: 'img', 'aria-label': name, width, height: bitmap.height });
  canvas.getContext('2d').drawImage(bitmap, -index * width, 0);
  return canvas;
}

function parts(series, ofSlice) {
  const names = Object.entries(series?.parts ?? {});
  if (names.length === 0) return [];
  const rows = names.map(([name, value]) => el('tr', {}, el('th', { scope: 'row' }, name), el('td', {}, similarity(value))));
  return [
    el('h2', {}, 'By part of the embedding'),
    el('table', { class: 'parts' }, el('thead', { class: 'hidden' }, el('tr', {}, el('th', { scope: 'col' }, 'Part'), el('th', { scope: 'col' }, 'Similarity'))), el('tbody', {}, rows)),
    series.slice ? el('p', { class: 'who' }, `The two slices: ${similarity(series.slice.similarity)}${ofSlice ? '' : '. The similarities above are of whole series: two slices of them are often less alike.'}`) : null,
    el('p', { class: 'who' }, 'Similarity is of appearance, and no probability of a diagnosis.'),
  ].filter(Boolean);
}

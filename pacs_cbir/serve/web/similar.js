// The answers to a question: a ranked grid, filters, and feedback.

import { again, list, nameOf, patiently } from './api.js';
import { announce, button, count, date, el, later, moveBetween, state } from './dom.js';
import { example, feedback } from './example.js';
import { studyOf } from './facts.js';
import { filterForm, isFiltered, parametersOf } from './filters.js';
import { nothingFound, whyLeftOut } from './leftout.js';
import { Card, isRefined, similarity } from './match.js';

const PAGE = 12;
const TYPED_MS = 350;
// Answers that the same question will get again: what was asked cannot be understood, is not here, or has no embeddings.
const LASTING = new Set([400, 404, 410, 422]);

// The last answer, so that the way back from a comparison shows it as it was.
let last = { key: '', results: [], leftOut: null, more: false, asOf: null };

/** The matches of the last answer, for going from one comparison to the next. */
export function answered(question) {
  return last.key === JSON.stringify(question) ? last.results : [];
}

/** The question as the service is asked it, with the example by its name; later pages are of the first one's ranking. */
function parameters(question, limit, offset) {
  const query = parametersOf({ ...question, example: nameOf(question.example) }, limit, offset);
  if (offset > 0 && last.asOf) query.set('as_of', last.asOf);
  return query;
}

export function similarView({ go, back, remember, state: given, settings, signal }) {
  return new Similar({ go, back, remember, given, settings, signal }).view;
}

class Similar {
  constructor({ go, back, remember, given, settings, signal }) {
    Object.assign(this, { go, back, remember, given, settings, signal, cards: [], turn: 0 });
    this.question = { like: [], unlike: [], filters: {}, ...given.question };
    this.status = el('p', { class: 'status-line' });
    this.grid = el('ol', { class: 'grid' });
    this.more = button('Show more', () => this.ask(this.cards.length), { class: 'more' });
    this.content = el('div', { class: 'results', 'aria-busy': 'true' }, el('p', { class: 'loading' }, 'Looking for similar studies…'));
    this.exampleBox = el('div', { class: 'example' });
    this.feedback = el('div', { class: 'feedback' });
    this.filterBox = el('details', { class: 'filter-box', open: window.innerWidth > 900 }, el('summary', {}, 'Filters'));
    this.askSoon = later(() => this.ask(0), TYPED_MS);
    this.refined = el('span', { class: 'refined' });
    const { region, example: asked } = this.question;
    const what = region ? 'Similar to the box' : asked.instance ? 'Similar to the slice' : 'Similar studies';
    this.view = {
      title: what,
      element: el('div', { class: 'similar' },
        el('aside', { 'aria-label': 'Example and filters' }, this.exampleBox, this.feedback, this.filterBox),
        el('section', { class: 'answers', 'aria-label': 'Matches' }, el('h1', { tabindex: '-1' }, what, this.refined), this.status, this.content),
      ),
      keys: {
        '/': () => { this.filterBox.open = true; this.filterBox.querySelector('input')?.focus(); },
        u: () => this.act('unlike'),
        l: () => this.act('like'),
        h: () => this.chosen?.toggleHeat(),
        c: () => this.act('compare'),
      },
    };
    this.grid.addEventListener('keydown', (event) => this.key(event));
    this.grid.addEventListener('focusin', (event) => this.rove(event.target.closest('.card')));
    this.start();
  }

  async start() {
    this.showFeedback();
    if (last.key === JSON.stringify(this.question)) this.put(last.results, 0, true);
    else this.ask(0);
    try {
      this.study = await studyOf(this.question.example.study, this.signal);
    } catch (error) {
      if (error.name === 'AbortError') return;
    }
    this.showExample();
    this.showFilters();
  }

  async ask(offset) {
    const turn = (this.turn += 1);
    this.content.setAttribute('aria-busy', 'true');
    try {
      const answer = await patiently(
        () => list('/similar/studies', parameters(this.question, PAGE + 1, offset), { signal: this.signal }),
        (problem) => this.wait(problem),
        this.signal,
      );
      if (turn !== this.turn) return;
      const results = answer.results.slice(0, PAGE);
      const before = offset === 0 ? [] : last.results;
      last = { key: JSON.stringify(this.question), results: [...before, ...results], leftOut: answer.leftOut, more: answer.results.length > PAGE, asOf: answer.asOf };
      this.put(results, offset, false);
    } catch (error) {
      if (error.name === 'AbortError' || turn !== this.turn) return;
      this.status.textContent = '';
      this.fill(state('error', error.title ?? 'It went wrong', error.message, LASTING.has(error.status) ? button('Back', this.back) : button('Try again', () => this.ask(0))));
      announce(`${error.title}. ${error.message}`);
    }
  }

  wait(problem) {
    const embedding = problem.status === 409;
    this.status.textContent = '';
    const why = embedding ? 'The example was received, and its embedding is under way.' : problem.message;
    this.fill(state('wait', embedding ? 'Still embedding' : problem.title, `${why} ${again(problem)}`));
    announce(embedding ? 'The example is still being embedded; this page waits for it' : problem.title);
  }

  put(results, offset, again) {
    if (offset === 0) this.cards = [];
    if (offset === 0 && results.length === 0) return this.nothing();
    const made = results.map((match, index) => this.card(match, offset + index + 1));
    const held = document.activeElement?.closest?.('.card')?.dataset.study;
    if (offset === 0) this.grid.replaceChildren(...made.map(({ element }) => element));
    else this.grid.append(...made.map(({ element }) => element));
    this.cards.push(...made);
    this.fill(this.grid, last.more ? this.more : null);
    this.say();
    if (offset === 0) this.showExample();
    this.rove((again && this.grid.querySelector(`[data-study="${CSS.escape(this.given.focus ?? '')}"]`)) || this.grid.firstElementChild);
    // After like or unlike the next key is for the card that was in hand, wherever it is now.
    if (offset === 0 && held) (this.grid.querySelector(`[data-study="${CSS.escape(held)}"]`) ?? this.grid.firstElementChild).focus();
    if (again && this.given.focus) this.view.focus = () => this.chosen?.element.focus();
  }

  card(match, rank) {
    const name = this.feedbackName(match);
    return new Card(match, rank, {
      question: this.question,
      settings: this.settings,
      signal: this.signal,
      liked: this.question.like.some((one) => one.name === name),
      act: {
        compare: (card) => this.compare(card),
        like: (card) => this.learn('like', card),
        unlike: (card) => this.learn('unlike', card),
        similar: (card) => this.go({ view: 'similar', question: { example: { study: card.match.StudyInstanceUID } } }, { focus: card.match.StudyInstanceUID }),
      },
    });
  }

  say() {
    const { leftOut } = last;
    const shown = this.cards.length;
    const best = this.cards[0].match.similarity;
    let left = [];
    if (leftOut) {
      const show = button('Show them too', () => this.change({ ...this.question.filters, least: '-1' }), { class: 'quiet' });
      left = [`${leftOut.count} more left out, ${whyLeftOut(this.question, leftOut)}. `, show];
    }
    this.status.replaceChildren(`${count(shown, 'match', 'matches')}${last.more ? ', and more' : ''}, best first. `, ...left);
    announce(`${count(shown, 'match', 'matches')}, the best with similarity ${similarity(best)}`);
  }

  nothing() {
    const { leftOut } = last;
    const { filters } = this.question;
    const [title, why] = nothingFound(this.question, leftOut);
    const { least, ...others } = filters;
    const actions = [
      leftOut && least !== undefined ? button('Clear the floor', () => this.change(others)) : null,
      leftOut ? button(`Show ${leftOut.count === 1 ? 'it' : 'them'} anyway`, () => this.change({ ...filters, least: '-1' })) : null,
      isFiltered(filters) ? button('Clear filters', () => this.change({})) : null,
    ].filter(Boolean);
    this.status.textContent = '';
    this.fill(state('empty', title, why, ...actions));
    announce(`${title}. ${why}`);
  }

  fill(...elements) {
    this.content.setAttribute('aria-busy', 'false');
    this.content.replaceChildren(...elements.filter(Boolean));
  }

  /** Other filters: the form shows them, the service is asked anew. */
  change(filters, { typed = false } = {}) {
    this.question = { ...this.question, filters };
    this.remember({ question: this.question });
    if (typed) this.askSoon();
    else {
      this.showFilters();
      this.ask(0);
    }
  }

  /** One click of feedback; a second one on what is liked takes it back. */
  learn(kind, card) {
    const name = this.feedbackName(card.match);
    const label = `${card.match.StudyDescription || 'Study'} ${date(card.match.StudyDate)}`.trim();
    const had = this.question[kind].some((one) => one.name === name);
    const other = kind === 'like' ? 'unlike' : 'like';
    const without = (several) => several.filter((one) => one.name !== name);
    this.question = {
      ...this.question,
      [kind]: had ? without(this.question[kind]) : [...this.question[kind], { name, label }],
      [other]: without(this.question[other]),
    };
    this.learned(had ? 'Feedback taken back' : kind === 'like' ? 'More like this' : 'Fewer like this');
  }

  learned(words) {
    this.remember({ question: this.question });
    this.showFeedback();
    announce(words);
    this.ask(0);
  }

  /** A match as `like` takes it: the slice, where slices were compared, else the study. */
  feedbackName(match) {
    const [series] = match.series;
    if (!this.question.example.instance || !series?.slice) return match.StudyInstanceUID;
    const { SOPInstanceUID: instance, frame } = series.slice;
    return nameOf({ study: match.StudyInstanceUID, series: series.SeriesInstanceUID, instance, frame });
  }

  showFeedback() {
    const undo = (kind, one) => {
      this.question = { ...this.question, [kind]: this.question[kind].filter(({ name }) => name !== one.name) };
      this.learned('Feedback taken back');
    };
    this.feedback.replaceChildren(...feedback(this.question, undo));
    this.refined.textContent = isRefined(this.question) ? ', by similarity to the refined example' : '';
  }

  showExample() {
    if (!this.study) return;
    const open = () => this.go({ view: 'study', study: this.question.example.study });
    this.exampleBox.replaceChildren(...example(this.question, this.study, this.cards[0]?.pair, open));
  }

  showFilters() {
    const { study, question, settings } = this;
    const embedded = question.example.series ? [] : (study?.series ?? []).filter(({ state: how }) => how === 'embedded');
    const form = filterForm({
      filters: question.filters,
      sequences: [...new Set(embedded.map(({ sequence }) => sequence))],
      parts: settings.parts,
      usual: question.region ? {} : question.example.instance ? settings.unrelated_slices : settings.unrelated,
      changed: (filters) => this.change(filters, { typed: Object.keys(filters).length > 0 }),
    });
    this.filterBox.replaceChildren(this.filterBox.firstElementChild, form);
  }

  compare(card) {
    this.go({ view: 'compare', question: this.question, match: card.match, current: card.current }, { focus: card.match.StudyInstanceUID, question: this.question });
  }

  act(what) {
    if (this.chosen && what === 'compare') this.compare(this.chosen);
    else if (this.chosen) this.learn(what, this.chosen);
  }

  /** One card at a time is in the order of tabs. */
  rove(element) {
    this.chosen = this.cards.find((card) => card.element === element) ?? this.chosen;
    for (const { element: one } of this.cards) one.tabIndex = one === element ? 0 : -1;
  }

  key(event) {
    const cards = this.cards.map(({ element }) => element);
    const columns = cards.filter(({ offsetTop }) => offsetTop === cards[0].offsetTop).length;
    if (moveBetween(event, cards, columns) || event.key !== 'Enter') return;
    const here = cards.indexOf(document.activeElement);
    if (here < 0) return;
    this.compare(this.cards[here]);
    event.preventDefault();
  }
}

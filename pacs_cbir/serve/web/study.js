// One study: its sequences side by side.

import { again } from './api.js';
import { announce, away, button, count, date, el, later, person, state } from './dom.js';
import { conflictsOf, identity, rank, sequencesOf, seriesBadges, stateOf, studyOf, viewerUrl } from './facts.js';
import { labelsOf } from './labels.js';
import { indexOf, isPlaced, nearest, slicesOf } from './stack.js';
import { Viewport } from './viewport.js';

const FIRST = 8;
const AGAIN_MS = 5000;
// A browser takes only so many changes of the address in a row.
const NOTED_MS = 300;

export function studyView({ go, remember, state: given, settings, signal }) {
  const heading = el('h1', { tabindex: '-1' }, 'Study');
  const content = el('div', { class: 'study-content', 'aria-busy': 'true' }, el('p', { class: 'loading' }, 'Loading the study…'));
  const view = { title: 'Study', element: el('div', { class: 'study-view' }, heading, content), keys: {} };
  load();
  return view;

  async function load() {
    try {
      const study = await studyOf(given.study, signal, (problem) => fill(state('wait', problem.title, `${problem.detail} ${again(problem)}`)));
      if (study === null) fill(state('empty', 'The study is not here any more', 'It may have been deleted since it was listed.'));
      else new Shown(study, { go, remember, given, settings, signal, view, heading, fill });
    } catch (error) {
      if (error.name !== 'AbortError') fill(state('error', error.title ?? 'It went wrong', error.message, button('Try again', load)));
    }
  }

  function fill(...elements) {
    content.setAttribute('aria-busy', 'false');
    content.replaceChildren(...elements);
  }
}

class Shown {
  constructor(study, { go, remember, given, settings, signal, view, heading, fill }) {
    Object.assign(this, { study, go, settings, signal, linked: given.linked ?? true, restored: given.shown ?? {}, wanted: given.current });
    this.note = later(() => remember(this.now), NOTED_MS);
    heading.textContent = study.StudyDescription || 'Without description';
    const series = [...study.series].sort((one, two) => rank(one) - rank(two));
    this.viewports = [];
    this.grid = el('div', { class: 'viewports' });
    this.status = el('p', { class: 'about' });
    this.boxSearch = button('Find similar: box', () => this.searchBox(), { key: 'Enter', class: 'primary', hidden: true });
    this.boxDraw = button('Draw a box', () => this.startBox(), { key: 'b' });
    this.link = button('Link scrolling', () => this.toggleLink(), { key: 'l', 'aria-pressed': String(this.linked) });
    this.only = button('Enlarge', () => this.alone(), { key: 'z', 'aria-pressed': 'false' });
    window.addEventListener('pagehide', () => remember(this.now), { signal });
    this.viewer = away('Viewer', '#', { class: 'out' });
    this.about();
    fill(this.status, labelsOf(study.StudyInstanceUID, signal), this.tools(), this.grid);
    const first = series.findIndex(({ SeriesInstanceUID: uid }) => uid === given.current) < FIRST ? FIRST : series.length;
    this.add(series.slice(0, first));
    if (series.length > first) {
      const more = button(`Show ${series.length - first} more series`, () => { more.remove(); this.add(series.slice(first)); }, { class: 'more' });
      this.grid.after(more);
    }
    Object.assign(view.keys, {
      s: () => this.search({}),
      f: () => this.searchSlice(),
      b: () => this.startBox(),
      l: () => this.toggleLink(),
      v: () => this.viewer.click(),
      z: () => this.alone(),
    });
    if (given.alone) this.alone();
    this.current?.stage.focus();
    this.follow();
  }

  about() {
    const { study, settings } = this;
    const [kind, words] = stateOf(study);
    this.status.replaceChildren(
      ...[settings.show_identity ? identity(study) : null, date(study.StudyDate), person(study), count(study.NumberOfStudyRelatedInstances ?? 0, 'image')]
        .filter(Boolean)
        .map((text) => el('span', {}, text)),
      el('span', { class: 'sequences' }, sequencesOf(study)),
      el('span', { class: `status ${kind}` }, words),
      ...[conflictsOf(study)].filter(Boolean),
    );
  }

  tools() {
    return el(
      'div',
      { class: 'tools', role: 'group', 'aria-label': 'What to do with the study' },
      button('Find similar studies', () => this.search({}), { key: 's', class: 'primary' }),
      button('Find similar: slice', () => this.searchSlice(), { key: 'f' }),
      this.boxDraw,
      this.boxSearch,
      this.link,
      this.only,
      button('Reset window', () => this.viewports.forEach((viewport) => viewport.resetWindow()), { class: 'quiet' }),
      this.viewer,
      this.study.report ? away('Report', this.study.report, { class: 'out' }) : null,
    );
  }

  add(several) {
    for (const series of several) {
      const viewport = new Viewport({
        title: series.sequence ?? series.Modality ?? 'Series',
        note: series.SeriesDescription,
        badges: seriesBadges(series),
        on: {
          slice: (moved) => this.follows(moved),
          window: () => this.note(),
          drawn: () => this.offerBoxes(),
          box: (boxed) => this.boxed(boxed),
          boxing: () => this.viewports.some(({ box }) => box.active),
          search: () => this.searchBox(),
        },
      });
      viewport.series = series;
      viewport.stage.addEventListener('focus', () => this.choose(viewport));
      viewport.stage.addEventListener('keydown', (event) => this.sideways(event, viewport));
      this.viewports.push(viewport);
      this.grid.append(viewport.element);
      slicesOf(this.study.StudyInstanceUID, series.SeriesInstanceUID)
        .then((slices) => this.place(viewport, slices))
        .catch((error) => { viewport.message.textContent = error.message; });
    }
    const wanted = this.viewports.find(({ series }) => series.SeriesInstanceUID === this.wanted);
    if (!this.current && this.viewports.length) this.choose(wanted ?? this.viewports[0]);
  }

  /** Show a stack as it was left, else at the place of the sequence in hand where that was left, else at the middle. */
  place(viewport, slices) {
    const { instance, frame, window, region } = this.restored[viewport.series.SeriesInstanceUID] ?? {};
    const beside = this.restored[this.wanted]?.instance && this.linked ? this.current.slice : undefined;
    let index;
    if (instance) index = indexOf(slices, instance, frame);
    else if (beside && isPlaced(slices) && isPlaced(this.current.slices)) index = nearest(slices, beside.mm);
    viewport.show(slices, index, { window, region });
    if (viewport === this.current) {
      this.choose(viewport);
      if (instance) this.follows(viewport);
    }
  }

  /** What the reader has in hand, for the way back. */
  get now() {
    const left = ({ series, slice, window, box }) => [
      series.SeriesInstanceUID,
      slice
        ? { instance: slice.instance, frame: slice.frame, ...(window && { window }), ...(box.region && { region: box.region }) }
        : this.restored[series.SeriesInstanceUID],
    ];
    return {
      current: this.current?.series.SeriesInstanceUID,
      shown: Object.fromEntries(this.viewports.map(left)),
      linked: this.linked,
      alone: this.grid.classList.contains('one'),
    };
  }

  choose(viewport) {
    this.current = viewport;
    this.note();
    for (const one of this.viewports) one.element.classList.toggle('current', one === viewport);
    this.updateViewer();
    this.offerBoxes();
  }

  updateViewer() {
    const at = this.current?.slice ?? { study: this.study.StudyInstanceUID, series: this.current?.series.SeriesInstanceUID };
    this.viewer.href = viewerUrl(this.settings.viewer_url, at);
  }

  /** The other sequences go to the slice at the same place. */
  follows(moved) {
    if (moved === this.current) this.updateViewer();
    this.note();
    if (!this.linked || !isPlaced(moved.slices)) return;
    for (const other of this.viewports) {
      if (other !== moved && isPlaced(other.slices)) other.to(nearest(other.slices, moved.slice.mm), { told: false });
    }
  }

  sideways(event, viewport) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || event.defaultPrevented) return;
    event.preventDefault();
    const here = this.viewports.indexOf(viewport);
    this.viewports[Math.min(Math.max(here + step, 0), this.viewports.length - 1)].stage.focus();
  }

  toggleLink() {
    this.linked = !this.linked;
    this.note();
    this.link.setAttribute('aria-pressed', String(this.linked));
    announce(this.linked ? 'Sequences scroll together' : 'Sequences scroll alone');
  }

  /** The current sequence as large as can be, or all of them again. */
  alone() {
    const one = this.grid.classList.toggle('one');
    this.note();
    this.only.setAttribute('aria-pressed', String(one));
    this.current?.stage.focus();
    announce(one ? `${this.current.title} alone` : 'All sequences');
  }

  startBox() {
    if (this.boxDraw.disabled) return;
    for (const viewport of this.viewports) if (viewport !== this.current) viewport.box.clear();
    if (this.current?.bitmap) this.current.box.start();
  }

  /** A small picture has not the pixels that a box is embedded from. */
  offerBoxes() {
    this.boxDraw.disabled = Boolean(this.current?.reduced);
    this.boxSearch.hidden = !this.viewports.some((viewport) => viewport.box.given && !viewport.reduced);
  }

  boxed(viewport) {
    if (viewport.box.given) {
      this.choose(viewport);
      for (const other of this.viewports) if (other !== viewport && other.box.given) other.box.clear();
    }
    this.note();
    this.offerBoxes();
  }

  search(question) {
    const example = { study: this.study.StudyInstanceUID };
    this.go({ view: 'similar', question: { example, ...question } }, this.now);
  }

  searchSlice(region = null) {
    const slice = this.current?.slice;
    if (!slice) return;
    const { study, series, instance, frame } = slice;
    this.search({ example: { study, series, instance, frame }, ...(region ? { region } : {}) });
  }

  searchBox() {
    const boxed = this.viewports.find(({ box }) => box.given);
    if (!boxed || boxed.reduced) return;
    this.choose(boxed);
    this.searchSlice(boxed.box.region);
  }

  /** While series are being embedded, say how far it is. */
  async follow() {
    while (stateOf(this.study)[0] === 'waiting' && !this.signal.aborted) {
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      const found = await studyOf(this.study.StudyInstanceUID, this.signal).catch(() => null);
      if (found === null) return;
      this.study = found;
      this.about();
      for (const viewport of this.viewports) this.renew(viewport);
    }
  }

  renew(viewport) {
    const series = this.study.series.find((one) => one.SeriesInstanceUID === viewport.series.SeriesInstanceUID);
    if (!series || series.state === viewport.series.state) return;
    viewport.series = series;
    viewport.rename(series.sequence ?? series.Modality ?? 'Series', seriesBadges(series));
  }
}

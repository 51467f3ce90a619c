// A stack of slices on a canvas: scrolled, windowed and boxed by wheel, mouse, touch and keys.

import { announce, el, later } from './dom.js';
import { Box } from './box.js';
import { markFirst, picture } from './pictures.js';
import { moved, step, text } from './window.js';

const WHEEL_PIXELS = 40;
const SWIPE_PIXELS = 14;
const DRAG_WIDTHS_PER_PIXEL = 1 / 200;
const PAGE = 5;
const AHEAD = 2;
const SETTLED_MS = 250;
const SIDES = ['left', 'right', 'top', 'bottom'];
const SMALL = 'Small picture: no window, no box; the archive has the whole one';

/** `on.slice(viewport)` hears of another slice, `on.window(viewport)` of another window, `on.box(viewport)` of a box that was
 *  drawn or moved, `on.drawn(viewport)` of another picture, `on.search(viewport)` of Enter while there is one; `on.boxing()` says whether a pointer draws a box. */
export class Viewport {
  constructor({ title, note, badges = [], on = {} }) {
    Object.assign(this, { title, on, slices: [], index: 0, window: null, drawnWindow: null, wanted: 0 });
    this.canvas = el('canvas', { 'aria-hidden': 'true' });
    this.place = el('span', { class: 'place' });
    this.windowText = el('span', { class: 'window' });
    this.small = el('span', { class: 'reduced' });
    this.edges = SIDES.map((side) => el('span', { class: `edge ${side}` }));
    this.message = el('span', { class: 'message' });
    this.thumb = el('span', { class: 'thumb' });
    this.stage = el(
      'div',
      {
        class: 'stage',
        role: 'slider',
        tabindex: '0',
        'aria-orientation': 'vertical',
        'aria-valuemin': '1',
        'aria-valuemax': '1',
        'aria-valuenow': '1',
        on: { keydown: (event) => this.key(event), dblclick: () => this.resetWindow() },
      },
      this.canvas,
      el('span', { class: 'track', 'aria-hidden': 'true' }, this.thumb),
      this.place,
      this.windowText,
      this.edges,
      this.small,
      this.message,
    );
    this.box = new Box(this, () => on.box?.(this));
    this.heading = el('h2');
    this.element = el('section', { class: 'viewport' }, this.heading, this.stage);
    this.note = note;
    this.rename(title, badges);
    this.settle = later(() => this.settled(), SETTLED_MS);
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.stage);
  }

  rename(title, badges) {
    this.title = title;
    this.stage.setAttribute('aria-label', `${title}, slices`);
    this.element.setAttribute('aria-label', title);
    const note = this.note ? el('span', { class: 'note' }, this.note) : null;
    this.heading.replaceChildren(...[el('span', { class: 'name' }, title), note, ...badges].filter(Boolean));
  }

  /** Show a stack, at a slice, with a window and a box (`region`), which comes with the picture that it is of. */
  show(slices, index, { window = null, region = null } = {}) {
    Object.assign(this, { slices, window, boxToCome: region });
    this.stage.setAttribute('aria-valuemax', String(Math.max(1, slices.length)));
    if (slices.length === 0) this.message.textContent = 'No pictures in this series';
    else this.to(index ?? Math.floor(slices.length / 2), { told: false });
  }

  get slice() {
    return this.slices[this.index];
  }

  /** Go to a slice; `told: false` where a linked viewport moves this one. */
  to(index, { told = true } = {}) {
    if (this.slices.length === 0) return;
    this.index = Math.min(Math.max(index, 0), this.slices.length - 1);
    const { mm, edges } = this.slice;
    SIDES.forEach((side, index) => { this.edges[index].textContent = edges?.[side] ?? ''; });
    const place = `${this.index + 1}/${this.slices.length}`;
    this.place.textContent = mm === null ? place : `${place} · ${mm.toFixed(1)} mm`;
    this.stage.setAttribute('aria-valuenow', String(this.index + 1));
    this.stage.setAttribute('aria-valuetext', `slice ${this.index + 1} of ${this.slices.length}`);
    this.thumb.style.top = `${(this.index / Math.max(1, this.slices.length - 1)) * 90}%`;
    this.refresh();
    this.settle();
    if (told) this.on.slice?.(this);
  }

  setWindow(window) {
    this.window = window;
    this.windowText.textContent = text(window);
    this.refresh();
    this.on.window?.(this);
  }

  resetWindow() {
    this.setWindow(null);
    announce('Window as in the header');
  }

  /** Fetch and draw what is to be seen; of many changes while one is under way the last one. */
  async refresh() {
    this.wanted += 1;
    if (this.busy) return;
    this.busy = true;
    try {
      for (let shown = -1; shown !== this.wanted; ) {
        shown = this.wanted;
        await this.fetchAndDraw();
      }
    } finally {
      this.busy = false;
    }
  }

  async fetchAndDraw() {
    try {
      const { bitmap, window, reduced } = await picture(this.slice, { window: this.window, now: true });
      this.bitmap = bitmap;
      this.drawnWindow = window;
      this.reduced = reduced;
      this.small.textContent = reduced ? SMALL : '';
      this.windowText.textContent = text(window);
      this.message.textContent = '';
      if (this.boxToCome) this.box.put(this.boxToCome);
      this.boxToCome = null;
      this.draw();
      markFirst();
      this.stage.classList.add('drawn');
      this.on.drawn?.(this);
    } catch (error) {
      if (error.name === 'AbortError') return;
      this.bitmap = null;
      this.message.textContent = error.detail ?? error.message;
      this.draw();
    }
  }

  /** The neighbours, once the hand rests: scrolling on then needs no waiting. */
  settled() {
    if (!this.stage.isConnected) return;
    for (let far = AHEAD; far >= 1; far -= 1) {
      for (const index of [this.index - far, this.index + far]) {
        if (this.slices[index]) picture(this.slices[index], { window: this.window }).catch(() => {});
      }
    }
  }

  /** Where the slice lies on the stage, in CSS pixels, and how large one of its pixels is there; a small picture has fewer. */
  get frame() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    const columns = this.slice?.columns ?? this.bitmap?.width ?? 1;
    const rows = this.slice?.rows ?? this.bitmap?.height ?? 1;
    const aspect = this.slice?.aspect ?? 1;
    const scale = Math.min(width / columns, height / (rows * aspect));
    const size = { x: scale, y: scale * aspect };
    return { left: (width - columns * size.x) / 2, top: (height - rows * size.y) / 2, size, columns, rows };
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (width === 0 || height === 0) return;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const context = this.canvas.getContext('2d');
    if (this.bitmap) {
      const { left, top, size, columns, rows } = this.frame;
      context.scale(ratio, ratio);
      context.imageSmoothingQuality = 'high';
      context.drawImage(this.bitmap, left, top, columns * size.x, rows * size.y);
    }
    this.box.draw();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (this.box.active && this.box.key(event)) return;
    if (event.key === 'Enter' && this.box.given && !this.reduced) {
      event.preventDefault();
      this.on.search?.(this);
      return;
    }
    const last = this.slices.length - 1;
    const slice = {
      ArrowUp: this.index - 1,
      ArrowDown: this.index + 1,
      PageUp: this.index - PAGE,
      PageDown: this.index + PAGE,
      Home: 0,
      End: last,
    }[event.key];
    const change = step(event.key);
    if (slice !== undefined) this.to(slice);
    else if (change) this.changeWindow(...change);
    else if (event.key === '0') this.resetWindow();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  changeWindow(brighter, wider) {
    if (this.reduced) return announce(SMALL);
    const base = this.window ?? this.drawnWindow;
    if (base) this.setWindow(moved(base, brighter, wider));
  }

  listen() {
    const { stage } = this;
    let rolled = 0;
    stage.addEventListener(
      'wheel',
      (event) => {
        event.preventDefault();
        rolled += event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : event.deltaY * WHEEL_PIXELS;
        const steps = Math.trunc(rolled / WHEEL_PIXELS);
        rolled -= steps * WHEEL_PIXELS;
        if (steps) this.to(this.index + steps);
      },
      { passive: false },
    );
    const pointers = new Map();
    let swiped = 0;
    stage.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return;
      stage.focus({ preventScroll: true });
      stage.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, event);
      swiped = 0;
      if (!this.reduced && (this.on.boxing?.() || event.shiftKey)) this.box.begin(event);
    });
    stage.addEventListener('pointermove', (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const [right, down] = [event.clientX - before.clientX, event.clientY - before.clientY];
      pointers.set(event.pointerId, event);
      if (this.box.drawing) this.box.drag(event);
      else if (event.pointerType === 'touch' && pointers.size === 1) {
        swiped += down;
        const steps = Math.trunc(swiped / SWIPE_PIXELS);
        swiped -= steps * SWIPE_PIXELS;
        if (steps) this.to(this.index + steps);
      } else {
        this.changeWindow(-down * DRAG_WIDTHS_PER_PIXEL, right * DRAG_WIDTHS_PER_PIXEL * 2);
      }
    });
    for (const end of ['pointerup', 'pointercancel']) {
      stage.addEventListener(end, (event) => {
        pointers.delete(event.pointerId);
        if (this.box.drawing) this.box.end();
      });
    }
  }
}

// A box on a slice, in the slice's own pixels: drawn with the mouse or a finger, or moved and sized by keys.

import { announce, el, later } from './dom.js';

const SMALLEST = 4;
const FIRST_SHARE = 0.25;
const STEP_SHARE = 0.02;
const SAID_MS = 400;

/** `given` is {x0, y0, x1, y1} (columns and rows; x1 and y1 beyond the last) or null. */
export class Box {
  constructor(viewport, changed) {
    Object.assign(this, { viewport, changed, given: null, active: false, drawing: null });
    this.shape = el('span', { class: 'box', hidden: true });
    viewport.stage.append(this.shape);
    this.say = later(() => this.given && announce(`Box ${this.text}`), SAID_MS);
  }

  get text() {
    const { x0, y0, x1, y1 } = this.given;
    return `columns ${x0} to ${x1}, rows ${y0} to ${y1}`;
  }

  /** The `region` of a query. */
  get region() {
    return this.given ? [this.given.x0, this.given.y0, this.given.x1, this.given.y1].join(',') : null;
  }

  /** Let one be drawn; where there is none, put one in the middle, so that keys have something to move. */
  start() {
    const { columns, rows } = this.viewport.frame;
    this.active = true;
    this.viewport.stage.classList.add('boxing');
    if (!this.given) {
      const [width, height] = [columns * FIRST_SHARE, rows * FIRST_SHARE];
      this.set((columns - width) / 2, (rows - height) / 2, (columns + width) / 2, (rows + height) / 2);
    }
    this.viewport.stage.focus();
    announce('Box: arrow keys move it, with Shift they size it, Enter searches, Escape takes it away');
  }

  /** One that was drawn before, as `region` has it. */
  put(region) {
    this.active = true;
    this.viewport.stage.classList.add('boxing');
    this.set(...region.split(',').map(Number));
  }

  clear() {
    Object.assign(this, { given: null, active: false, drawing: null });
    this.viewport.stage.classList.remove('boxing');
    this.draw();
    this.changed();
  }

  set(left, top, right, bottom) {
    const { columns, rows } = this.viewport.frame;
    const clamp = (value, end) => Math.min(Math.max(Math.round(value), 0), end);
    const x0 = clamp(Math.min(left, right), columns - SMALLEST);
    const y0 = clamp(Math.min(top, bottom), rows - SMALLEST);
    const x1 = Math.max(clamp(Math.max(left, right), columns), x0 + SMALLEST);
    const y1 = Math.max(clamp(Math.max(top, bottom), rows), y0 + SMALLEST);
    this.given = { x0, y0, x1, y1 };
    this.draw();
    this.changed();
    this.say();
  }

  begin(event) {
    this.drawing = this.at(event);
  }

  drag(event) {
    const [x, y] = this.at(event);
    this.set(this.drawing[0], this.drawing[1], x, y);
  }

  end() {
    this.drawing = null;
    this.active = this.given !== null;
  }

  key(event) {
    const across = Math.max(1, Math.round(this.viewport.frame.columns * STEP_SHARE));
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (direction && this.given) this.move(direction[0] * across, direction[1] * across, event.shiftKey);
    else if (event.key === 'Escape') this.clear();
    else return false;
    event.preventDefault();
    event.stopPropagation();
    return true;
  }

  move(right, down, sized) {
    const { x0, y0, x1, y1 } = this.given;
    const { columns, rows } = this.viewport.frame;
    if (sized) {
      this.set(x0, y0, Math.max(x1 + right, x0 + SMALLEST), Math.max(y1 + down, y0 + SMALLEST));
      return;
    }
    const dx = Math.min(Math.max(right, -x0), columns - x1);
    const dy = Math.min(Math.max(down, -y0), rows - y1);
    this.set(x0 + dx, y0 + dy, x1 + dx, y1 + dy);
  }

  /** A pointer's place in the slice's pixels. */
  at(event) {
    const { left, top, size } = this.viewport.frame;
    const stage = this.viewport.stage.getBoundingClientRect();
    return [(event.clientX - stage.left - left) / size.x, (event.clientY - stage.top - top) / size.y];
  }

  draw() {
    this.shape.hidden = this.given === null;
    if (this.given === null) return;
    const { left, top, size } = this.viewport.frame;
    const { x0, y0, x1, y1 } = this.given;
    Object.assign(this.shape.style, {
      left: `${left + x0 * size.x}px`,
      top: `${top + y0 * size.y}px`,
      width: `${(x1 - x0) * size.x}px`,
      height: `${(y1 - y0) * size.y}px`,
    });
  }
}

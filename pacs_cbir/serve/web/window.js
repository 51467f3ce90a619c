// Windowing (PS3.3 C.11.2): which values are black and which white.

const STEP = 0.1;
const NARROWEST = 1e-6;

/** Moved by shares of the width: `brighter` lowers the centre, `wider` is less contrast. */
export function moved(window, brighter, wider) {
  return {
    centre: round(window.centre - brighter * window.width),
    width: Math.max(round(window.width * 2 ** wider), NARROWEST),
  };
}

/** What a key does to the window: [brighter, wider], or null. */
export function step(key) {
  return { '+': [STEP, 0], '=': [STEP, 0], '-': [-STEP, 0], '[': [0, -STEP * 2], ']': [0, STEP * 2] }[key] ?? null;
}

/** As it is shown. */
export function text(window) {
  return window ? `C ${short(window.centre)} W ${short(window.width)}` : '';
}

function short(value) {
  return String(Number(value.toPrecision(4)));
}

function round(value) {
  return Number(value.toPrecision(7));
}

// Rendered frames: fetched a few at a time, those that someone waits for first, and kept while there is room.

import { request } from './api.js';

const AT_ONCE = 4;
const ROOM_BYTES = 256 * 2 ** 20;

const kept = new Map();
const waiting = [];
let under_way = 0;
let bytes = 0;
let drawn = false;

/** A frame's picture: {bitmap, window, reduced}, reduced where its pixel data is no longer here. `viewport` is [width,
 *  height]; `window` {centre, width} of rescaled values; `now`: someone scrolls and looks at it, so that it goes before
 *  all that were asked for earlier. */
export function picture({ study, series, instance, frame }, { window, viewport, now = false } = {}) {
  const path = `/dicom-web/studies/${study}/series/${series}/instances/${instance}`;
  const query = new URLSearchParams();
  if (viewport) query.set('viewport', viewport.join(','));
  if (window) query.set('window', `${window.centre},${window.width},linear-exact`);
  return fetched(`${path}${frame ? `/frames/${frame}` : ''}/rendered?${query}`, 'image/jpeg', now);
}

/** A picture at a URL, through the same queue. */
export function fetched(url, accept, now = false) {
  const entry = kept.get(url) ?? { size: 0 };
  kept.delete(url);
  kept.set(url, entry);
  if (entry.promised) return entry.promised;
  entry.promised = new Promise((resolve, reject) => {
    const one = { url, accept, resolve, reject };
    if (now) waiting.push(one);
    else waiting.unshift(one);
  });
  entry.promised.then(
    ({ bitmap }) => keep(entry, bitmap.width * bitmap.height * 4),
    () => kept.delete(url),
  );
  next();
  return entry.promised;
}

/** Ask no longer for what was not begun yet: the page shows something else. */
export function forget() {
  for (const { reject } of waiting.splice(0)) reject(new DOMException('left', 'AbortError'));
}

/** Draw into a canvas of its own size. Resolves once it is drawn; rejects where `signal` says that it is wanted no longer. */
export async function drawInto(canvas, promised, signal) {
  const { bitmap } = await promised;
  signal?.throwIfAborted();
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext('2d').drawImage(bitmap, 0, 0);
  markFirst();
  canvas.classList.add('drawn');
}

/** Note when the page's first picture was there. */
export function markFirst() {
  if (!drawn) performance.mark('first-picture');
  drawn = true;
}

function next() {
  while (under_way < AT_ONCE && waiting.length > 0) {
    const { url, accept, resolve, reject } = waiting.pop();
    under_way += 1;
    load(url, accept)
      .then(resolve, reject)
      .finally(() => {
        under_way -= 1;
        next();
      });
  }
}

async function load(url, accept) {
  const answer = await request(url, { accept });
  const said = (answer.headers.get('PACS-CBIR-Window') ?? '').split(',');
  const bitmap = await createImageBitmap(await answer.blob());
  const reduced = answer.headers.has('Warning');
  return { bitmap, reduced, window: said.length === 3 ? { centre: Number(said[0]), width: Number(said[1]) } : null };
}

function keep(entry, size) {
  entry.size = size;
  bytes += size;
  for (const [url, old] of kept) {
    if (bytes <= ROOM_BYTES) return;
    if (old === entry || old.size === 0) continue;
    kept.delete(url);
    bytes -= old.size;
  }
}

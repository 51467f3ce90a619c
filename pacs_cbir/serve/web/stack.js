// The slices of a series in space.

import { list } from './api.js';
import { edgesOf } from './orientation.js';

const FIELDS = 'ImagePositionPatient,ImageOrientationPatient,PixelSpacing';
const TAGS = { instance: '00080018', number: '00200013', frames: '00280008', rows: '00280010', columns: '00280011', position: '00200032' };
const ORIENTATION = '00200037';
const SPACING = '00280030';
const SAME_MM = 0.01;

/** A series' slices, in the order in which they are looked at: {study, series, instance, frame, mm, aspect, rows,
 *  columns, edges}. `mm` is the place along the slices' normal, and `edges` the letters at the edges, null where the headers do
 *  not say. */
export async function slicesOf(study, series) {
  const { results } = await list(
    `/dicom-web/studies/${study}/series/${series}/instances`,
    new URLSearchParams({ includefield: FIELDS }),
    { accept: 'application/dicom+json' },
  );
  const slices = results.flatMap((result) => framesOf(study, series, result));
  const places = new Set(slices.map(({ mm }) => mm));
  // Several pictures at one place are several stacks, or a time course: they are looked at as they were taken.
  const inSpace = !places.has(null) && places.size === slices.length;
  return slices.sort((one, two) => (inSpace ? one.mm - two.mm : 0) || one.number - two.number || one.frame - two.frame);
}

function framesOf(study, series, result) {
  const values = (tag) => result[tag]?.Value ?? [];
  const several = values(TAGS.frames)[0] ?? 1;
  const [down = 1, right = 1] = values(SPACING);
  const base = {
    study,
    series,
    instance: values(TAGS.instance)[0],
    number: values(TAGS.number)[0] ?? 0,
    mm: several > 1 ? null : along(values(TAGS.position), values(ORIENTATION)),
    aspect: down / right || 1,
    rows: values(TAGS.rows)[0],
    columns: values(TAGS.columns)[0],
    edges: edgesOf(values(ORIENTATION)),
  };
  return Array.from({ length: several }, (_, index) => ({ ...base, frame: index + 1 }));
}

/** How far along the normal a picture lies (PS3.3 C.7.6.2.1.1), counted towards head, back or left. */
function along(position, orientation) {
  if (position.length !== 3 || orientation.length !== 6) return null;
  const [a, b, c, d, e, f] = orientation.map(Number);
  const normal = [b * f - c * e, c * d - a * f, a * e - b * d];
  const largest = normal.reduce((best, value, axis) => (Math.abs(value) > Math.abs(normal[best]) ? axis : best), 0);
  const sign = Math.sign(normal[largest]) || 1;
  const mm = sign * position.reduce((sum, value, axis) => sum + value * normal[axis], 0);
  return Number.isFinite(mm) ? Math.round(mm / SAME_MM) * SAME_MM : null;
}

/** Where an instance and frame are among the slices; the middle where they are not. */
export function indexOf(slices, instance, frame) {
  const exact = slices.findIndex((slice) => slice.instance === instance && slice.frame === (frame ?? slice.frame));
  if (exact >= 0) return exact;
  const near = slices.findIndex((slice) => slice.instance === instance);
  return near >= 0 ? near : Math.floor(slices.length / 2);
}

/** The slice nearest to a place in mm. */
export function nearest(slices, mm) {
  let best = 0;
  slices.forEach((slice, index) => {
    if (Math.abs(slice.mm - mm) < Math.abs(slices[best].mm - mm)) best = index;
  });
  return best;
}

/** Whether places along the normal are known. */
export function isPlaced(slices) {
  return slices.length > 0 && slices.every(({ mm }) => mm !== null);
}

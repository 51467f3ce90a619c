// What was asked: the example, and the answers that were found right and wrong.

import { button, date, el, person } from './dom.js';
import { shownSeries } from './facts.js';
import { drawInto, picture } from './pictures.js';
import { indexOf, slicesOf } from './stack.js';

const SIZE = [256, 256];

/** The example's picture and words: the slice in question, of a whole study the one that the best match is like.
 *  `pair` is that match's, where there is one; `open` shows the study. */
export function example({ example: asked, region }, study, pair, open) {
  const frame = asked.instance ? asked : (pair?.example ?? asked);
  const series = study.series.find(({ SeriesInstanceUID: uid }) => uid === frame.series) ?? shownSeries(study);
  const canvas = el('canvas', { 'aria-hidden': 'true', width: SIZE[0], height: SIZE[1] });
  if (series) {
    const shown = { ...frame, series: series.SeriesInstanceUID, instance: frame.instance ?? series.picture };
    drawInto(canvas, picture(shown, region ? {} : { viewport: SIZE }))
      .then(() => region && outline(canvas, region, shown))
      .catch(() => {});
  }
  return [
    el('h2', {}, 'Example'),
    el('button', { type: 'button', class: 'picture', 'aria-label': 'Open the example', on: { click: open } }, canvas),
    el('p', {}, study.StudyDescription || 'Without description'),
    el('p', { class: 'who' }, [person(study), date(study.StudyDate), series?.sequence].filter(Boolean).join(' · ')),
  ];
}

/** A box is in the slice's own pixels, of which a small picture has fewer. */
async function outline(canvas, region, { study, series, instance, frame }) {
  const slices = await slicesOf(study, series);
  const { columns = canvas.width, rows = canvas.height } = slices[indexOf(slices, instance, frame)] ?? {};
  const [x0, y0, x1, y1] = region.split(',').map(Number);
  const context = canvas.getContext('2d');
  context.strokeStyle = '#ffd166';
  context.lineWidth = Math.max(1, canvas.width / 128);
  const [across, down] = [canvas.width / columns, canvas.height / rows];
  context.strokeRect(x0 * across, y0 * down, (x1 - x0) * across, (y1 - y0) * down);
}

/** What was liked and unliked; `undo(kind, one)` takes one back. */
export function feedback(question, undo) {
  const chips = (kind, title) => {
    const items = question[kind].map((one) =>
      el('li', {}, one.label, button('✕', () => undo(kind, one), { class: 'quiet', 'aria-label': `Take back ${one.label}` })),
    );
    return items.length ? [el('h2', {}, title), el('ul', { class: `chips ${kind}` }, items)] : [];
  };
  return [...chips('like', 'More like'), ...chips('unlike', 'Fewer like')];
}

// What is said where answers were left out, or none came.

import { count } from './dom.js';
import { isFiltered } from './filters.js';
import { similarity } from './match.js';

/** Why some were left out. */
export function whyLeftOut({ filters }, leftOut) {
  return filters.least !== undefined ? 'below your floor' : `no more alike than unrelated patients (${gap(leftOut)})`;
}

/** What it is that nothing was found, and what to do: [title, words]. */
export function nothingFound({ filters, region, example: asked }, leftOut) {
  const own = filters.least !== undefined;
  const filtered = isFiltered(filters);
  const compared = leftOut && `${count(leftOut.count, 'study was', 'studies were')} compared.`;
  const other = region ? 'a larger box or the whole slice' : asked.instance ? 'another slice or the whole study' : 'one slice, or a box on it';
  if (leftOut && own) {
    return [`No study reaches your floor of ${filters.least}`, `${compared} The most similar reaches ${similarity(leftOut.best)}. Lower the floor, or clear it.`];
  }
  if (leftOut) {
    const wider = filtered ? ', make the filters wider' : '';
    return ['Nothing is similar enough', `${compared} ${capital(gap(leftOut))}: no more like the example than unrelated patients are. Ask by ${other}${wider}, or look at them all the same.`];
  }
  if (filtered) return ['No study passes the filters', 'Make one of them wider, or clear them.'];
  return ['There is nothing to compare with', 'No other patient has an embedded study of these sequences yet.'];
}

/** How far what was left out is from the floor. */
function gap({ best, least }) {
  // Two digits tell most apart, and three those that two do not.
  const digits = best.toFixed(2) === least.toFixed(2) ? 3 : 2;
  return `the most similar reaches ${best.toFixed(digits)}, and ${least.toFixed(digits)} counts`;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

// What of a view stands in the address, behind the #, which no request carries: UIDs and numbers, so that a reload and a
// copied link show the same again. What a reader types stands in the history's state alone, since it may name a patient.

import { nameOf } from './api.js';

const UID = /^(?=.{1,64}$)\d+(\.\d+)*$/;
const BOX = /^\d{1,5}(,\d{1,5}){3}$/;
// What the service draws.
const LARGEST = 1e12;
const WINDOW = /^-?[\d.e+-]{1,24},[\d.e+-]{1,24}$/;

/** The address of a view: of a study with the series in hand, its slice, window and box; of what is like an example. */
export function addressOf({ view, study, current, shown, question }) {
  if (view === 'study') {
    const at = shown?.[current] ?? {};
    return written('study', { study, series: current, ...at, window: at.window && `${at.window.centre},${at.window.width}` });
  }
  // A comparison is reached from the answers that it is one of.
  if (question) return written('similar', { example: nameOf(question.example), region: question.region });
  return './';
}

/** The view that an address names; null where it names none, or not in our words. */
export function viewAt(hash) {
  const [view, query = ''] = hash.replace(/^#/, '').split('?');
  const given = Object.fromEntries(new URLSearchParams(query));
  const region = BOX.test(given.region) ? given.region : undefined;
  if (view === 'study' && UID.test(given.study)) {
    const at = { instance: uid(given.instance), frame: number(given.frame), window: windowOf(given.window), region };
    return { view, study: given.study, current: uid(given.series), shown: { [given.series]: at } };
  }
  const [study, series, instance, frame] = (given.example ?? '').split('/');
  if (view !== 'similar' || ![study, series, instance].every((part) => part === undefined || UID.test(part))) return null;
  return { view, question: { example: { study, series, instance, frame: number(frame) }, ...(region && instance ? { region } : {}) } };
}

function written(view, values) {
  const kept = Object.entries(values).filter(([, value]) => value !== undefined && value !== null);
  // Slashes and commas may stand in a fragment as they are (RFC 3986 3.5).
  return `./#${view}?${kept.map(([name, value]) => `${name}=${value}`).join('&')}`;
}

function uid(text) {
  return UID.test(text ?? '') ? text : undefined;
}

function number(text) {
  return /^[1-9]\d{0,9}$/.test(text ?? '') ? Number(text) : undefined;
}

function windowOf(text) {
  if (!WINDOW.test(text ?? '')) return undefined;
  const [centre, width] = text.split(',').map(Number);
  return Math.abs(centre) <= LARGEST && width > 0 && width <= LARGEST ? { centre, width } : undefined;
}

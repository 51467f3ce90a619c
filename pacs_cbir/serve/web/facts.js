// What the service says of one study and its series, and what of that is told wherever they are shown.

import { list, patiently } from './api.js';
import { count, el } from './dom.js';

const SEQUENCES = ['T1', 'T1CE', 'T2', 'FLAIR'];
const DOMAIN_FIRST = ['FLAIR', 'T1CE', 'T2', 'T1'];

/** A study as the list has it; null where it is not here. */
export async function studyOf(uid, signal, waits = () => {}) {
  const query = new URLSearchParams({ StudyInstanceUID: uid });
  const { results } = await patiently(() => list('/studies', query, { signal }), waits, signal);
  return results[0] ?? null;
}

/** How far the embedding of a study is: [class, words]. */
export function stateOf(study) {
  const number = (state) => study.series.filter((series) => series.state === state).length;
  const [embedded, waiting, parked] = ['embedded', 'waiting', 'parked'].map(number);
  if (waiting) return ['waiting', `embedding, ${embedded} of ${embedded + waiting} series ready`];
  if (parked) return ['parked', `${count(parked, 'series', 'series')} failed`];
  if (!embedded) return ['none', 'nothing to search by'];
  return ['ready', 'ready'];
}

/** Badges of a study's sequences, each once. */
export function sequencesOf(study) {
  const names = study.series.filter(({ state }) => state === 'embedded').map(({ sequence }) => sequence);
  return [...new Set(names)].map((name) => el('span', { class: 'sequence' }, name));
}

/** The series that stands for a study. */
export function shownSeries(study) {
  const place = (name) => (DOMAIN_FIRST.includes(name) ? DOMAIN_FIRST.indexOf(name) : DOMAIN_FIRST.length);
  const order = (series) => [series.state !== 'embedded', !series.in_domain, place(series.sequence), -series.instances];
  return [...study.series].sort((one, two) => {
    const [a, b] = [order(one), order(two)];
    const differing = a.findIndex((value, index) => value !== b[index]);
    return differing < 0 ? 0 : a[differing] - b[differing];
  })[0];
}

/** A warning where the study's instances say what cannot all be true. */
export function conflictsOf(study) {
  const told = study.conflicts?.join(', ');
  return told ? el('span', { class: 'badge warn', title: `Its instances contradict each other: ${told}. The archive's admin can correct it.` }, told) : null;
}

/** Name, ID and accession number, where the site shows them. */
export function identity(study) {
  return [study.PatientName, study.PatientID, study.AccessionNumber].filter(Boolean).join(' · ') || '–';
}

/** Badges of a series' state. */
export function seriesBadges(series) {
  const badges = [];
  if (series.state === 'embedded' && series.in_domain === false) {
    badges.push(el('span', { class: 'badge warn', title: 'The encoder was not trained for such series: compared among themselves, with less to go by.' }, 'outside domain'));
  }
  if (series.state === 'waiting') badges.push(el('span', { class: 'badge wait' }, 'embedding…'));
  if (series.state === 'parked') badges.push(el('span', { class: 'badge error', title: series.reason }, 'failed'));
  if (series.state === 'not embedded') badges.push(el('span', { class: 'badge quiet', title: series.reason }, 'not searchable'));
  return badges;
}

/** The order in which a study's series are shown: a number, the first one's the least. */
export function rank(series) {
  const place = SEQUENCES.indexOf(series.sequence);
  const states = { embedded: 0, waiting: 100, 'not embedded': 200, parked: 200 };
  return states[series.state] + (series.in_domain === false ? 50 : 0) + (place < 0 ? SEQUENCES.length : place);
}

/** The viewer's URL at a picture, by the site's template. */
export function viewerUrl(template, { study, series, instance }) {
  const names = { StudyInstanceUID: study, SeriesInstanceUID: series, SOPInstanceUID: instance };
  return template.replace(/\{(\w+)\}/g, (whole, name) => (name in names ? encodeURIComponent(names[name] ?? '') : whole));
}

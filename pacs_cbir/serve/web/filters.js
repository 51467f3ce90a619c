// What of the answers is wanted: the filters of a query by example, and what counts in it.

import { button, el, field as labelled } from './dom.js';
import { YEARS, ages, range, wildcard } from './search.js';

const LONGEST = 64;
const HALF = 0.5;
const SCALE = 'From −1 (opposite) over 0 (nothing in common) to 1 (the same picture); no probability.';

/** A question as the service takes it. */
export function parametersOf({ example, region, like = [], unlike = [], filters = {} }, limit, offset) {
  const query = new URLSearchParams({ example, limit: String(limit), offset: String(offset) });
  const put = (name, value) => value && query.set(name, value);
  put('region', region);
  for (const { name } of like) query.append('like', name);
  for (const { name } of unlike) query.append('unlike', name);
  put('sequence', filters.sequences?.join(','));
  put('PatientSex', filters.sex);
  put('PatientAge', ages(filters.youngest, filters.oldest));
  put('StudyDate', range(filters.from?.replaceAll('-', ''), filters.to?.replaceAll('-', '')));
  put('StudyDescription', wildcard(filters.description));
  put('label', filters.label?.trim());
  put('min_similarity', filters.least);
  put('parts', filters.parts && Object.entries(filters.parts).map(([part, weight]) => `${part}:${weight}`).join(','));
  if (filters.description) query.set('fuzzymatching', 'true');
  if (filters.own) query.set('own_patient', 'true');
  return query;
}

/** Whether anything is filtered, the floor aside. */
export function isFiltered({ least, parts, ...others }) {
  return Object.values(others).some((value) => (Array.isArray(value) ? value.length > 0 : Boolean(value)));
}

/** The form. `filters` are those in force; `changed` hears of others.
 *  `sequences` are the example's, `parts` the encoder's: part → its share,
 *  `usual` the similarity that unrelated patients usually reach: sequence → cosine. */
export function filterForm({ filters, sequences, parts, usual, changed }) {
  const field = (name, label, type, extra = {}) =>
    labelled(name, label, type, { value: filters[name] ?? '', maxlength: LONGEST, ...extra });
  const floor = field('least', 'Floor: similarity of at least', 'number', { min: -1, max: 1, step: 'any', placeholder: 'as calibrated', wrong: 'From −1 to 1', 'aria-describedby': 'floor-words least-wrong' });
  const box = (name, label, checked, extra = {}) =>
    el('label', { class: 'check' }, el('input', { type: 'checkbox', name, checked, ...extra }), label);
  const group = (legend, ...fields) => el('fieldset', {}, el('legend', {}, legend), fields);
  const pair = (...fields) => el('div', { class: 'pair' }, fields);
  const sexes = [['', 'Any'], ['F', 'F'], ['M', 'M'], ['O', 'O']];
  const form = el(
    'form',
    { class: 'filters', 'aria-label': 'Filters' },
    sequences.length > 1
      ? group('Sequences', el('div', { class: 'checks' }, sequences.map((name) => box('sequence', name, filters.sequences?.includes(name) ?? true, { value: name }))))
      : null,
    group(
      'Patients',
      el('label', {}, 'Sex', el('select', { name: 'sex' }, sexes.map(([value, text]) => el('option', { value }, text)))),
      pair(field('youngest', 'Age from (years)', 'number', YEARS), field('oldest', 'to (years)', 'number', { ...YEARS, 'aria-label': 'Age to (years)' })),
      box('own', "The example's own patient too", Boolean(filters.own)),
    ),
    group(
      'Studies',
      field('from', 'Study date from', 'date'),
      field('to', 'Study date to', 'date'),
      field('description', 'Description', 'search', { placeholder: 'any part; * and ?' }),
      field('label', 'Label', 'search'),
    ),
    group('Similarity', floor, el('p', { id: 'floor-words', class: 'who' }, SCALE, ' ', floorWords(usual))),
    Object.keys(parts).length > 1
      ? group('What counts (weights, 0 to 1)', Object.entries(parts).map(([part, share]) => slider(part, filters.parts?.[part] ?? share)))
      : null,
    button('Clear filters', () => changed({}), { class: 'quiet' }),
  );
  form.elements.sex.value = filters.sex ?? '';
  form.addEventListener('submit', (event) => event.preventDefault());
  form.addEventListener('input', () => form.checkValidity() && changed(read(form, sequences, parts)));
  return form;
}

/** What an empty floor means. */
function floorWords(usual) {
  const values = Object.entries(usual).sort().map(([sequence, value]) => `${sequence} ${value.toFixed(2)}`);
  if (values.length === 0) return 'Empty: no floor.';
  return `Empty: what unrelated patients usually reach (${values.join(', ')}), and no floor after feedback or with other weights.`;
}

function slider(part, weight) {
  const shown = el('output', {}, weight.toFixed(2));
  const input = el('input', { type: 'range', name: `part-${part}`, min: 0, max: 1, step: 0.01, 'aria-label': `What ${part} counts` });
  input.value = String(weight);
  input.addEventListener('input', () => { shown.textContent = Number(input.value).toFixed(2); });
  return el('label', { class: 'part' }, part, input, shown);
}

function read(form, sequences, parts) {
  const { elements } = form;
  const found = {};
  for (const name of ['sex', 'youngest', 'oldest', 'from', 'to', 'description', 'label', 'least']) {
    if (elements[name]?.value) found[name] = elements[name].value;
  }
  if (elements.own.checked) found.own = true;
  const ticked = [...form.querySelectorAll('[name=sequence]:checked')].map(({ value }) => value);
  if (ticked.length && ticked.length < sequences.length) found.sequences = ticked;
  const weights = Object.entries(parts).map(([part, share]) => [part, Number(elements[`part-${part}`]?.value ?? share), share]);
  const moved = weights.some(([, weight, share]) => Math.abs(weight - share) > HALF / 100);
  if (moved && weights.some(([, weight]) => weight > 0)) {
    found.parts = Object.fromEntries(weights.map(([part, weight]) => [part, weight.toFixed(2)]).map(([part, weight]) => [part, Number(weight)]));
  }
  return found;
}

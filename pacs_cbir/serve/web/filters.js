// What of the answers is wanted: the filters of a query by example, and what counts in it.

import { button, el } from './dom.js';
import { ages, range, wildcard } from './search.js';

const LONGEST = 64;
const HALF = 0.5;

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
 *  `sequences` are the example's, `parts` the encoder's: part → its share. */
export function filterForm({ filters, sequences, parts, changed }) {
  const field = (name, label, type, extra = {}) =>
    el('label', {}, label, el('input', { type, name, value: filters[name] ?? '', maxlength: LONGEST, autocomplete: 'off', ...extra }));
  const box = (name, label, checked, extra = {}) =>
    el('label', { class: 'check' }, el('input', { type: 'checkbox', name, checked, ...extra }), label);
  const group = (legend, ...fields) => el('fieldset', {}, el('legend', {}, legend), fields);
  const pair = (...fields) => el('div', { class: 'pair' }, fields);
  const sexes = [['', 'Any'], ['F', 'F'], ['M', 'M'], ['O', 'O']];
  const form = el(
    'form',
    { class: 'filters', 'aria-label': 'Filters' },
    sequences.length > 1
      ? group('Sequences', sequences.map((name) => box('sequence', name, filters.sequences?.includes(name) ?? true, { value: name })))
      : null,
    group(
      'Patients',
      el('label', {}, 'Sex', el('select', { name: 'sex' }, sexes.map(([value, text]) => el('option', { value }, text)))),
      pair(field('youngest', 'Age from', 'number', { min: 0, max: 120 }), field('oldest', 'Age to', 'number', { min: 0, max: 120 })),
      box('own', "The example's own patient too", Boolean(filters.own)),
    ),
    group(
      'Studies',
      field('from', 'From', 'date'),
      field('to', 'To', 'date'),
      field('description', 'Description', 'search', { placeholder: 'any part; * and ?' }),
      field('label', 'Label', 'search'),
    ),
    group('Similarity', field('least', 'At least', 'number', { min: -1, max: 1, step: 'any', placeholder: 'as calibrated' })),
    Object.keys(parts).length > 1
      ? group('What counts', Object.entries(parts).map(([part, share]) => slider(part, filters.parts?.[part] ?? share)))
      : null,
    button('Clear filters', () => changed({}), { class: 'quiet' }),
  );
  form.elements.sex.value = filters.sex ?? '';
  form.addEventListener('submit', (event) => event.preventDefault());
  form.addEventListener('input', () => form.checkValidity() && changed(read(form, sequences, parts)));
  return form;
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

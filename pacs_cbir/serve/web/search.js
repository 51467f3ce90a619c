// The search form over the list, and the words of matching keys.

import { el, field as labelled } from './dom.js';

const LONGEST = 64;
/** What ages may be asked for. */
export const YEARS = { min: 0, max: 120, wrong: 'From 0 to 120 years' };

/** What of a search is asked: a list of parameters. */
export function parametersOf(search, { limit, order, after }) {
  const query = new URLSearchParams({ limit: String(limit), order });
  const put = (name, value) => value && query.set(name, value);
  put('after', after);
  put('StudyDescription', wildcard(search.description));
  put('StudyDate', range(search.from?.replaceAll('-', ''), search.to?.replaceAll('-', '')));
  put('PatientSex', search.sex);
  put('PatientAge', ages(search.youngest, search.oldest));
  put('PatientName', wildcard(search.name));
  put('PatientID', search.id?.trim());
  if (search.description || search.name) query.set('fuzzymatching', 'true');
  return query;
}

/** Text → a wildcard that finds it anywhere; one that has wildcards stays as it is. */
export function wildcard(text) {
  const trimmed = (text ?? '').trim();
  return trimmed && (/[*?]/.test(trimmed) ? trimmed : `*${trimmed}*`);
}

/** The two ends of a range matching key; either may be open. */
export function range(from, to) {
  return from || to ? `${from ?? ''}-${to ?? ''}` : '';
}

/** Years → a range of PatientAge. */
export function ages(youngest, oldest) {
  const years = (value) => (value ? `${String(Math.min(Number(value), 999)).padStart(3, '0')}Y` : '');
  return range(years(youngest), years(oldest));
}

/** The form; `search` holds its values, `remembered` hears of each change, `changed` asks anew. */
export function searchForm(search, settings, remembered, changed) {
  const field = (name, label, type = 'text', extra = {}) =>
    labelled(name, label, type, { value: search[name] ?? '', maxlength: LONGEST, spellcheck: 'false', ...extra });
  const sexes = [['', 'Any'], ['F', 'F'], ['M', 'M'], ['O', 'O']];
  const form = el(
    'form',
    { class: 'search', role: 'search', 'aria-label': 'Search studies' },
    field('description', 'Description', 'search', { placeholder: 'any part; * and ? as wildcards', 'aria-keyshortcuts': '/' }),
    settings.show_identity ? [field('name', 'Name'), field('id', 'Patient ID')] : [],
    field('from', 'Study date from', 'date'),
    field('to', 'Study date to', 'date'),
    el('label', {}, 'Sex', el('select', { name: 'sex' }, sexes.map(([value, text]) => el('option', { value }, text)))),
    field('youngest', 'Age from (years)', 'number', YEARS),
    field('oldest', 'Age to (years)', 'number', YEARS),
    el('button', { type: 'reset', class: 'quiet' }, 'Clear'),
  );
  form.elements.sex.value = search.sex ?? '';
  const read = () => {
    if (!form.checkValidity()) return;
    for (const input of form.elements) if (input.name) search[input.name] = input.value;
    remembered();
    changed();
  };
  form.addEventListener('input', read);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    read();
  });
  form.addEventListener('reset', () => setTimeout(() => {
    for (const input of form.elements) {
      if (input.name) input.value = '';
    }
    for (const words of form.querySelectorAll('.problem')) words.textContent = '';
    read();
  }));
  return form;
}

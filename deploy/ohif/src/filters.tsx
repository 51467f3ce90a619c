// What of the answers is wanted.

import { useEffect, useRef } from 'react';
import type { Filters } from './api';

const TYPED_MS = 400;
const SEQUENCES = ['T1', 'T1CE', 'T2', 'FLAIR'];
const TEXTS = ['least', 'modality', 'sex', 'youngest', 'oldest', 'from', 'to'] as const;

interface Properties {
  filters: Filters;
  /** Whether sequences can be chosen: a slice is of one alone. */
  bySequence: boolean;
  changed(filters: Filters): void;
}

export function FilterForm({ filters, bySequence, changed }: Properties) {
  const typing = useRef<ReturnType<typeof setTimeout>>();
  useEffect(() => () => clearTimeout(typing.current), []);
  const read = (form: HTMLFormElement) => {
    clearTimeout(typing.current);
    typing.current = setTimeout(() => form.checkValidity() && changed(filtersOf(form)), TYPED_MS);
  };
  return (
    <form
      aria-label="Filters"
      onInput={(event) => read(event.currentTarget)}
      onSubmit={(event) => event.preventDefault()}
      onReset={() => changed({})}
    >
      {bySequence && (
        <fieldset>
          <legend>Sequences</legend>
          {SEQUENCES.map((name) => (
            <label key={name}>
              <input type="checkbox" name="sequence" value={name} defaultChecked={filters.sequences?.includes(name) ?? true} />
              {name}
            </label>
          ))}
        </fieldset>
      )}
      <Field name="least" label="Similarity of at least" type="number" min={-1} max={1} step="any" placeholder="as calibrated" filters={filters} />
      <Field name="modality" label="Study has modality" type="text" maxLength={16} pattern="[A-Za-z]*" placeholder="any, or CT" filters={filters} />
      <label>
        Sex
        <select name="sex" defaultValue={filters.sex ?? ''}>
          <option value="">Any</option>
          <option>F</option>
          <option>M</option>
          <option>O</option>
        </select>
      </label>
      <Field name="youngest" label="Age from" type="number" min={0} max={120} filters={filters} />
      <Field name="oldest" label="Age to" type="number" min={0} max={120} filters={filters} />
      <Field name="from" label="Study date from" type="date" filters={filters} />
      <Field name="to" label="Study date to" type="date" filters={filters} />
      <button type="reset">Clear filters</button>
    </form>
  );
}

interface FieldProperties extends React.InputHTMLAttributes<HTMLInputElement> {
  name: (typeof TEXTS)[number];
  label: string;
  filters: Filters;
}

function Field({ label, filters, ...input }: FieldProperties) {
  return (
    <label>
      {label}
      <input {...input} defaultValue={filters[input.name] ?? ''} />
    </label>
  );
}

function filtersOf(form: HTMLFormElement): Filters {
  const given = new FormData(form);
  const found: Filters = {};
  for (const name of TEXTS) {
    const value = given.get(name);
    if (typeof value === 'string' && value) found[name] = value;
  }
  const ticked = given.getAll('sequence').map(String);
  if (ticked.length > 0 && ticked.length < SEQUENCES.length) found.sequences = ticked;
  return found;
}

// What a person has said of a study: shown, added and taken away.

import { request } from './api.js';
import { announce, button, el } from './dom.js';

const CHANGED = 'Somebody else changed the labels meanwhile: these are there now. Do it again, if it is still wanted.';

/** The labels of a study and a field for another; empty where the service keeps none. */
export function labelsOf(study, signal) {
  const path = `/studies/${study}/labels`;
  const shown = el('ul', { class: 'chips', 'aria-label': 'Labels' });
  const field = el('input', { type: 'text', name: 'label', maxlength: 64, placeholder: 'add a label', 'aria-label': 'Add a label', autocomplete: 'off' });
  const error = el('span', { class: 'problem', role: 'alert' });
  const form = el('form', { class: 'labels', hidden: true }, el('span', {}, 'Labels'), shown, field, el('button', {}, 'Add'), error);
  let labels = [];
  let etag = '';

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const added = field.value.trim();
    if (added) keep([...labels, added]);
  });
  read();
  return form;

  async function read() {
    try {
      await put(await request(path, { signal }));
    } catch {
      form.remove();
    }
  }

  async function keep(wanted) {
    try {
      const answer = await request(path, {
        method: 'PUT',
        body: JSON.stringify(wanted),
        headers: { 'Content-Type': 'application/json', 'If-Match': etag },
        signal,
      });
      await put(answer);
      field.value = '';
      error.textContent = '';
      field.focus();
      announce(`Labels: ${labels.join(', ') || 'none'}`);
    } catch (problem) {
      if (problem.name === 'AbortError') return;
      error.textContent = problem.status === 412 ? CHANGED : problem.message;
      if (problem.status === 412) await read();
    }
  }

  async function put(answer) {
    labels = await answer.json();
    etag = answer.headers.get('ETag');
    form.hidden = false;
    shown.replaceChildren(
      ...labels.map((label) =>
        el('li', {}, label, button('✕', () => keep(labels.filter((one) => one !== label)), { class: 'quiet', 'aria-label': `Take away ${label}` })),
      ),
    );
  }
}

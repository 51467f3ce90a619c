// Elements made of text and attributes. Nothing here, and so nothing on the page, reads text as markup.

/** An element. Properties: `on` (event → listener), `class`, and attributes; null, undefined and false are left out. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'on') {
      for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    } else if (name === 'value' || name === 'checked') {
      made[name] = value;
    } else {
      made.setAttribute(name, value === true ? '' : value);
    }
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** An input with its label, and a place for what is wrong with what stands in it. */
export function field(name, label, type, { wrong, ...properties } = {}) {
  const words = el('span', { class: 'problem', role: 'alert', id: `${name}-wrong` });
  const pattern = ['text', 'search'].includes(type) ? '[^\\\\]*' : null;
  const input = el('input', { type, name, pattern, autocomplete: 'off', 'aria-describedby': words.id, ...properties });
  const check = () => { words.textContent = input.validity.valid ? '' : (wrong ?? (pattern ? 'A backslash cannot be searched for' : 'This is no date')); };
  input.addEventListener('input', check);
  return el('div', { class: 'field' }, el('label', {}, label, input), words);
}

/** A plain button; `key` is the shortcut that it shows. */
export function button(text, act, { key, ...properties } = {}) {
  return el(
    'button',
    { type: 'button', 'aria-keyshortcuts': key, ...properties, on: { click: act } },
    text,
    key ? el('kbd', { 'aria-hidden': 'true' }, key) : null,
  );
}

/** A link that leaves the page, which learns nothing of where it came from. */
export function away(text, url, properties = {}) {
  return el('a', { href: url, target: '_blank', rel: 'noopener noreferrer', ...properties }, text, ' ↗');
}

/** A designed state in the place of content: what happened, and what to do. */
export function state(kind, title, text, ...actions) {
  return el(
    'div',
    { class: `state ${kind}` },
    el('h2', {}, title),
    text ? el('p', {}, text) : null,
    actions.length ? el('div', { class: 'actions' }, actions) : null,
  );
}

/** Have a screen reader say it. */
export function announce(text) {
  document.getElementById('live').textContent = text;
}

/** Call at most once in `ms`, with the last arguments. */
export function later(call, ms) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...given), ms);
  };
}

/** 20240131 → 2024-01-31; what is no date stays as it is. */
export function date(text) {
  const found = /^(\d{4})\.?(\d{2})\.?(\d{2})$/.exec(text ?? '');
  return found ? `${found[1]}-${found[2]}-${found[3]}` : (text ?? '');
}

/** 045Y → 45 y. */
export function age(text) {
  const found = /^0*(\d+)([DWMY])$/.exec(text ?? '');
  return found ? `${found[1]} ${{ D: 'd', W: 'wk', M: 'mo', Y: 'y' }[found[2]]}` : (text ?? '');
}

/** F, 45 y. */
export function person(study) {
  return [study.PatientSex, age(study.PatientAge)].filter(Boolean).join(', ') || '–';
}

/** Keys go from one to another of what stands in so many columns; whether this one did. */
export function moveBetween(event, several, columns = 1) {
  const across = columns > 1 ? { ArrowRight: 1, ArrowLeft: -1 } : {};
  const page = 5 * columns;
  const step = { ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page, Home: -several.length, End: several.length, ...across }[event.key];
  const here = several.indexOf(document.activeElement);
  if (!step || here < 0) return false;
  event.preventDefault();
  several[Math.min(Math.max(here + step, 0), several.length - 1)].focus();
  return true;
}

/** 3 studies, 1 study. */
export function count(number, one, several = `${one}s`) {
  return `${number} ${number === 1 ? one : several}`;
}

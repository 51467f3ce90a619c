// The keys, and the switch that turns single ones off (WCAG 2.1.4).

import { button, el } from './dom.js';

const STORED = 'pacs-cbir-single-keys';
const KEYS = [
  ['Everywhere', [['?', 'this help'], ['/', 'search or filters'], ['Esc', 'back'], ['Tab', 'the next control']]],
  ['List', [['↑ ↓, Home End, Page Up Page Down', 'from study to study'], ['Enter', 'open']]],
  ['Slices', [
    ['↑ ↓', 'slice by slice; wheel or swipe too'],
    ['PageUp PageDown', 'five slices'],
    ['Home End', 'first and last slice'],
    ['← →', 'the sequence beside it'],
    ['+ −', 'brighter, darker'],
    ['[ ]', 'more, less contrast; or drag'],
    ['0', 'window of the header; or double-click'],
    ['l', 'link or unlink scrolling'],
    ['z', 'this sequence alone, or all'],
  ]],
  ['Find similar', [
    ['s', 'to the study'],
    ['f', 'to the slice in view'],
    ['b', 'draw a box: arrow keys move it, Shift and arrow keys size it; Shift and drag draws one'],
    ['Enter', 'search from the box'],
  ]],
  ['Matches', [['← → ↑ ↓, Home End, Page Up Page Down', 'from match to match'], ['Enter or c', 'compare'], ['l', 'like'], ['u', 'unlike'], ['h', 'heat map']]],
  ['Comparison', [['1 – 9', 'the sequence'], ['r', 'back to the matching slices'], ['n p', 'next, previous match'], ['h', 'heat map'], ['l', 'link or unlink scrolling'], ['v', 'open the viewer']]],
];

/** Whether letters act by themselves. */
export function singleKeys() {
  return localStorage.getItem(STORED) !== 'off';
}

/** Show the help. */
export function showHelp(version) {
  const close = button('Close', () => dialog.close(), { class: 'primary' });
  const single = el('input', { type: 'checkbox', checked: singleKeys(), on: { change: () => localStorage.setItem(STORED, single.checked ? 'on' : 'off') } });
  const dialog = el('dialog', { class: 'help', 'aria-labelledby': 'help-title' },
    el('h2', { id: 'help-title' }, 'Keys'),
    el('div', { class: 'key-lists' }, KEYS.map(([title, keys]) =>
      el('section', {}, el('h3', {}, title), el('dl', {}, keys.map(([key, words]) => [el('dt', {}, el('kbd', {}, key)), el('dd', {}, words)]))))),
    el('label', { class: 'check' }, single, 'Letters and signs act by themselves'),
    el('p', {}, 'The address of a study leads others to its sequence, slice, window and box; that of answers holds the example alone: filters, likes and the floor stay here.'),
    el('p', {}, 'pacs-cbir ', version, ' is for research and teaching, and not a medical device. Similarity is of appearance, and no probability of a diagnosis.'),
    close,
  );
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  close.focus();
}

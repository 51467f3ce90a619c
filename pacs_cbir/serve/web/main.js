// Which view is shown. Where one is stands in the history's state, never in the address, which names no study.

import { Problem, patiently, request } from './api.js';
import { compareView } from './compare.js';
import { announce, button, el, state } from './dom.js';
import { showHelp, singleKeys } from './help.js';
import { forget } from './pictures.js';
import { similarView } from './similar.js';
import { studiesView } from './studies.js';
import { studyView } from './study.js';

const VIEWS = { studies: studiesView, study: studyView, similar: similarView, compare: compareView };
const NAMES = { studies: 'Studies', study: 'Study', similar: 'Similar', compare: 'Compare' };
const START = { view: 'studies', trail: [] };

const content = document.getElementById('content');
const trail = document.getElementById('trail');
let settings = null;
let shown = null;
let leaving = new AbortController();

/** Show another view, and have Back lead to this one; `left` is added to what this one remembers. */
function go(next, left = {}) {
  remember(left);
  const here = history.state ?? START;
  history.pushState({ ...next, trail: [...here.trail, here.view] }, '', '/');
  show();
}

/** Show another view in the place of this one. */
function replace(next) {
  history.replaceState({ ...next, trail: (history.state ?? START).trail }, '', '/');
  show();
}

/** What a view is to find again after Back or a reload. */
function remember(values) {
  history.replaceState({ ...(history.state ?? START), ...values }, '', '/');
}

function show() {
  leaving.abort();
  leaving = new AbortController();
  forget();
  const now = history.state ?? START;
  shown = (VIEWS[now.view] ?? studiesView)({ go, replace, remember, state: now, settings, signal: leaving.signal });
  document.title = `${shown.title} · pacs-cbir`;
  showTrail(now);
  content.replaceChildren(shown.element);
  window.scrollTo(0, 0);
  shown.focus?.();
  const focused = content.contains(document.activeElement) && document.activeElement !== content;
  if (!focused && !now.focus) content.querySelector('h1')?.focus({ preventScroll: true });
}

function showTrail({ trail: before, view }) {
  const steps = before.map((name, index) =>
    el('li', {}, button(NAMES[name], () => history.go(index - before.length), { class: 'quiet' })),
  );
  trail.replaceChildren(el('ol', {}, steps, el('li', { 'aria-current': 'page' }, NAMES[view])));
}

function back() {
  if ((history.state ?? START).trail.length > 0) history.back();
}

function key(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector('dialog[open]')) return;
  const typing = event.target.matches('input:not([type=checkbox], [type=range]), select, textarea');
  if (event.key === 'Escape') {
    if (typing) content.querySelector('h1')?.focus();
    else back();
    return;
  }
  if (typing || !singleKeys()) return;
  const act = event.key === '?' ? () => showHelp(settings?.version ?? '') : shown?.keys?.[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

async function start() {
  try {
    settings = await patiently(
      async () => (await request('/page-settings')).json(),
      (problem) => content.replaceChildren(state('wait', problem.title, problem.message)),
    );
  } catch (error) {
    const problem = error instanceof Problem ? error : { title: 'It went wrong', message: String(error) };
    content.replaceChildren(state('error', problem.title, problem.message, button('Try again', start)));
    announce(problem.title);
    return;
  }
  show();
}

document.addEventListener('keydown', key);
document.getElementById('help').addEventListener('click', () => showHelp(settings?.version ?? ''));
document.getElementById('home').addEventListener('click', () => {
  history.pushState(START, '', '/');
  show();
});
window.addEventListener('popstate', show);
start();

// Which view is shown. Where one is stands in the history's state, and in the address what a link needs.

import { addressOf, viewAt } from './address.js';
import { Problem, again, patiently, request } from './api.js';
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
  const entry = { ...next, trail: [...here().trail, here().view] };
  history.pushState(entry, '', addressOf(entry));
  show();
}

/** Show another view in the place of this one. */
function replace(next) {
  put({ ...next, trail: here().trail });
  show();
}

/** What a view is to find again after Back or a reload. */
function remember(values) {
  put({ ...here(), ...values });
}

function put(entry) {
  history.replaceState(entry, '', addressOf(entry));
}

/** Where one is: by the history, by a link that was followed, or at the start. */
function here() {
  return history.state ?? { ...START, ...viewAt(location.hash) };
}

function show() {
  leaving.abort();
  leaving = new AbortController();
  forget();
  const now = here();
  const { signal } = leaving;
  // A view that was left has nothing to say of the one that is there now.
  const noted = (values) => signal.aborted || remember(values);
  put(now);
  shown = (VIEWS[now.view] ?? studiesView)({ go, replace, back, remember: noted, state: now, settings, signal });
  document.title = `${shown.title} · pacs-cbir`;
  showTrail(now);
  content.replaceChildren(shown.element);
  window.scrollTo(0, 0);
  shown.focus?.();
  const focused = content.contains(document.activeElement) && document.activeElement !== content;
  if (!focused && !now.focus) content.querySelector('h1')?.focus({ preventScroll: true });
}

function showTrail({ trail: before, view }) {
  const step = (name, act) => el('li', {}, button(NAMES[name], act, { class: 'quiet' }));
  const steps = before.map((name, index) => step(name, () => history.go(index - before.length)));
  if (before.length === 0 && view !== START.view) steps.push(step(START.view, home));
  trail.replaceChildren(el('ol', {}, steps, el('li', { 'aria-current': 'page' }, NAMES[view])));
}

function back() {
  if (here().trail.length > 0) history.back();
  else if (here().view !== START.view) home();
}

function home() {
  history.pushState(START, '', addressOf(START));
  show();
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
      (problem) => content.replaceChildren(state('wait', problem.title, `${problem.message} ${again(problem)}`)),
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
document.querySelector('.skip').addEventListener('click', (event) => {
  // Its address would be another entry of the history, and a view.
  event.preventDefault();
  content.focus();
});
document.getElementById('help').addEventListener('click', () => showHelp(settings?.version ?? ''));
document.getElementById('home').addEventListener('click', home);
window.addEventListener('popstate', show);
start();

// One question at a time, and its answers: what the panel shows, and what survives the panel's being closed.

import { pairOf, Problem, Service, nameOf, type Filters, type Match, type MatchedSeries, type Name, type Question } from './api';
import { shownIn, type Shown } from './example';
import { DEFAULT_URL, PANEL, URL_CUSTOMIZATION } from './ids';
import type { Ohif } from './ohif';
import { openBeside } from './open';

const PAGE = 10;

export type Scope = 'slice' | 'study';
export type Feedback = 'like' | 'unlike';

export interface State {
  /** What was shown when it was asked; null before the first question. */
  shown: Shown | null;
  scope: Scope;
  question: Question | null;
  matches: Match[];
  leftOut: number;
  more: boolean;
  /** What is waited for, in words. */
  busy: string;
  problem: Problem | null;
  /** The study that is open beside the example. */
  open: string | null;
}

const NOTHING: State = {
  shown: null,
  scope: 'slice',
  question: null,
  matches: [],
  leftOut: 0,
  more: false,
  busy: '',
  problem: null,
  open: null,
};

export class Session {
  readonly service: Service;
  private state = NOTHING;
  private readonly listeners = new Set<() => void>();
  private asking = new AbortController();
  private opening = new AbortController();
  private asOf: string | null = null;

  constructor(private readonly ohif: Ohif) {
    const { customizationService, userAuthenticationService } = ohif.servicesManager.services;
    const url = customizationService.getCustomization(URL_CUSTOMIZATION);
    this.service = new Service(
      typeof url === 'string' ? url : DEFAULT_URL,
      () => userAuthenticationService.getAuthorizationHeader() ?? {},
    );
  }

  readonly get = (): State => this.state;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  /** Ask about what the active viewport shows. Filters stay, likes and unlikes were about another example. */
  find(scope: Scope = this.state.scope): void {
    const filters = this.state.question?.filters ?? {};
    try {
      const shown = shownIn(this.ohif);
      this.set({ shown, scope, open: null });
      this.ask({ ...exampleOf(shown, scope), like: [], unlike: [], filters });
    } catch (error) {
      this.set({ problem: problemOf(error), busy: '' });
    }
    this.ohif.servicesManager.services.panelService.activatePanel(PANEL, true);
  }

  /** The same question by the slice or by the whole study. */
  rescope(scope: Scope): void {
    const { shown, question } = this.state;
    this.set({ scope });
    if (shown && question) this.ask({ ...exampleOf(shown, scope), like: [], unlike: [], filters: question.filters });
  }

  filter(filters: Filters): void {
    const { question } = this.state;
    if (question) this.ask({ ...question, filters });
  }

  /** One click of feedback; a second one on what is liked takes it back. */
  learn(kind: Feedback, match: Match): void {
    const { question } = this.state;
    if (!question) return;
    const name = feedbackName(question, match);
    const other = kind === 'like' ? 'unlike' : 'like';
    const without = (names: string[]) => names.filter((one) => one !== name);
    const had = question[kind].includes(name);
    const learned = had ? without(question[kind]) : [...question[kind], name];
    this.ask({ ...question, [kind]: learned, [other]: without(question[other]) });
  }

  forgetFeedback(): void {
    const { question } = this.state;
    if (question) this.ask({ ...question, like: [], unlike: [] });
  }

  more(): void {
    const { question, matches } = this.state;
    if (question) void this.answer(question, matches);
  }

  /** Open a match beside the example, at the slices of one sequence that are alike. */
  async open(match: Match, series: MatchedSeries): Promise<void> {
    const { question, shown } = this.state;
    const pair = question && pairOf(question, match, series);
    if (!pair || !shown) return;
    this.opening.abort();
    this.opening = new AbortController();
    const { signal } = this.opening;
    this.set({ open: match.StudyInstanceUID });
    try {
      await openBeside(this.ohif, pair, shown.viewportId, signal);
    } catch (error) {
      if (signal.aborted) return;
      const { title, message } = problemOf(error);
      this.ohif.servicesManager.services.uiNotificationService.show({ title, message, type: 'error' });
      this.set({ open: null });
    }
  }

  private ask(question: Question): void {
    this.set({ question });
    void this.answer(question, []);
  }

  private async answer(question: Question, before: Match[]): Promise<void> {
    this.asking.abort();
    this.asking = new AbortController();
    const { signal } = this.asking;
    this.set({ busy: 'Looking for similar studies…', problem: null });
    const page = { limit: PAGE + 1, offset: before.length, asOf: before.length ? this.asOf : null };
    const waits = (why: Problem) => this.set({ busy: `${why.title}: ${why.message}` });
    try {
      const { matches, leftOut, asOf } = await this.service.similar(question, page, waits, signal);
      this.asOf = asOf;
      this.set({
        matches: [...before, ...matches.slice(0, PAGE)],
        more: matches.length > PAGE,
        leftOut,
        busy: '',
      });
    } catch (error) {
      if (!signal.aborted) this.set({ problem: problemOf(error), busy: '', matches: [], more: false, leftOut: 0 });
    }
  }

  private set(changed: Partial<State>): void {
    this.state = { ...this.state, ...changed };
    for (const listener of this.listeners) listener();
  }
}

/** The example of a question: a slice with its rectangle, or the study that it belongs to. */
function exampleOf({ frame, region }: Shown, scope: Scope): { example: Name; region?: string } {
  return scope === 'study' ? { example: { study: frame.study } } : { example: frame, ...(region ? { region } : {}) };
}

/** A match as `like` takes it: the slice, where slices were compared, else the study. */
export function feedbackName(question: Question, match: Match): string {
  const [series] = match.series;
  const pair = series && question.example.instance ? pairOf(question, match, series) : null;
  return pair ? nameOf(pair.found) : match.StudyInstanceUID;
}

function problemOf(error: unknown): Problem {
  return error instanceof Problem ? error : new Problem('It went wrong', String(error));
}

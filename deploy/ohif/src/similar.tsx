// The panel's content: the example, the filters, and the ranked answers.

import { useSyncExternalStore } from 'react';
import { nameOf } from './api';
import { FilterForm } from './filters';
import { MatchCard } from './match';
import { Picture } from './picture';
import type { Scope, Session, State } from './session';

const EXAMPLE_EDGE = 96;

export function Similar({ session }: { session: Session }) {
  const state = useSyncExternalStore(session.subscribe, session.get);
  return (
    <>
      <Example session={session} state={state} />
      {state.question && (
        <details>
          <summary>Filters{Object.keys(state.question.filters).length > 0 ? ' (in force)' : ''}</summary>
          <FilterForm filters={state.question.filters} bySequence={state.scope === 'study'} changed={(filters) => session.filter(filters)} />
        </details>
      )}
      <Feedback session={session} state={state} />
      <p className="status" role="status">{words(state)}</p>
      {state.problem && (
        <div className="problem" role="alert">
          <strong>{state.problem.title}</strong>
          <p>{state.problem.message}</p>
        </div>
      )}
      <Answers session={session} state={state} />
      <p className="quiet">
        {state.question
          ? 'Similarity is of appearance, and no probability of a diagnosis.'
          : 'Looks for the slice in the active viewport, or for the last rectangle that was drawn on it.'}
      </p>
    </>
  );
}

function Example({ session, state: { shown, scope, question } }: { session: Session; state: State }) {
  const scopes: [Scope, string][] = [
    ['slice', shown?.region ? 'Rectangle' : 'Slice'],
    ['study', 'Whole study'],
  ];
  return (
    <section className="example" aria-label="Example">
      {shown && question && (
        <div className="picture">
          <Picture of={nameOf(shown.frame)} alt="The example's slice" load={(signal) => session.service.picture(shown.frame, EXAMPLE_EDGE, signal)} />
        </div>
      )}
      <div>
        <div role="group" aria-label="What to look for" className="scopes">
          {scopes.map(([name, label]) => (
            <button key={name} type="button" aria-pressed={scope === name} onClick={() => session.rescope(name)}>{label}</button>
          ))}
        </div>
        <button type="button" className="primary" title="To the slice in the active viewport, or to the last rectangle drawn on it" onClick={() => session.find()}>Find similar studies</button>
      </div>
    </section>
  );
}

function Feedback({ session, state: { question } }: { session: Session; state: State }) {
  const [liked, unliked] = [question?.like.length ?? 0, question?.unlike.length ?? 0];
  if (liked + unliked === 0) return null;
  return (
    <p className="feedback">
      Refined by {liked} liked, {unliked} unliked
      <button type="button" onClick={() => session.forgetFeedback()}>Take back</button>
    </p>
  );
}

function Answers({ session, state: { question, matches, more, busy, open } }: { session: Session; state: State }) {
  if (!question || matches.length === 0) return null;
  return (
    <>
      <ol className="matches" aria-label="Matches" aria-busy={busy !== ''}>
        {matches.map((match, index) => (
          <MatchCard key={match.StudyInstanceUID} session={session} question={question} match={match} rank={index + 1} isOpen={match.StudyInstanceUID === open} />
        ))}
      </ol>
      {more && <button type="button" onClick={() => session.more()}>Show more</button>}
    </>
  );
}

function words({ question, matches, leftOut, busy, problem, more, shown }: State): string {
  if (busy) return busy;
  if (problem || !question) return '';
  const left = leftOut ? ` ${leftOut} left out as not similar enough; “Similarity of at least” −1 shows them.` : '';
  if (matches.length === 0) return `Nothing is similar${shown?.region ? ' to the rectangle' : ''}.${left}`;
  return `${matches.length}${more ? ' and more' : ''}, best first.${left}`;
}

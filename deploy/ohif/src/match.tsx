// One study that looks like the example.

import { useState } from 'react';
import { pairOf, type Match, type MatchedSeries, type Question } from './api';
import { Picture } from './picture';
import { feedbackName, type Session } from './session';

const EDGE = 160;
const DAYS_A_YEAR = 365.25;
const DAYS_A_MONTH = 30.44;

interface Properties {
  session: Session;
  question: Question;
  match: Match;
  rank: number;
  isOpen: boolean;
}

export function MatchCard({ session, question, match, rank, isOpen }: Properties) {
  const [current, setCurrent] = useState(0);
  const [hot, setHot] = useState(false);
  const series = match.series[current];
  const name = feedbackName(question, match);
  const title = match.StudyDescription || 'Without description';
  const show = (index: number) => {
    setCurrent(index);
    const chosen = match.series[index];
    if (chosen) void session.open(match, chosen);
  };
  return (
    <li className={isOpen ? 'match open' : 'match'} aria-label={`Match ${rank}, similarity ${digits(match.similarity)}`} data-study={match.StudyInstanceUID}>
      <button type="button" className="picture" title="Open beside the example" aria-label={`Open match ${rank} beside the example`} onClick={() => show(current)}>
        {series && <Slices {...{ session, question, match, series, hot, rank }} />}
      </button>
      <div className="facts">
        <p className="score">
          <strong>{digits(match.similarity)}</strong>
          {!question.example.series && <span className="quiet" title="Share of the example's sequences that were compared like with like">{Math.round(match.coverage * 100)} %</span>}
          {match.notes?.includes('outside-encoder-domain') && <span className="warn" title="The encoder was not trained for such pictures.">outside domain</span>}
        </p>
        <p className="title">{`${rank}. ${title}`}</p>
        <p className="quiet">{[match.PatientSex, age(match.PatientAge), date(match.StudyDate), interval(match.days)].filter(Boolean).join(' · ')}</p>
        {match.labels?.map((label) => <span key={label} className="label">{label}</span>)}
      </div>
      <Bars series={match.series} current={current} show={show} />
      <div className="actions">
        <button type="button" aria-pressed={question.like.includes(name)} title="More like this one" onClick={() => session.learn('like', match)}>Like</button>
        <button type="button" aria-pressed={question.unlike.includes(name)} title="Not this one, and fewer such" onClick={() => session.learn('unlike', match)}>Unlike</button>
        <button type="button" aria-pressed={hot} title="Where the two slices are alike, the example left" onClick={() => setHot(!hot)}>Heat map</button>
      </div>
    </li>
  );
}

/** The matching slice, or both slices under their heat maps. */
function Slices({ session, question, match, series, hot, rank }: Omit<Properties, 'isOpen'> & { series: MatchedSeries; hot: boolean }) {
  const pair = pairOf(question, match, series);
  if (!pair) return <span className="missing">No slice is known yet</span>;
  const of = `${series.SeriesInstanceUID} ${pair.found.instance} ${pair.found.frame}`;
  if (!hot) {
    return <Picture of={of} alt={`Slice of match ${rank}`} load={(signal) => session.service.picture(pair.found, EDGE, signal)} />;
  }
  const asked = `${pair.example.instance} ${pair.example.frame} ${question.region ?? ''}`;
  return <Picture of={`${of} heat ${asked}`} alt={`Heat maps of the example and of match ${rank}`} load={(signal) => session.service.heat(question, pair, signal)} />;
}

/** Similarity by sequence; a click opens that sequence's slices. */
function Bars({ series, current, show }: { series: MatchedSeries[]; current: number; show(index: number): void }) {
  return (
    <ul className="bars" aria-label="Similarity by sequence">
      {series.map(({ sequence, similarity, SeriesInstanceUID }, index) => (
        <li key={SeriesInstanceUID}>
          <button type="button" aria-pressed={index === current} aria-label={`${sequence}, similarity ${digits(similarity)}, open`} onClick={() => show(index)}>
            <span>{sequence}</span>
            <span className="meter"><span style={{ width: `${Math.max(0, similarity) * 100}%` }} /></span>
            <span>{digits(similarity)}</span>
          </button>
        </li>
      ))}
    </ul>
  );
}

/** 0.934 → 0.93; never rounded up to 1. */
function digits(similarity: number): string {
  return (Math.floor(similarity * 100) / 100).toFixed(2);
}

function age(given = ''): string {
  return given.replace(/^0+(\d+)Y$/, '$1 y');
}

function date(given = ''): string {
  return given.replace(/^(\d{4})(\d\d)(\d\d)$/, '$1-$2-$3');
}

/** The time between the example's study and a match's. */
function interval(days?: number): string {
  if (days === undefined) return '';
  if (days === 0) return 'same day';
  const far = Math.abs(days);
  const [number, unit] = far < 60 ? [far, 'day'] : far < 2 * DAYS_A_YEAR ? [far / DAYS_A_MONTH, 'month'] : [far / DAYS_A_YEAR, 'year'];
  const whole = Math.round(number);
  return `${whole} ${unit}${whole === 1 ? '' : 's'} ${days < 0 ? 'earlier' : 'later'}`;
}

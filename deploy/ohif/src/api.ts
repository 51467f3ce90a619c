// What pacs-cbir is asked, and what it answers.

const SEVERAL_SECONDS = 30;

/** A frame by its UIDs, as far as it is named: a study alone, or down to one frame, counted from 1. */
export interface Name {
  study: string;
  series?: string;
  instance?: string;
  frame?: number;
}

export interface Filters {
  sequences?: string[];
  least?: string;
  modality?: string;
  sex?: string;
  youngest?: string;
  oldest?: string;
  from?: string;
  to?: string;
}

export interface Question {
  example: Name;
  /** A box in the example's frame, `x0,y0,x1,y1`; its instance must be named. */
  region?: string;
  /** Answers that were right and wrong, named as an example is. */
  like: string[];
  unlike: string[];
  filters: Filters;
}

interface Slice {
  SOPInstanceUID: string;
  frame: number;
}

/** A series that was compared. `like` is the example's series. */
export interface MatchedSeries {
  SeriesInstanceUID: string;
  sequence: string;
  similarity: number;
  like: string;
  slice?: Slice & { similarity: number; like: Slice };
}

export interface Match {
  StudyInstanceUID: string;
  StudyDate?: string;
  StudyDescription?: string;
  PatientSex?: string;
  PatientAge?: string;
  similarity: number;
  coverage: number;
  notes?: string[];
  days?: number;
  labels?: string[];
  series: MatchedSeries[];
}

export interface Answer {
  matches: Match[];
  /** How many were left out as no more alike than unrelated patients, or as below the floor. */
  leftOut: number;
  asOf: string | null;
}

/** What kept the service from answering, in its own words where it had any. */
export class Problem extends Error {
  constructor(
    readonly title: string,
    detail: string,
    /** Seconds after which asking again has a chance; null where it has none. */
    readonly retryAfter: number | null = null,
  ) {
    super(detail);
  }
}

/** `study/series/instance/frame`, as far as it is named. */
export function nameOf({ study, series, instance, frame }: Name): string {
  return [study, series, instance, frame].filter((part) => part !== undefined).join('/');
}

/** The example's frame and the match's that a match owes most to, by sequence. */
export function pairOf(question: Question, match: Match, series: MatchedSeries): { example: Name; found: Name } | null {
  if (!series.slice) return null;
  const { SOPInstanceUID: instance, frame, like } = series.slice;
  return {
    example: { study: question.example.study, series: series.like, instance: like.SOPInstanceUID, frame: like.frame },
    found: { study: match.StudyInstanceUID, series: series.SeriesInstanceUID, instance, frame },
  };
}

/** A question as the service takes it. */
export function parametersOf({ example, region, like, unlike, filters }: Question): URLSearchParams {
  const query = new URLSearchParams({ example: nameOf(example) });
  const put = (name: string, value: string | undefined) => value && query.set(name, value);
  const days = (date = '') => date.replaceAll('-', '');
  const years = (age = '') => age && `${age.padStart(3, '0')}Y`;
  const range = (from: string, to: string) => (from || to ? `${from}-${to}` : '');
  put('region', region);
  for (const name of like) query.append('like', name);
  for (const name of unlike) query.append('unlike', name);
  // A slice is of one sequence, which no filter is to leave out.
  put('sequence', example.series ? undefined : filters.sequences?.join(','));
  put('min_similarity', filters.least);
  put('ModalitiesInStudy', filters.modality?.trim().toUpperCase());
  put('PatientSex', filters.sex);
  put('PatientAge', range(years(filters.youngest), years(filters.oldest)));
  put('StudyDate', range(days(filters.from), days(filters.to)));
  return query;
}

/** The service behind a path of this origin. `headers` are those with which OHIF asks its PACS. */
export class Service {
  constructor(
    private readonly url: string,
    private readonly headers: () => Record<string, string>,
  ) {}

  /** Studies that are similar, best first; waits for as long as the service says that it will be able to answer. */
  async similar(
    question: Question,
    page: { limit: number; offset: number; asOf: string | null },
    waits: (why: Problem) => void,
    signal: AbortSignal,
  ): Promise<Answer> {
    // As a form: a proxy's log has neither UIDs nor filters, and no URL is too long.
    const query = parametersOf(question);
    query.set('limit', String(page.limit));
    query.set('offset', String(page.offset));
    if (page.asOf) query.set('as_of', page.asOf);
    const answer = await this.patiently(
      () => this.request('/similar/studies', 'application/json', signal, query),
      waits,
      signal,
    );
    const left = /"(\d+) more were left out/.exec(answer.headers.get('Warning') ?? '');
    return {
      matches: answer.status === 204 ? [] : ((await answer.json()) as Match[]),
      leftOut: Number(left?.[1] ?? 0),
      asOf: answer.headers.get('Pacs-Cbir-As-Of'),
    };
  }

  /** A frame's picture, fitted into a square of `edge` pixels. */
  async picture(frame: Name, edge: number, signal: AbortSignal): Promise<Blob> {
    const at = frame.frame === undefined ? '' : `/frames/${frame.frame}`;
    const path = `/dicom-web/studies/${frame.study}/series/${frame.series}/instances/${frame.instance}${at}/rendered`;
    return (await this.request(`${path}?viewport=${edge},${edge}`, 'image/jpeg', signal)).blob();
  }

  /** Heat maps over the two slices, the example's on the left. */
  async heat(question: Question, pair: { example: Name; found: Name }, signal: AbortSignal): Promise<Blob> {
    const query = new URLSearchParams({ example: nameOf(pair.example), match: nameOf(pair.found) });
    if (question.region) query.set('region', question.region);
    const ask = () => this.request(`/similar/explain?${query}`, 'image/png', signal);
    return (await this.patiently(ask, () => undefined, signal)).blob();
  }

  private async request(path: string, accept: string, signal: AbortSignal, form?: URLSearchParams): Promise<Response> {
    const headers = { ...this.headers(), Accept: accept };
    const options = form ? { method: 'POST', body: form } : {};
    let answer: Response;
    try {
      answer = await fetch(this.url + path, { headers, signal, ...options });
    } catch (error) {
      signal.throwIfAborted();
      throw new Problem('pacs-cbir does not answer', 'It may be restarting, or the network is away.');
    }
    if (answer.ok) return answer;
    const said = (await answer.json().catch(() => ({}))) as { title?: string; detail?: string };
    const wait = Number(answer.headers.get('Retry-After')) || null;
    throw new Problem(said.title ?? 'pacs-cbir refused', said.detail ?? `It answered ${answer.status}.`, wait);
  }

  private async patiently<T>(ask: () => Promise<T>, waits: (why: Problem) => void, signal: AbortSignal): Promise<T> {
    for (;;) {
      try {
        return await ask();
      } catch (error) {
        if (!(error instanceof Problem) || error.retryAfter === null) throw error;
        waits(error);
        await pause(Math.min(error.retryAfter, SEVERAL_SECONDS), signal);
      }
    }
  }
}

async function pause(seconds: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener('abort', () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}

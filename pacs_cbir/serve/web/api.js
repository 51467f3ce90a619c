// Requests to this service, and what it answers where it cannot do what was asked.

const FORM = 'application/x-www-form-urlencoded';
// The service takes 8 kB of query; what is longer goes as a form.
const LONGEST_QUERY = 8000;

/** A problem detail (RFC 9457), or no answer at all. */
export class Problem extends Error {
  constructor({ status = 0, title, detail: given, retryAfter = null }) {
    const detail = given.charAt(0).toUpperCase() + given.slice(1);
    super(detail);
    Object.assign(this, { status, title, detail, retryAfter });
  }
}

/** The answer, where it is a good one. Throws Problem, or AbortError where `signal` ended it. */
export async function request(path, { accept = 'application/json', ...options } = {}) {
  let answer;
  try {
    // Relative: a proxy may have put the service below a path.
    answer = await fetch(`.${path}`, { ...options, headers: { Accept: accept, ...options.headers } });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem({
      title: 'The service does not answer',
      detail: 'It may be restarting, or the network is away. Try again in a moment.',
    });
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  throw new Problem({
    status: answer.status,
    title: body.title ?? 'The service refused',
    detail: body.detail ?? `It answered ${answer.status}.`,
    retryAfter: Number(answer.headers.get('Retry-After')) || null,
  });
}

/** A list of results; 204 is an empty one. `leftOut` is what the Warning field says was below the floor: {count, the best
 *  one's similarity, the least that counts}, or null; `asOf` the state that is answered. */
export async function list(path, parameters, options = {}) {
  const query = parameters.toString();
  const answer =
    query.length > LONGEST_QUERY
      ? await request(path, { ...options, method: 'POST', body: query, headers: { 'Content-Type': FORM } })
      : await request(`${path}?${query}`, options);
  const found = /"(\d+) more were left out.* reaches (-?[\d.]+) of the (-?[\d.]+)/.exec(answer.headers.get('Warning') ?? '');
  return {
    results: answer.status === 204 ? [] : await answer.json(),
    leftOut: found && { count: Number(found[1]), best: Number(found[2]), least: Number(found[3]) },
    asOf: answer.headers.get('Pacs-Cbir-As-Of'),
  };
}

/** Try again for as long as the service says when to (409 still embedding, 503 not ready). `waits` hears of each wait. */
export async function patiently(attempt, waits, signal) {
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Problem) || error.retryAfter === null || ![409, 503].includes(error.status)) throw error;
      signal?.throwIfAborted();
      waits(error);
      await pause(error.retryAfter * 1000, signal);
    }
  }
}

/** What happens then, in words. */
export function again({ retryAfter }) {
  return `This page asks again by itself, in ${retryAfter === 1 ? '1 second' : `${retryAfter} seconds`}.`;
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException('left', 'AbortError'));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    if (signal?.aborted) stop();
    signal?.addEventListener('abort', stop, { once: true });
  });
}

/** The name of a study, series, instance or frame, as `example` takes it. */
export function nameOf({ study, series, instance, frame }) {
  return [study, series, instance, frame].filter((part) => part !== undefined && part !== null).join('/');
}

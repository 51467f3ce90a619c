// A picture that the service draws: fetched with the viewer's headers, which an <img> by itself would not send.

import { useEffect, useState } from 'react';

interface Properties {
  /** Names what `load` fetches: another one is another picture. */
  of: string;
  alt: string;
  load(signal: AbortSignal): Promise<Blob>;
}

export function Picture({ of, alt, load }: Properties) {
  const [shown, setShown] = useState<{ of: string; url?: string; why?: string }>({ of });
  useEffect(() => {
    const loading = new AbortController();
    let url: string | undefined;
    load(loading.signal).then(
      (blob) => {
        if (!loading.signal.aborted) setShown({ of, url: (url = URL.createObjectURL(blob)) });
      },
      (error: Error) => loading.signal.aborted || setShown({ of, why: error.message }),
    );
    return () => {
      loading.abort();
      if (url) URL.revokeObjectURL(url);
    };
    // `load` is another function at each drawing.
  }, [of]);
  // Until its own is there, nothing is shown under its name.
  if (shown.of === of && shown.url) return <img src={shown.url} alt={alt} />;
  return <span className="missing">{(shown.of === of && shown.why) || '…'}</span>;
}

// The panel as OHIF's React draws it: an empty element, in which our own React has its root.

import { createRoot, type Root } from 'react-dom/client';
import type { ReactElement } from 'react';
import type { Session } from './session';
import { Similar } from './similar';
import style from './style.css';

/** The component that OHIF is given.
 *
 * OHIF's stock builds put their React into no global and no import map, so this bundle brings a copy. An element is plain
 * data (`$$typeof: Symbol.for('react.element')` in every React 18), so OHIF's React draws one that our copy made; hooks are
 * not: they look for the renderer in the copy that they were imported from, and our copy has none there. Hence this
 * component has none, and a callback ref, which is no hook, mounts and unmounts a root of ours.
 */
export function panelOf(session: () => Session): () => ReactElement {
  let root: Root | null = null;
  const attach = (element: HTMLDivElement | null) => {
    const former = root;
    // React does not let a root be unmounted while another is drawing, be it another copy's.
    if (former) setTimeout(() => former.unmount());
    root = element && createRoot(element);
    root?.render(
      <>
        <style>{style}</style>
        <Similar session={session()} />
      </>,
    );
  };
  return function SimilarPanel() {
    return <div ref={attach} className="pacs-cbir" />;
  };
}

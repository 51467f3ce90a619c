// Two up: the example on the left, a match on the right, both at the slices that are alike, and scrolled together.

import { Problem, type Name } from './api';
import { frameOf } from './example';
import { cornerstoneOf, type DisplaySet, type Ohif, type StackViewport } from './ohif';

const EXAMPLE_VIEWPORT = 'pacs-cbir-example';
const MATCH_VIEWPORT = 'pacs-cbir-match';
const WAIT_MS = 30_000;
const ARRIVAL_MS = 5_000;
const LOOK_MS = 50;
// The group of OHIF's own button "Image Slice Sync": it shows that the two are linked, and unlinks them.
const GROUP = { type: 'imageSlice', id: 'IMAGE_SLICE_SYNC', source: true, target: true };

interface Pane {
  viewportId: string;
  frame: Name;
  shows: DisplaySet;
}

/** Open a match beside the example. Throws Problem where the PACS has no such study, or it is not shown in time. */
export async function openBeside(
  ohif: Ohif,
  { example, found }: { example: Name; found: Name },
  exampleViewport: string,
  signal: AbortSignal,
): Promise<void> {
  const { viewportGridService } = ohif.servicesManager.services;
  const isThere = viewportGridService.getState().viewports.has(exampleViewport) && exampleViewport !== MATCH_VIEWPORT;
  const left = { frame: example, viewportId: isThere ? exampleViewport : EXAMPLE_VIEWPORT };
  const right = { frame: found, viewportId: MATCH_VIEWPORT };
  const panes: Pane[] = [];
  for (const pane of [left, right]) panes.push({ ...pane, shows: await displaySetOf(ohif, pane.frame, signal) });
  signal.throwIfAborted();
  for (const { viewportId } of panes) unlink(ohif, viewportId);
  const drawn = Promise.all(panes.map((pane) => drawnIn(ohif, pane, signal)));
  await viewportGridService.setLayout({
    numRows: 1,
    numCols: 2,
    // The example stays what the next question is about.
    activeViewportId: left.viewportId,
    findOrCreateViewport: (position) => gridViewport(panes[position]),
  });
  // OHIF shows a display set where it was left, so the slices are chosen once it has done that.
  for (const [viewport, index] of await drawn) await viewport.setImageIdIndex(index);
  signal.throwIfAborted();
  link(ohif, left.viewportId, right.viewportId);
}

function gridViewport(pane: Pane | undefined) {
  return (
    pane && {
      // It is drawn again, and that is told, even where nothing has changed.
      viewportOptions: { viewportId: pane.viewportId, viewportType: 'stack', toolGroupId: 'default', needsRerendering: true },
      displaySetInstanceUIDs: [pane.shows.displaySetInstanceUID],
      displaySetOptions: [{}],
    }
  );
}

async function displaySetOf({ servicesManager, commandsManager }: Ohif, frame: Name, signal: AbortSignal): Promise<DisplaySet> {
  const { displaySetService } = servicesManager.services;
  const { study, series = '', instance = '' } = frame;
  const find = () => displaySetService.getDisplaySetForSOPInstanceUID(instance, series);
  if (!find()) {
    // OHIF's command breaks on a study that its PACS lacks: what counts is what is there after it.
    await Promise.resolve(commandsManager.run('loadStudy', { StudyInstanceUID: study })).catch(() => undefined);
  }
  // Of the study that is open already, OHIF loads some series later.
  for (let waited = 0; waited < ARRIVAL_MS; waited += LOOK_MS) {
    const found = find();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    signal.throwIfAborted();
  }
  throw new Problem('It cannot be opened', 'The PACS that this viewer reads from has not got this series.');
}

/** The viewport once it has drawn a pane's display set, and the index of the pane's frame in it. */
function drawnIn(ohif: Ohif, { viewportId, frame }: Pane, signal: AbortSignal): Promise<[StackViewport, number]> {
  const { cornerstoneViewportService } = ohif.servicesManager.services;
  const { metaData } = cornerstoneOf(ohif);
  const isIt = (imageId: string) => {
    const instance = metaData.get('instance', imageId);
    const shown = instance && frameOf(instance);
    return shown?.instance === frame.instance && (shown?.frame ?? 1) === (frame.frame ?? 1);
  };
  return new Promise((resolve, reject) => {
    const { unsubscribe } = cornerstoneViewportService.subscribe(
      cornerstoneViewportService.EVENTS.VIEWPORT_DATA_CHANGED,
      (changed) => {
        const viewport = changed.viewportId === viewportId && viewportOf(ohif, viewportId);
        const index = viewport ? viewport.getImageIds().findIndex(isIt) : -1;
        if (viewport && index >= 0) end(() => resolve([viewport, index]));
      },
    );
    const late = new Problem('It cannot be opened', 'The viewer did not show the matching slice in time.');
    const timer = setTimeout(() => end(() => reject(late)), WAIT_MS);
    const abort = () => end(() => reject(signal.reason));
    signal.addEventListener('abort', abort);
    function end(settle: () => void): void {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
      unsubscribe();
      settle();
    }
  });
}

/** Scroll two viewports together, from the slices that they show now: as far in mm from the one as from the other. */
function link(ohif: Ohif, example: string, match: string): void {
  const { metaData, utilities } = cornerstoneOf(ohif);
  const [from, to] = [example, match].map((id) => {
    const imageId = viewportOf(ohif, id)?.getCurrentImageId?.();
    return imageId && metaData.get('imagePlaneModule', imageId)?.imagePositionPatient;
  });
  if (!from || !to) return;
  // OHIF links viewports of one frame of reference alone, and two patients have two: by the two slices instead.
  const mm = [0, 1, 2].map((axis) => (to[axis] ?? 0) - (from[axis] ?? 0));
  utilities.spatialRegistrationMetadataProvider.add([match, example], translation(mm));
  utilities.spatialRegistrationMetadataProvider.add([example, match], translation(mm.map((one) => -one)));
  const { syncGroupService } = ohif.servicesManager.services;
  for (const id of [example, match]) {
    const viewport = viewportOf(ohif, id);
    if (viewport) syncGroupService.addViewportToSyncGroup(id, viewport.getRenderingEngine().id, GROUP);
  }
}

function unlink(ohif: Ohif, id: string): void {
  const viewport = viewportOf(ohif, id);
  const { syncGroupService } = ohif.servicesManager.services;
  if (viewport) syncGroupService.removeViewportFromSyncGroup(id, viewport.getRenderingEngine().id, GROUP.id);
}

/** A 4×4 matrix, column by column. */
function translation(mm: number[]): number[] {
  return [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, ...mm, 1];
}

function viewportOf({ servicesManager }: Ohif, id: string): StackViewport | null {
  return servicesManager.services.cornerstoneViewportService.getCornerstoneViewport(id);
}

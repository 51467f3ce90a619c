// The example: the slice in the active viewport, or the rectangle that was drawn on it.

import { Problem, type Name } from './api';
import { cornerstoneOf, type Cornerstone, type Instance, type Ohif, type Services } from './ohif';

export interface Shown {
  frame: Required<Pick<Name, 'study' | 'series' | 'instance'>> & Name;
  /** The last rectangle that was drawn on it, `x0,y0,x1,y1` in its pixels. */
  region?: string;
  viewportId: string;
}

/** The frame that an image of OHIF's is. Its number is there where the instance has several. */
export function frameOf(instance: Instance): Shown['frame'] {
  const { StudyInstanceUID: study, SeriesInstanceUID: series, SOPInstanceUID: instanceUid } = instance;
  const several = (instance.NumberOfFrames ?? 1) > 1;
  return { study, series, instance: instanceUid, ...(several ? { frame: instance.frameNumber ?? 1 } : {}) };
}

/** What the active viewport shows now. Throws Problem where that is no acquired slice. */
export function shownIn(ohif: Ohif): Shown {
  const { services } = ohif.servicesManager;
  const cornerstone = cornerstoneOf(ohif);
  const viewportId = services.viewportGridService.getActiveViewportId();
  const viewport = services.cornerstoneViewportService.getCornerstoneViewport(viewportId);
  const imageId = viewport?.getCurrentImageId?.();
  const instance = imageId && cornerstone.metaData.get('instance', imageId);
  if (!imageId || !instance) {
    throw new Problem('No slice to look for', 'The active viewport shows no acquired slice. Choose one that does.');
  }
  return { frame: frameOf(instance), region: regionOf(services, cornerstone, imageId, instance), viewportId };
}

function regionOf(
  { measurementService }: Services,
  { utilities }: Cornerstone,
  imageId: string,
  { Columns, Rows }: Instance,
): string | undefined {
  const drawn = measurementService
    .getMeasurements()
    .filter(({ toolName, referencedImageId }) => toolName === 'RectangleROI' && referencedImageId === imageId)
    .at(-1);
  if (!drawn) return undefined;
  const corners = drawn.points.map((point) => utilities.worldToImageCoords(imageId, point));
  const columns = corners.map(([column]) => column);
  const rows = corners.map(([, row]) => row);
  // Whole pixels that the rectangle touches; the service counts the far edges as outside.
  const first = [Math.min(...columns), Math.min(...rows)].map((edge) => Math.max(0, Math.floor(edge)));
  const end = [Math.min(Columns, Math.ceil(Math.max(...columns))), Math.min(Rows, Math.ceil(Math.max(...rows)))];
  return [...first, ...end].join(',');
}

// The parts of OHIF 3.13 and 3.14 that this extension uses, as far as it uses them. OHIF's packages on npm carry no
// declarations that compile alone.

export type Vector = [number, number, number];

export interface DisplaySet {
  displaySetInstanceUID: string;
}

export interface StackViewport {
  getCurrentImageId?(): string | undefined;
  getImageIds(): string[];
  setImageIdIndex(index: number): Promise<string>;
  getRenderingEngine(): { id: string };
}

export interface Instance {
  StudyInstanceUID: string;
  SeriesInstanceUID: string;
  SOPInstanceUID: string;
  NumberOfFrames?: number;
  /** Of an instance with several frames, from 1. */
  frameNumber?: number;
  Rows: number;
  Columns: number;
}

export interface Measurement {
  toolName: string;
  referencedImageId?: string;
  /** Corners in patient coordinates, mm. */
  points: Vector[];
}

/** cornerstone3D's core, as OHIF's extension hands it out: the copy that OHIF draws with. */
export interface Cornerstone {
  metaData: {
    get(type: 'instance', imageId: string): Instance | undefined;
    get(type: 'imagePlaneModule', imageId: string): { imagePositionPatient?: Vector } | undefined;
  };
  utilities: {
    /** [column, row] of a point, from the first pixel's outer corner. */
    worldToImageCoords(imageId: string, world: Vector): [number, number];
    spatialRegistrationMetadataProvider: { add(viewportIds: [string, string], matrix: number[]): void };
  };
}

export interface GridViewport {
  viewportOptions: { viewportId: string; viewportType: string; toolGroupId: string; needsRerendering: boolean };
  displaySetInstanceUIDs: string[];
  displaySetOptions: object[];
}

export interface Services {
  viewportGridService: {
    getActiveViewportId(): string;
    getState(): { viewports: Map<string, unknown> };
    setLayout(layout: {
      numRows: number;
      numCols: number;
      activeViewportId: string;
      findOrCreateViewport(position: number): GridViewport | undefined;
    }): Promise<void>;
  };
  displaySetService: {
    getDisplaySetForSOPInstanceUID(instance: string, series: string): DisplaySet | undefined;
  };
  cornerstoneViewportService: {
    EVENTS: { VIEWPORT_DATA_CHANGED: string };
    subscribe(event: string, listener: (changed: { viewportId: string }) => void): { unsubscribe(): void };
    getCornerstoneViewport(viewportId: string): StackViewport | null;
  };
  measurementService: { getMeasurements(): Measurement[] };
  syncGroupService: {
    addViewportToSyncGroup(viewportId: string, renderingEngineId: string, group: object): void;
    removeViewportFromSyncGroup(viewportId: string, renderingEngineId: string, groupId: string): void;
  };
  panelService: { activatePanel(panelId: string, forceActive: boolean): void };
  toolbarService: { register(buttons: object[]): void; updateSection(section: string, buttons: string[]): void };
  uiNotificationService: { show(notification: { title: string; message: string; type: 'error' | 'info' }): void };
  userAuthenticationService: { getAuthorizationHeader(): Record<string, string> | undefined };
  customizationService: { getCustomization(id: string): unknown };
}

/** What OHIF gives to an extension's hooks. */
export interface Ohif {
  servicesManager: { services: Services };
  commandsManager: { run(command: string, options: object): Promise<unknown> | unknown };
  extensionManager: {
    getModuleEntry(id: string): { exports: { getCornerstoneLibraries(): { cornerstone: Cornerstone } } } | undefined;
  };
}

/** OHIF's own copy of cornerstone, which knows the images that are shown. */
export function cornerstoneOf({ extensionManager }: Ohif): Cornerstone {
  const entry = extensionManager.getModuleEntry('@ohif/extension-cornerstone.utilityModule.common');
  if (!entry) throw new Error('OHIF has no cornerstone extension.');
  return entry.exports.getCornerstoneLibraries().cornerstone;
}

// What OHIF knows this extension's parts by.

export const EXTENSION = 'ohif-extension-pacs-cbir';
export const PANEL = `${EXTENSION}.panelModule.similar`;
export const BUTTON = 'SimilarStudies';
export const COMMAND = 'findSimilarStudies';
/** The customization that says where pacs-cbir answers: a path of this origin. */
export const URL_CUSTOMIZATION = 'pacs-cbir.url';
export const DEFAULT_URL = '/pacs-cbir';

/** @type {AppTypes.Config} OHIF beside an archive and pacs-cbir, all under the origin that nginx.conf serves. */
window.config = {
  routerBasename: null,
  showStudyList: true,
  // The extension, and the Basic Viewer with its panel and its button.
  extensions: ['/ohif-extension-pacs-cbir/index.js'],
  modes: ['/ohif-extension-pacs-cbir/mode.js'],
  // Where pacs-cbir answers; any path of this origin.
  customizationService: [{ 'pacs-cbir.url': { $set: '/pacs-cbir' } }],
  maxNumberOfWebWorkers: 3,
  showLoadingIndicator: true,
  showWarningMessageForCrossOrigin: true,
  showCPUFallbackMessage: true,
  strictZSpacingForVolumeViewport: true,
  defaultDataSourceName: 'pacs',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'pacs',
      configuration: {
        friendlyName: 'PACS',
        name: 'pacs',
        qidoRoot: '/dicom-web',
        wadoRoot: '/dicom-web',
        wadoUriRoot: '/wado',
        qidoSupportsIncludeField: false,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        omitQuotationForMultipartRequest: true,
      },
    },
  ],
};

// The extension: a panel, the command behind the toolbar's button, and where pacs-cbir answers.

import { COMMAND, DEFAULT_URL, EXTENSION, URL_CUSTOMIZATION } from './ids';
import type { Ohif } from './ohif';
import { panelOf } from './panel';
import { Session } from './session';

let session: Session | undefined;

/** Made when it is needed first: extensions are registered before the site's customizations apply. */
function sessionOf(ohif: Ohif): Session {
  session ??= new Session(ohif);
  return session;
}

export default {
  id: EXTENSION,
  getPanelModule: (ohif: Ohif) => [
    {
      name: 'similar',
      iconName: 'icon-multiple-patients',
      iconLabel: 'Similar',
      label: 'Similar studies',
      component: panelOf(() => sessionOf(ohif)),
    },
  ],
  getCommandsModule: (ohif: Ohif) => ({
    defaultContext: 'VIEWER',
    definitions: { [COMMAND]: () => sessionOf(ohif).find() },
  }),
  getCustomizationModule: () => [{ name: 'default', value: { [URL_CUSTOMIZATION]: DEFAULT_URL } }],
  /** Another study is another question. */
  onModeExit: () => {
    session = undefined;
  },
};

// OHIF's Basic Viewer with the panel and the button. It carries the stock mode's id, and OHIF takes the modes that
// app-config.js names before its own of the same id: so it stands in the stock one's place, at the same address.

import { BUTTON, COMMAND, PANEL } from './ids';
import type { Ohif } from './ohif';

const STOCK = '@ohif/mode-longitudinal';

interface Mode {
  routes: { layoutInstance: { props: { rightPanels: string[] } } }[];
  onModeEnter(this: unknown, ohif: Ohif): void;
}

interface Given {
  modeConfiguration: object;
  loadModules(names: string[]): Promise<[{ modeFactory(given: Given): Mode }]>;
}

const button = {
  id: BUTTON,
  uiType: 'ohif.toolButton',
  props: {
    icon: 'icon-multiple-patients',
    label: 'Similar studies',
    tooltip: 'Studies that look like this slice, or like the last rectangle drawn on it',
    commands: COMMAND,
    evaluate: 'evaluate.action',
  },
};

export default {
  id: STOCK,
  async modeFactory(given: Given): Promise<Mode> {
    const [stock] = await given.loadModules([STOCK]);
    const mode = stock.modeFactory(given);
    return {
      ...mode,
      routes: mode.routes.map((route) => ({ ...route, layoutInstance: withPanel(route.layoutInstance) })),
      onModeEnter(ohif) {
        mode.onModeEnter.call(this, ohif);
        const { toolbarService } = ohif.servicesManager.services;
        toolbarService.register([button]);
        toolbarService.updateSection('primary', [BUTTON]);
      },
    };
  },
};

function withPanel<Layout extends { props: { rightPanels: string[] } }>(layout: Layout): Layout {
  return { ...layout, props: { ...layout.props, rightPanels: [...layout.props.rightPanels, PANEL] } };
}

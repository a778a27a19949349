// The pack's part of the page: what is put on its nodes, from top to bottom, and the events that it follows.
import { addBadge } from "./badges.js";
import { addChart, listenForSteps } from "./chart.js";
import { listenForErrors } from "./errors.js";
import { app, isOurs, takesElements } from "./host.js";
import { addMissing, checkAll } from "./missing.js";
import { putBack, setAside } from "./models.js";
import { addPreview, listenForPreviews } from "./preview.js";
import { addReport } from "./report.js";
import { rankFirst } from "./search.js";
import { addSettings } from "./settings.js";
import { addSizes } from "./sizes.js";
import { entitleTemplates } from "./templates.js";

app.registerExtension({
  name: "Wan22",
  nodeCreated(node) {
    if (!isOurs(node) || !takesElements(node)) return;
    for (const add of [addSizes, addChart, addPreview, addReport, addMissing, addSettings, addBadge]) add(node);
  },
  refreshComboInNodes: checkAll,
  beforeConfigureGraph: setAside,
  afterConfigureGraph: putBack,
  setup() {
    listenForSteps();
    listenForPreviews();
    listenForErrors();
    rankFirst();
    entitleTemplates();
  },
});

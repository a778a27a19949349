// Shows what a node reports (steps per expert, LoRA keys, model info) in a box on the node itself.
import { app } from "../../../scripts/app.js";
import { ComfyWidgets } from "../../../scripts/widgets.js";

const BOX = "report";

function show(node, text) {
  let box = node.widgets?.find((widget) => widget.name === BOX && widget.wanReport);
  if (!box) {
    box = ComfyWidgets.STRING(node, BOX, ["STRING", { multiline: true }], app).widget;
    box.wanReport = true;
    box.serialize = false; // neither saved with the workflow nor sent with the prompt
    box.options.serialize = false;
    box.inputEl.readOnly = true;
    box.inputEl.style.opacity = 0.7;
  }
  box.value = text;
  const [width, height] = node.computeSize();
  node.setSize([Math.max(width, node.size[0]), Math.max(height, node.size[1])]);
  app.graph.setDirtyCanvas(true, false);
}

app.registerExtension({
  name: "Wan22.Report",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.category?.startsWith("Wan2.2/")) return;
    const before = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (message) {
      before?.apply(this, arguments);
      if (message?.text?.length) show(this, message.text.join("\n"));
    };
  },
});

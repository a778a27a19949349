// Shows what a node reports (steps per expert, LoRA keys, model info) in a box on the node itself.
import { addElement, after, app, grow, isOurs, make, removeElement } from "./host.js";

const LINE = 16;
const MOST_LINES = 12;
const PADDING = 14;
const LETTER = 6.4; // width, about

/** Shows a text on a node, in place of the box's last one; an empty text takes the box away. */
export function show(node, text, kind = "report") {
  node.wan22Boxes ??= {};
  let box = node.wan22Boxes[kind];
  if (!text) {
    if (box) removeElement(node, box);
    delete node.wan22Boxes[kind];
    return;
  }
  if (!box) {
    const element = make("div", `wan22-box ${kind}`);
    const height = () => Math.min(lines(element.textContent, node.size[0]), MOST_LINES) * LINE + PADDING;
    box = addElement(node, kind, element, height);
    if (!box) return;
    node.wan22Boxes[kind] = box;
  }
  box.element.textContent = text;
  grow(node);
}

/** Lines that a text takes on a node of this width. */
function lines(text, width) {
  const letters = Math.max(10, Math.floor((width - 40) / LETTER));
  return text.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / letters)), 0);
}

app.registerExtension({
  name: "Wan22.Report",
  nodeCreated(node) {
    if (!isOurs(node)) return;
    after(node, "onExecuted", (message) => {
      if (message?.text?.length) show(node, [message.text].flat().join("\n"));
    });
  },
});

// Shows what a node reports (steps per expert, LoRA keys, model info) in a box on the node itself.
import { after, make, NodeElement } from "./host.js";

const LINE = 16;
const MOST_LINES = 12;
const PADDING = 14;
const LETTER = 6.4; // width, about
const PROGRESS_TEXT = "$$node-text-preview"; // name of a widget of the page's
/** @type {WeakMap<HostNode, NodeElement>} */
const boxes = new WeakMap();

/**
 * Shows a report, or an error, in a node's box.
 * @param {HostNode} node
 * @param {string} text
 * @param {"report" | "error"} kind
 */
export function show(node, text, kind = "report") {
  const box = boxes.get(node);
  if (!box) return;
  box.element.className = `wan22-box ${kind}`;
  box.element.textContent = text;
  box.show();
}

/** @param {HostNode} node */
export function hide(node) {
  boxes.get(node)?.hide();
}

/**
 * Lines that a text takes on a node of this width.
 * @param {string} text
 * @param {number} width
 */
function lines(text, width) {
  const letters = Math.max(10, Math.floor((width - 40) / LETTER));
  return text.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / letters)), 0);
}

/**
 * Removes the page's line on the progress of a run: older pages leave there how much of the time was left.
 * @param {HostNode} node
 */
function removeProgressText(node) {
  const index = node.widgets?.findIndex((widget) => widget.name === PROGRESS_TEXT) ?? -1;
  if (index < 0) return;
  node.widgets?.[index].onRemove?.();
  node.widgets?.splice(index, 1);
}

/**
 * A box on a node, which is hidden until there is something to say.
 * @param {HostNode} node
 */
export function addReport(node) {
  const element = make("div", "wan22-box");
  const height = () => Math.min(lines(element.textContent ?? "", node.size[0]), MOST_LINES) * LINE + PADDING;
  boxes.set(node, new NodeElement(node, "report", element, height, { hideOnZoom: false, isShown: false }));
  after(node, "onExecuted", (message) => {
    removeProgressText(node);
    if (message?.text?.length) show(node, [message.text].flat().join("\n"));
  });
}

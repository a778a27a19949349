// Says above a node which expert is at work: on the sampler, and on the loader that the expert comes from.
import { origin, redraw } from "./host.js";

const COLOURS = { high: "#f0883e", low: "#4f9cf0" };
const marked = new Map(); // node -> badge

/** Marks a sampler and the loader of the expert ("high" or "low") that answers it; takes the marks off all others. */
export function markExpert(sampler, expert) {
  const text = `${expert}-noise expert`;
  const nodes = new Map([[sampler, text]]);
  const loader = loaderOf(sampler, `model_${expert}`);
  if (loader) nodes.set(loader, `${text} at work`);
  for (const node of [...marked.keys()]) if (marked.get(node).text !== nodes.get(node)) unmark(node);
  for (const [node, label] of nodes) if (!marked.has(node)) mark(node, label, COLOURS[expert]);
}

export function unmarkAll() {
  for (const node of [...marked.keys()]) unmark(node);
}

function mark(node, text, bgColor) {
  const Badge = globalThis.LGraphBadge;
  if (!Badge || !node.badges) return;
  const badge = new Badge({ text, fgColor: "#111", bgColor });
  node.badges.push(badge);
  marked.set(node, badge);
  redraw();
}

function unmark(node) {
  const index = node.badges.indexOf(marked.get(node));
  if (index >= 0) node.badges.splice(index, 1);
  marked.delete(node);
  redraw();
}

/** The loader at the beginning of a MODEL wire, through LoRA and other nodes that pass models on in their order. */
function loaderOf(node, input) {
  for (let hops = 0; hops < 50; hops += 1) {
    const from = origin(node, input);
    if (!from || from.node.comfyClass === "WanDiTLoader") return from?.node;
    const models = (slots) => slots?.filter((slot) => slot.type === "MODEL") ?? [];
    const which = models(from.node.outputs).indexOf(from.node.outputs?.[from.slot]);
    const inputs = models(from.node.inputs);
    const next = inputs[which] ?? inputs[0];
    if (!next) return undefined;
    [node, input] = [from.node, next.name];
  }
  return undefined;
}

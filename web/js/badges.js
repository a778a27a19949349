// Says above a node which expert is at work: on the sampler, and on the loader that the expert comes from.
import { origin, redraw } from "./host.js";
import { say } from "./texts.js";

const COLOURS = { base: "#b98cf5", high: "#f0883e", low: "#4f9cf0" };
/** @type {Map<HostNode, { text: string }>} node -> badge */
const marked = new Map();

/**
 * Marks a sampler and the loader of the expert that answers it; takes the marks off all others.
 * @param {HostNode} sampler
 * @param {keyof COLOURS} expert
 */
export function markExpert(sampler, expert) {
  const text = say(expert);
  const nodes = new Map([[sampler, text]]);
  const loader = loaderOf(sampler, `model_${expert}`);
  if (loader) nodes.set(loader, say("at_work", { expert: text }));
  for (const node of [...marked.keys()]) if (marked.get(node)?.text !== nodes.get(node)) unmark(node);
  for (const [node, label] of nodes) if (!marked.has(node)) mark(node, label, COLOURS[expert]);
}

export function unmarkAll() {
  for (const node of [...marked.keys()]) unmark(node);
}

/**
 * @param {HostNode} node
 * @param {string} text
 * @param {string} bgColor
 */
function mark(node, text, bgColor) {
  const Badge = globalThis.LGraphBadge;
  if (!Badge || !node.badges) return;
  const badge = new Badge({ text, fgColor: "#111", bgColor });
  node.badges.push(badge);
  marked.set(node, badge);
  redraw();
}

/** @param {HostNode} node */
function unmark(node) {
  const index = node.badges?.indexOf(marked.get(node)) ?? -1;
  if (index >= 0) node.badges?.splice(index, 1);
  marked.delete(node);
  redraw();
}

/** @param {HostSlot[] | undefined} slots */
function modelsOf(slots) {
  return slots?.filter((slot) => slot.type === "MODEL") ?? [];
}

/**
 * The loader at the beginning of a MODEL wire, through LoRA and other nodes that pass models on in their order.
 * @param {HostNode} node
 * @param {string} input
 * @returns {HostNode | undefined}
 */
function loaderOf(node, input) {
  for (let hops = 0; hops < 50; hops += 1) {
    const from = origin(node, input);
    if (!from || from.node.comfyClass === "WanDiTLoader") return from?.node;
    const which = modelsOf(from.node.outputs).findIndex((slot) => slot === from.node.outputs?.[from.slot]);
    const inputs = modelsOf(from.node.inputs);
    const next = inputs[which] ?? inputs[0];
    if (!next) return undefined;
    [node, input] = [from.node, next.name];
  }
  return undefined;
}

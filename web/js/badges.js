// Says above a node which expert is at work: on the sampler, and on the loader that the expert comes from.
import { origin, redraw } from "./host.js";
import { changes } from "./stores.js";
import { say } from "./texts.js";

/** Nodes with two experts. */
export const SAMPLERS = ["WanMoESampler", "WanMultiGPUSampler", "WanLongVideo"];
const LOADER = "WanDiTLoader";
const COLOURS = { base: "#b98cf5", high: "#f0883e", low: "#4f9cf0" };
/** @type {WeakMap<HostNode, HostBadge>} */
const badges = new WeakMap();
/** @type {Set<HostNode>} whose badges say something */
const marked = new Set();

/**
 * A badge without text, which is not drawn. It is there from the node's creation on, and says by what it reads when it
 * changes: pages whose nodes are elements see nothing of a badge that comes later.
 * @param {HostNode} node
 */
export function addBadge(node) {
  const Badge = globalThis.LGraphBadge;
  if (!Badge || !node.badges || ![...SAMPLERS, LOADER].includes(node.comfyClass)) return;
  const badge = new Badge({ text: "", fgColor: "#111" });
  badges.set(node, badge);
  node.badges.push(() => {
    void changes.turn;
    return badge;
  });
}

/**
 * Marks a sampler and the loader of the expert that answers it; takes the marks off all others.
 * @param {HostNode} sampler
 * @param {keyof COLOURS} expert
 */
export function markExpert(sampler, expert) {
  const text = say(expert);
  const loader = loaderOf(sampler, `model_${expert}`);
  for (const node of [...marked]) if (node !== sampler && node !== loader) write(node, "");
  write(sampler, text, COLOURS[expert]);
  if (loader) write(loader, say("at_work", { expert: text }), COLOURS[expert]);
}

export function unmarkAll() {
  for (const node of [...marked]) write(node, "");
}

/**
 * @param {HostNode} node
 * @param {string} text
 * @param {string} bgColor
 */
function write(node, text, bgColor = "") {
  const badge = badges.get(node);
  if (!badge || badge.text === text) return;
  Object.assign(badge, { text, bgColor });
  if (text) marked.add(node);
  else marked.delete(node);
  changes.next();
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
    if (!from || from.node.comfyClass === LOADER) return from?.node;
    const which = modelsOf(from.node.outputs).findIndex((slot) => slot === from.node.outputs?.[from.slot]);
    const inputs = modelsOf(from.node.inputs);
    const next = inputs[which] ?? inputs[0];
    if (!next) return undefined;
    [node, input] = [from.node, next.name];
  }
  return undefined;
}

// Says how long and large a video will be, and rounds what users enter to what the models can make. A workflow's
// values are left as they are when it is loaded: what does not fit is shown in red.
import { after, api, CHANGES, isLinked, make, NodeElement, origin, redraw, widgetOf } from "./host.js";
import { say } from "./texts.js";

const HEIGHT = 16;
const SIZES = ["width", "height"];
const LENGTHS = ["frames", "frames_per_clip", "length"];
const UNKNOWN = { fps: null, multiple: null };

/** @typedef {{ fps: number | null, multiple: number | null }} Facts of a node's videos: rate and step of sizes */
/** @typedef {{ step: number, offset: number, low: number, high: number }} Grid */

/** @type {Map<string, Promise<Facts>>} what was asked -> the answer */
const answers = new Map();

/**
 * The values that a number widget can have, as its input is declared: offset + n * step, from `low` to `high`.
 * @param {Pick<HostWidget, "options">} widget
 * @returns {Grid}
 */
function gridOf(widget) {
  const { min = 0, max = Infinity, step2, step } = widget.options;
  const size = step2 ?? (step ?? 10) / 10;
  const offset = min % size;
  return { step: size, offset, low: offset + Math.ceil((min - offset) / size) * size, high: max };
}

/**
 * The nearest of them.
 * @param {number} value
 * @param {Grid} grid
 */
function snapped(value, { step, offset, low, high }) {
  const last = offset + Math.floor((high - offset) / step) * step;
  return Math.min(last, Math.max(low, Math.round((value - offset) / step) * step + offset));
}

/**
 * Rounds a widget's value where the user changes it.
 * @param {HostWidget} widget
 */
function snapEdits(widget) {
  after(widget, "callback", (value) => {
    const fitting = snapped(Number(value), gridOf(widget));
    if (!Number.isFinite(fitting)) return;
    widget.value = fitting;
    // pages whose nodes are elements show what was entered until they are told again
    if (fitting !== value) queueMicrotask(() => widget.callback?.(fitting));
  });
}

/**
 * What the server says of a node's videos, with the VAE that is connected.
 * @param {HostNode} node
 * @returns {Promise<Facts>}
 */
async function factsOf(node) {
  const loader = origin(node, "vae")?.node;
  const query = new URLSearchParams({ node: node.comfyClass });
  for (const { value } of loader?.widgets ?? []) if (typeof value === "string") query.append("vae", value);
  const path = `/wan22/video?${query}`;
  const answer = answers.get(path) ?? api.fetchApi(path).then((response) => response.json());
  answers.set(path, answer);
  try {
    return await answer;
  } catch {
    answers.delete(path); // it is asked again the next time
    return UNKNOWN;
  }
}

/**
 * Sizes are multiples of 16 with the 2.1 VAE and of 32 with the 2.2, where a node takes both.
 * @param {HostNode} node
 * @param {number | null} multiple
 */
function followVae(node, multiple) {
  for (const name of SIZES) {
    const { options } = widgetOf(node, name) ?? {};
    if (!options) continue;
    options.wan22Step ??= gridOf({ options }).step;
    const step = Math.max(multiple ?? 0, options.wan22Step);
    Object.assign(options, { step2: step, step: step * 10, min: step });
  }
}

/**
 * What is known of a number input: null where another node gives it.
 * @param {HostNode} node
 * @param {string} name
 */
function valueOf(node, name) {
  const widget = widgetOf(node, name);
  return widget && !isLinked(node, name) ? { value: Number(widget.value), grid: gridOf(widget), name } : null;
}

/**
 * One line on the video of a node, and whether it can be made.
 * @param {HostNode} node
 * @param {number | null} releaseFps
 */
function describe(node, releaseFps) {
  const length = LENGTHS.map((name) => valueOf(node, name)).find(Boolean);
  const [width, height] = SIZES.map((name) => valueOf(node, name));
  for (const { value, grid, name } of [length, width, height].flatMap((known) => known ?? [])) {
    const fitting = snapped(value, grid);
    if (fitting !== value) return { text: say("unfit", { name, value, fitting }), wrong: true };
  }
  const parts = [];
  if (length?.value) {
    const fps = widgetOf(node, "fps") ? valueOf(node, "fps")?.value : releaseFps;
    const [frames, seconds] = [length.value, fps ? (length.value / fps).toFixed(2) : 0];
    parts.push(say(fps ? "seconds" : "frames", { frames, seconds, fps: fps ?? 0 }));
  }
  if (width && height) parts.push(`${width.value} × ${height.value}`);
  return { text: parts.join(" · "), wrong: false };
}

/**
 * The line on a node with sizes or lengths, and edits that are rounded.
 * @param {HostNode} node
 */
export function addSizes(node) {
  const numbers = [...SIZES, ...LENGTHS].flatMap((name) => widgetOf(node, name) ?? []);
  if (!numbers.length) return;
  const line = make("div", "wan22-readout");
  let turn = 0;
  const update = async () => {
    turn += 1;
    const mine = turn;
    const { fps, multiple } = await factsOf(node);
    if (mine !== turn) return; // a later change was answered first
    followVae(node, multiple);
    const { text, wrong } = describe(node, fps);
    line.textContent = text;
    line.classList.toggle("wrong", wrong);
    redraw();
  };
  for (const widget of numbers) snapEdits(widget);
  const rate = widgetOf(node, "fps") ?? [];
  for (const widget of numbers.concat(rate)) after(widget, "callback", update);
  for (const event of CHANGES) after(node, event, () => queueMicrotask(update));
  new NodeElement(node, "size", line, () => HEIGHT);
  update();
}

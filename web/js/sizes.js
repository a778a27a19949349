// Says how long and large a video will be, and rounds what users enter to what the models can make. A workflow's
// values are left as they are when it is loaded: what does not fit is shown in red.
import { after, isLinked, make, NodeElement, origin, redraw, widgetOf } from "./host.js";

const HEIGHT = 16;
const FPS = { WanTI2VLatent: 24, WanPoseAnimate: 30, WanAnimateCondition: 30 };
const DEFAULT_FPS = 16;
const SIZES = ["width", "height"];
const LENGTHS = ["frames", "frames_per_clip", "length"];
// the autoencoder of TI2V-5B, whose cells are twice as large, by the names its file is published under
const VAE_2_2 = /wan.?2[._]2.?vae/i;

/** The values that a number widget can have, as its input is declared: offset + n * step, from `low` to `high`. */
function gridOf(widget) {
  const { min = 0, max = Infinity, step2, step } = widget.options;
  const size = step2 ?? (step ?? 10) / 10;
  const offset = min % size;
  return { step: size, offset, low: offset + Math.ceil((min - offset) / size) * size, high: max };
}

/** The nearest of them. */
function snapped(value, { step, offset, low, high }) {
  const last = offset + Math.floor((high - offset) / step) * step;
  return Math.min(last, Math.max(low, Math.round((value - offset) / step) * step + offset));
}

/** Rounds a widget's value where the user changes it. */
function snapEdits(widget) {
  after(widget, "callback", (value) => {
    const fitting = snapped(Number(value), gridOf(widget));
    if (!Number.isFinite(fitting)) return;
    widget.value = fitting;
    // pages whose nodes are elements show what was entered until they are told again
    if (fitting !== value) queueMicrotask(() => widget.callback(fitting));
  });
}

/** Whether the 2.2 VAE is connected, as far as its loader's file name tells. */
function hasVae22(node) {
  const loader = origin(node, "vae")?.node;
  return Boolean(loader?.widgets?.some((widget) => VAE_2_2.test(String(widget.value))));
}

/** Sizes are multiples of 16 with the 2.1 VAE and of 32 with the 2.2, where a node takes both. */
function followVae(node) {
  for (const name of SIZES) {
    const { options } = widgetOf(node, name) ?? {};
    if (!options) continue;
    options.wan22Step ??= gridOf({ options }).step;
    const step = hasVae22(node) ? Math.max(32, options.wan22Step) : options.wan22Step;
    Object.assign(options, { step2: step, step: step * 10, min: step });
  }
}

function fpsOf(node) {
  const own = Number(widgetOf(node, "fps")?.value);
  return own || FPS[node.comfyClass] || (hasVae22(node) ? FPS.WanTI2VLatent : DEFAULT_FPS);
}

/** What is known of a number input: null where another node gives it. */
function valueOf(node, name) {
  const widget = widgetOf(node, name);
  return widget && !isLinked(node, name) ? { value: Number(widget.value), grid: gridOf(widget), name } : null;
}

/** One line on the video of a node, and whether it can be made. */
function describe(node) {
  const length = LENGTHS.map((name) => valueOf(node, name)).find(Boolean);
  const [width, height] = SIZES.map((name) => valueOf(node, name));
  for (const { value, grid, name } of [length, width, height].filter(Boolean)) {
    const fitting = snapped(value, grid);
    if (fitting !== value) return { text: `${name} ${value} cannot be made, ${fitting} can`, wrong: true };
  }
  const parts = [];
  if (length?.value) {
    const fps = fpsOf(node);
    parts.push(`${length.value} frames = ${(length.value / fps).toFixed(2)} s at ${fps} fps`);
  }
  if (width && height) parts.push(`${width.value} × ${height.value}`);
  return { text: parts.join(" · "), wrong: false };
}

/** The line on a node with sizes or lengths, and edits that are rounded. */
export function addSizes(node) {
  const numbers = [...SIZES, ...LENGTHS].map((name) => widgetOf(node, name)).filter(Boolean);
  if (!numbers.length) return;
  const line = make("div", "wan22-readout");
  const update = () => {
    followVae(node);
    const { text, wrong } = describe(node);
    line.textContent = text;
    line.classList.toggle("wrong", wrong);
    redraw();
  };
  for (const widget of numbers) snapEdits(widget);
  for (const widget of [...numbers, widgetOf(node, "fps")].filter(Boolean)) after(widget, "callback", update);
  for (const event of ["onConfigure", "onConnectionsChange"]) after(node, event, () => queueMicrotask(update));
  new NodeElement(node, "size", line, () => HEIGHT);
  update();
}

// What the modules of this folder share: the host's app and api, and small things to do with its nodes.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

export { api, app };

const MARGIN = 6;

/** Whether a node is one of this pack. */
export function isOurs(node) {
  return Boolean(node?.constructor?.nodeData?.category?.startsWith("Wan2.2/"));
}

/** The node with an id of the running prompt ("7", or "3:7" inside a subgraph), or null where it is not open. */
export function nodeOf(executionId) {
  let graph = app.rootGraph ?? app.graph;
  let node = null;
  for (const id of String(executionId).split(":")) {
    node = graph?.getNodeById?.(id) ?? null;
    graph = node?.subgraph;
  }
  return node;
}

/** Lets `then` run after a method of this one object, which stays as it is. */
export function after(object, name, then) {
  const before = object[name];
  object[name] = function (...args) {
    const result = before?.apply(this, args);
    then.apply(this, args);
    return result;
  };
}

export function widgetOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name);
}

export function isLinked(node, input) {
  return node.inputs?.find((slot) => slot.name === input)?.link != null;
}

/** Node and output slot at the other end of an input's wire, or null. */
export function origin(node, input) {
  const id = node.inputs?.find((slot) => slot.name === input)?.link;
  const links = node.graph?.links;
  const link = id == null ? null : (links?.get?.(id) ?? links?.[id]);
  const from = link && node.graph.getNodeById(link.origin_id);
  return from ? { node: from, slot: link.origin_slot } : null;
}

/** Puts an element of `height` pixels (a function: asked anew) on a node, below its widgets; it is neither saved with the
    workflow nor sent with the prompt. Null where the host's page has no elements on nodes. */
export function addElement(node, name, element, height) {
  if (!node.addDOMWidget) return null;
  const current = () => (typeof height === "function" ? height() : height);
  const whole = () => {
    element.style.minHeight = `${current()}px`; // for pages whose nodes are elements, too
    return current() + 2 * MARGIN;
  };
  const options = { serialize: false, margin: MARGIN, getMinHeight: whole, getMaxHeight: whole, getValue: () => "" };
  const widget = node.addDOMWidget(name, "wan22", element, options);
  widget.serialize = false;
  whole();
  grow(node);
  return widget;
}

/** Takes such an element off again, and gives back the room it took. */
export function removeElement(node, widget) {
  const index = node.widgets?.indexOf(widget) ?? -1;
  if (index < 0) return;
  const height = widget.computedHeight ?? widget.options.getMinHeight();
  node.widgets.splice(index, 1);
  widget.onRemove?.();
  node.setSize([node.size[0], Math.max(node.size[1] - height, node.computeSize()[1])]);
  redraw();
}

/** Makes a node large enough for what is on it. */
export function grow(node) {
  const [width, height] = node.computeSize();
  if (width > node.size[0] || height > node.size[1]) {
    node.setSize([Math.max(width, node.size[0]), Math.max(height, node.size[1])]);
  }
  redraw();
}

export function redraw() {
  app.canvas?.setDirty?.(true, true);
}

/** An element with class and text; several texts and elements are put one after the other. */
export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("wan22.css", import.meta.url).href;
document.head.append(style);

// What the modules of this folder share: the host's app and api, and small things to do with its nodes.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

export { api, app };

/** The events that end a run. */
export const RUN_ENDS = ["execution_success", "execution_error", "execution_interrupted"];

const MARGIN = 6;

/** What of a node is called when it has its values or its wires have changed. */
export const CHANGES = ["onConfigure", "onConnectionsChange"];

/**
 * Whether a node is one of this pack.
 * @param {HostNode} node
 */
export function isOurs(node) {
  const { nodeData } = /** @type {{ nodeData?: HostNodeDef }} */ (node.constructor);
  return Boolean(nodeData?.category?.startsWith("Wan2.2/"));
}

/**
 * Whether this host's page can have elements on a node.
 * @param {HostNode} node
 */
export function takesElements(node) {
  return typeof node.addDOMWidget === "function";
}

/**
 * The node with an id of the running prompt ("7", or "3:7" inside a subgraph), or null where it is not open.
 * @param {string | number} executionId
 */
export function nodeOf(executionId) {
  /** @type {HostGraph | undefined} */
  let graph = app.rootGraph ?? app.graph;
  /** @type {HostNode | null} */
  let node = null;
  for (const id of String(executionId).split(":")) {
    node = graph?.getNodeById?.(id) ?? null;
    graph = node?.subgraph;
  }
  return node;
}

/**
 * Lets `then` run after a method of this one object, which stays as it is.
 * @param {HostNode | HostWidget} object
 * @param {string} name
 * @param {(...args: any[]) => void} then
 */
export function after(object, name, then) {
  const methods = /** @type {Record<string, any>} */ (object);
  const before = methods[name];
  /** @type {(this: unknown, ...args: any[]) => any} */
  methods[name] = function (...args) {
    const result = before?.apply(this, args);
    then.apply(this, args);
    return result;
  };
}

/**
 * @param {HostNode} node
 * @param {string} name
 */
export function widgetOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name);
}

/**
 * @param {HostNode} node
 * @param {string} input
 */
function placeOf(node, input) {
  return node.inputs?.findIndex((slot) => slot.name === input) ?? -1;
}

/**
 * Whether a wire comes in. A node that is not yet in a graph has none.
 * @param {HostNode} node
 * @param {string} input
 */
export function isLinked(node, input) {
  const place = placeOf(node, input);
  return place >= 0 && Boolean(node.graph) && node.isInputConnected(place);
}

/**
 * Node and output slot at the other end of an input's wire, or null.
 * @param {HostNode} node
 * @param {string} input
 */
export function origin(node, input) {
  const link = isLinked(node, input) ? node.getInputLink(placeOf(node, input)) : null;
  const from = link && node.graph?.getNodeById?.(link.origin_id);
  return from ? { node: from, slot: link.origin_slot } : null;
}

/**
 * An element of `height()` pixels on a node, below its widgets, neither saved with the workflow nor sent with it.
 * It is there from the node's creation on, shown or not: pages whose nodes are elements miss those that come later.
 */
export class NodeElement {
  /**
   * @param {HostNode} node one that `takesElements`
   * @param {string} name
   * @param {HTMLElement} element
   * @param {() => number} height
   * @param {{ hideOnZoom?: boolean, isShown?: boolean }} options
   */
  constructor(node, name, element, height, { hideOnZoom = true, isShown = true } = {}) {
    this.node = node;
    this.element = element;
    this.height = height;
    const whole = () => (this.isShown ? this.fit() : 0); // the host asks for hidden ones, too
    const options = {
      serialize: false, hideOnZoom, margin: MARGIN, getMinHeight: whole, getMaxHeight: whole, getValue: () => "",
    };
    this.widget = /** @type {Required<HostNode>} */ (node).addDOMWidget(name, "wan22", element, options);
    this.widget.serialize = false;
    this.set(isShown);
    if (isShown) grow(node);
  }

  get isShown() {
    return !this.widget.hidden;
  }

  /** Height with margins; also set on the element, for pages whose nodes are elements. */
  fit() {
    const height = this.height();
    this.element.style.minHeight = `${height}px`;
    return height + 2 * MARGIN;
  }

  /** @param {boolean} isShown */
  set(isShown) {
    this.widget.hidden = !isShown;
    this.element.hidden = !isShown;
    if (isShown) this.fit();
  }

  /** Shows it, or fits the node to it again. */
  show() {
    this.set(true);
    grow(this.node);
  }

  /** Hides it, and gives back the room it took. */
  hide() {
    if (!this.isShown) return;
    const height = this.widget.computedHeight ?? this.fit();
    this.set(false);
    const { node } = this;
    node.setSize([node.size[0], Math.max(node.size[1] - height, node.computeSize()[1])]);
    redraw();
  }
}

/**
 * Makes a node high enough for what is on it. Its width stays: with a film on it, the host wants more than it has.
 * @param {HostNode} node
 */
export function grow(node) {
  const height = node.computeSize()[1];
  if (height > node.size[1]) node.setSize([node.size[0], height]);
  redraw();
}

export function redraw() {
  app.canvas?.setDirty?.(true, true);
}

/**
 * An element with class and text; several texts and elements are put one after the other.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string} className
 * @param {(string | Node)[]} children
 */
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

// Says on a node that a folder it is to load is not there. The page itself looks for files alone.
import { after, isLinked } from "./host.js";
import { hide, show } from "./report.js";
import { say } from "./texts.js";

const FILE = /\.[a-z0-9]{1,11}$/i;
const UPLOADED = "file"; // the list of films, which are the user's own
const RELEASE = /^wan\/((?:Wan2\.2-)?((?:T2V|I2V)-A14B|TI2V-5B|(?:S2V|Animate|Animate-2)-14B))(?=\/|$)/;
const PUBLISHER = "huggingface.co/Wan-AI/Wan2.2-"; // of the official releases
/** @type {Set<() => void>} what looks at a node once more, for each node in a graph */
const checks = new Set();

/**
 * What a list does not have of what it is set to, where that is no file.
 * @param {HostWidget} widget
 */
function isMissing({ type, value, options: { values } }) {
  return type === "combo" && typeof value === "string" && value !== "" && !FILE.test(value)
    && Array.isArray(values) && !values.includes(value);
}

/** @param {HostWidget} widget */
function describe(widget) {
  const value = String(widget.value);
  const [, folder, release] = RELEASE.exec(value) ?? [];
  return release ? say("missing_release", { value, folder, url: PUBLISHER + release }) : say("missing", { value });
}

/**
 * Looks at a node's lists when they are set.
 * @param {HostNode} node
 */
export function addMissing(node) {
  const lists = node.widgets?.filter(({ type, name }) => type === "combo" && name !== UPLOADED) ?? [];
  if (!lists.length) return;
  let isShown = false;
  const check = () => {
    const missing = lists.filter((widget) => isMissing(widget) && !isLinked(node, widget.name));
    if (missing.length) show(node, missing.map(describe).join("\n"), "error");
    else if (isShown) hide(node);
    isShown = missing.length > 0;
  };
  for (const widget of lists) after(widget, "callback", check);
  after(node, "onConfigure", () => queueMicrotask(check));
  after(node, "onAdded", () => checks.add(check));
  after(node, "onRemoved", () => checks.delete(check));
}

/** Looks at all nodes, whose lists may have changed. */
export function checkAll() {
  for (const check of checks) check();
}

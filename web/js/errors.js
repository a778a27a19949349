// Shows an error of one of our nodes, with what to do about it, on the node. The page itself gives notice of it.
import { api, isOurs, nodeOf } from "./host.js";
import { hide, show } from "./report.js";

/** @type {Set<HostNode>} */
const failed = new Set();

function clear() {
  for (const node of failed) hide(node);
  failed.clear();
}

export function listenForErrors() {
  api.addEventListener("execution_start", clear);
  api.addEventListener("execution_error", ({ detail }) => {
    const node = nodeOf(detail?.node_id);
    if (!node || !isOurs(node) || node.comfyClass !== detail.node_type) return;
    const text = String(detail.exception_message ?? detail.exception_type ?? "unknown error").trim();
    show(node, text, "error");
    failed.add(node);
  });
}

// Settings that count with the preset "custom" alone, or with a base model, are folded away by pages that can; here
// they are shown where they count, or where one has a wire.
import { after, CHANGES, grow, isLinked, widgetOf } from "./host.js";

/**
 * Follows the preset of a node.
 * @param {HostNode} node
 */
export function addSettings(node) {
  const preset = widgetOf(node, "preset");
  const folded = node.widgets?.filter(({ advanced, options }) => advanced || options?.advanced) ?? [];
  if (!preset || !folded.length) return;
  const names = [preset, ...folded].map(({ name }) => name);
  const counts = () => preset.value === "custom" || ["model_base", ...names].some((name) => isLinked(node, name));
  const unfold = () => {
    if (!counts()) return false;
    node.showAdvanced = true;
    grow(node);
    return true;
  };
  after(preset, "callback", () => unfold() || (node.showAdvanced = false));
  for (const event of CHANGES) after(node, event, () => queueMicrotask(unfold));
}

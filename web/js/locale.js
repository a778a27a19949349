// Names and tooltips in the page's language, from the pack's locales/. Newer pages do this by themselves; the page of
// ComfyUI 0.3.75 loads its own language later than those of custom nodes and loses them.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const PACK = "Wan2.2/";
/** @typedef {{ name?: string, tooltip?: string }} Words of an input or output */
/**
 * @typedef {object} NodeWords
 * @property {string} display_name
 * @property {string} [description]
 * @property {Record<string, Words>} [inputs]
 * @property {Record<string, Words>} [outputs]
 */

/** @type {Record<string, NodeWords>} */
const words = {};

/** @param {HostNode} node */
function nameSlots(node) {
  const ours = words[node.comfyClass];
  if (!ours) return;
  const nameOf = (/** @type {HostSlot | HostWidget} */ part) => ours.inputs?.[part.name]?.name;
  for (const input of node.inputs ?? []) input.localized_name = nameOf(input) ?? input.localized_name;
  for (const widget of node.widgets ?? []) widget.label = nameOf(widget) ?? widget.label;
  (node.outputs ?? []).forEach((output, place) => {
    output.localized_name = ours.outputs?.[place]?.name ?? output.localized_name;
  });
}

app.registerExtension({
  name: "Wan22.Locale",
  async addCustomNodeDefs(defs) {
    const language = String(app.extensionManager?.setting?.get("Comfy.Locale") ?? "en");
    if (language === "en") return;
    const all = await (await api.fetchApi("/i18n")).json();
    /** @type {Record<string, NodeWords>} */
    const translated = all[language]?.nodeDefs ?? {};
    for (const [id, ours] of Object.entries(translated)) {
      const def = defs[id];
      if (!def?.category?.startsWith(PACK) || def.display_name === ours.display_name) continue;
      words[id] = ours;
      def.display_name = ours.display_name;
      def.description = ours.description ?? def.description;
      for (const group of [def.input.required, def.input.optional])
        for (const [name, spec] of Object.entries(group ?? {}))
          if (ours.inputs?.[name]?.tooltip) spec[1] = { ...spec[1], tooltip: ours.inputs?.[name]?.tooltip };
    }
  },
  nodeCreated: nameSlots,
  loadedGraphNode: nameSlots,
});

// Older pages call a file missing that lies in a folder they do not know, such as models/wan. While they open a
// workflow they are not told of the files that our lists have; afterwards its nodes say again where these come from.
import { app } from "./host.js";

/** @typedef {{ name: string }} ModelFile */
/** @typedef {{ id: string | number, type: string, properties?: { models?: ModelFile[] } }} SavedNode */
/** @typedef {{ id?: string, nodes?: SavedNode[], definitions?: { subgraphs?: SavedGraph[] } }} SavedGraph */

/** @type {{ graph?: string, node: string | number, models: ModelFile[] }[]} what the page was not told */
let aside = [];

/**
 * What the lists of a node of ours have; nothing for nodes of others.
 * @param {string} type
 */
function listed(type) {
  const { category, input } = LiteGraph.registered_node_types[type]?.nodeData ?? {};
  if (!category?.startsWith("Wan2.2/")) return [];
  const specs = [input?.required, input?.optional].flatMap((group) => Object.values(group ?? {}));
  return specs.flatMap(([kind, options]) => (Array.isArray(kind) ? kind : (options?.options ?? [])));
}

/** @param {SavedGraph} workflow that is about to be opened */
export function setAside(workflow) {
  aside = [];
  const subgraphs = workflow.definitions?.subgraphs ?? [];
  for (const graph of [workflow, ...subgraphs])
    for (const { id, type, properties } of graph.nodes ?? []) {
      const models = properties?.models;
      if (!properties || !Array.isArray(models)) continue;
      const there = listed(type);
      const missing = models.filter(({ name }) => !there.includes(name));
      if (missing.length === models.length) continue;
      aside.push({ graph: graph === workflow ? undefined : graph.id, node: id, models });
      properties.models = missing;
    }
}

/** The workflow is open. */
export function putBack() {
  const root = app.rootGraph ?? app.graph;
  for (const { graph, node, models } of aside) {
    const properties = (graph ? root.subgraphs?.get(graph) : root)?.getNodeById?.(node)?.properties;
    if (properties) properties.models = models;
  }
  aside = [];
}

// Gives our workflows titles in the page's template browser, which shows those of a pack by their file names: the title
// that stands in each workflow's note. They are in locales/, where the page has those of its own templates.
import { translated, withStore } from "./stores.js";

/** That of the pack, in the address extensions/<folder>/js. */
const FOLDER = decodeURIComponent(new URL("..", import.meta.url).pathname.split("/").at(-2) ?? "");
const TITLES = "templateWorkflows.template.wan22-native";

/** @param {{ name: string, title?: string, sourceModule?: string }} template as the page lists it */
function entitle(template) {
  if (template.sourceModule === FOLDER) {
    template.title = translated(`${TITLES}.${template.name}`) ?? template.name;
  }
}

export function entitleTemplates() {
  withStore("workflowTemplates", (templates) => {
    const before = templates.filterTemplatesByCategory;
    if (typeof before !== "function") return;
    // the page asks for each category that it shows, and anew in another language
    templates.filterTemplatesByCategory = (/** @type {string} */ category) => {
      const found = before(category);
      found.forEach(entitle);
      return found;
    };
  });
}

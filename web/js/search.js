// Lets the page's search find the nodes that people begin with. It ranks what a word fits equally well by how often a
// node is used in published workflows; who has this pack means its nodes by "wan", beside those of the host.
const FIRST = ["WanMoESampler", "WanDiTLoader", "WanT5Loader", "WanVAELoader", "WanT5Encode", "WanEmptyLatent"];
const STORE = "nodeFrequency";
const RANK = 100; // the host's most frequent Wan node has 54

/** @param {any} frequencies the page's store of them */
function rank(frequencies) {
  const before = frequencies?.getNodeFrequencyByName;
  if (typeof before !== "function") return;
  frequencies.getNodeFrequencyByName = (/** @type {string} */ name) =>
    Math.max(before(name), FIRST.includes(name) ? RANK : 0);
}

/** Nothing happens on a page that keeps its frequencies elsewhere. */
export function rankFirst() {
  /** @type {any} */
  const root = document.getElementById("vue-app");
  const stores = root?.__vue_app__?.config.globalProperties.$pinia;
  rank(stores?._s?.get(STORE));
  // some pages make it when it is first needed
  stores?.use?.((/** @type {{ store: any }} */ { store }) => {
    if (store.$id === STORE) rank(store);
  });
}

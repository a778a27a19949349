// Lets the page's search find the nodes that people begin with. It ranks what a word fits equally well by how often a
// node is used in published workflows; who has this pack means its nodes by "wan", beside those of the host.
import { withStore } from "./stores.js";

const FIRST = ["WanMoESampler", "WanDiTLoader", "WanT5Loader", "WanVAELoader", "WanT5Encode", "WanEmptyLatent"];
const RANK = 100; // the host's most frequent Wan node has 54

export function rankFirst() {
  withStore("nodeFrequency", (frequencies) => {
    const before = frequencies.getNodeFrequencyByName;
    if (typeof before !== "function") return;
    frequencies.getNodeFrequencyByName = (/** @type {string} */ name) =>
      Math.max(before(name), FIRST.includes(name) ? RANK : 0);
  });
}

// The page's own stores (Pinia) and words, which it does not hand to extensions. On a page that keeps them elsewhere,
// nothing of what stands on them happens.
const OURS = "wan22";

/** @returns {any} what is everywhere in the page */
function globals() {
  /** @type {any} */
  const root = document.getElementById("vue-app");
  return root?.__vue_app__?.config.globalProperties ?? {};
}

/**
 * Hands over a store of the page, now or when the page makes it: some are made when they are first needed.
 * @param {string} id
 * @param {(store: any) => void} then
 */
export function withStore(id, then) {
  const stores = globals().$pinia;
  const made = stores?._s?.get(id);
  if (made) then(made);
  else stores?.use?.((/** @type {{ store: any }} */ { store }) => store.$id === id && then(store));
}

/**
 * A text of locales/ in the page's language, else in English, or undefined where there is none.
 * @param {string} key
 * @returns {string | undefined}
 */
export function translated(key) {
  const text = globals().$t?.(key); // the key itself where there is none
  return text === key ? undefined : text;
}

/** What reads `turn` while the page draws it is drawn anew after `next`. */
export const changes = {
  /** @returns {number} */
  get turn() {
    return globals().$pinia?.state.value[OURS]?.turn ?? 0;
  },
  next() {
    const state = globals().$pinia?.state.value;
    if (state) state[OURS] = { turn: changes.turn + 1 };
  },
};

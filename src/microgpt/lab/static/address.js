/** What the reader looks at stands in the address, so that it can be sent to someone. */

import { listen, state } from "./store.js";

/** @import { View } from "./types.js" */

/** @type {Record<string, keyof View>} */
const NUMBERS = { row: "row", pos: "position", layer: "layer", head: "head", t: "temperature", k: "topK", p: "topP" };

/** @returns {{ session: string, at: number | null, view: Partial<View> }} */
export function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  /** @type {Record<string, any>} */
  const view = {};
  for (const [word, key] of Object.entries(NUMBERS)) {
    const value = Number(words.get(word) ?? NaN);
    if (Number.isFinite(value)) view[key] = value;
  }
  if (words.get("text")) view.text = words.get("text");
  if (words.has("log")) view.log = true;
  const at = words.get("step");
  return { session: words.get("session") ?? "", at: at !== null && /^\d+$/.test(at) ? Number(at) : null, view };
}

/** @returns {string} the part after # */
export function address() {
  const words = new URLSearchParams();
  if (state.sessionId) words.set("session", state.sessionId);
  if (state.at !== null) words.set("step", String(state.at));
  const plain = { row: 0, position: -1, layer: 0, head: 0, temperature: 1, topK: 0, topP: 1 };
  for (const [word, key] of Object.entries(NUMBERS)) {
    if (state.view[key] !== plain[/** @type {keyof typeof plain} */ (key)]) words.set(word, String(state.view[key]));
  }
  if (state.view.text) words.set("text", state.view.text);
  if (state.view.log) words.set("log", "1");
  return words.toString();
}

/** Keep the address up to date, not more often than browsers allow. */
export function followAddress() {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  listen(() => {
    timer ??= setTimeout(() => {
      timer = undefined;
      const fresh = `#${address()}`;
      if (fresh !== location.hash) history.replaceState(null, "", fresh);
    }, 400);
  });
}

/** The keyboard: one letter for each thing that a session does. */

import { move, pause, run, sample, stepOnce, travel } from "./session.js";
import { set, state } from "./store.js";

export const KEYS = [
  ["N", "a new session"],
  ["S", "one step"],
  ["R", "run"],
  ["P", "pause"],
  ["C", "draw samples"],
  ["Enter", "begin the new session"],
  ["[ and ]", "one step back, one forward in time"],
  ["L", "back to the newest step"],
  ["?", "this sheet"],
  ["Esc", "close"],
];

/** How fast R and the button run: steps (0 is to the end) and the pause after each in ms. */
export const speed = { steps: 0, delay: 0 };

/** @type {Record<string, () => void>} */
const ACTIONS = {
  n: () => set({ dialog: "new" }),
  "?": () => set({ dialog: "keys" }),
  s: () => void stepOnce(),
  r: () => void run(speed.steps, speed.delay),
  p: () => void pause(),
  c: () => void sample(),
  "[": () => move(-1),
  "]": () => move(1),
  l: () => travel(null),
};

/** Which keys mean something now. @param {string} key */
function allowed(key) {
  if (key === "n" || key === "?") return true;
  if (!state.sessionId) return false;
  const live = state.metadata?.kind === "live";
  if (key === "s") return live && !state.running && !state.metadata?.completed;
  if (key === "r") return live && !state.running && !state.metadata?.completed;
  if (key === "p") return state.running && live;
  return true;
}

export function listen() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog:modal")) return;
    const target = event.target instanceof Element ? event.target : document.body;
    if (target.closest("input:not([type=range], [type=checkbox]), textarea, select")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key === "Enter" && !target.closest("button, a, summary, [role=button]")) {
      event.preventDefault();
      set({ dialog: "new" });
    } else if (ACTIONS[key] && allowed(key)) {
      event.preventDefault();
      ACTIONS[key]();
    }
  });
}

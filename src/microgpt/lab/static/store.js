/** What the page knows, in one place; components listen to the parts they show. */

import { useEffect, useState } from "./vendor/preact.js";

/** @import { State } from "./types.js" */

/** @type {State} */
export const state = {
  sessions: [],
  sessionId: null,
  metadata: null,
  running: false,
  link: "off",
  points: [],
  newest: 0,
  at: null,
  samples: [],
  branches: [],
  notice: "",
  busy: "",
  dialog: "",
  view: { row: 0, position: -1, layer: 0, head: 0, temperature: 1, topK: 0, topP: 1, log: false, text: "" },
  off: [],
  loaded: false,
  tour: false,
  options: null,
};

/** @type {Set<() => void>} */
const listeners = new Set();

let due = false;

function tell() {
  due = false;
  for (const listener of [...listeners]) listener();
}

/** Change the state; listeners hear of all changes of a frame at once. @param {Partial<State>} patch */
export function set(patch) {
  Object.assign(state, patch);
  if (due) return;
  due = true;
  if (document.visibilityState === "visible") requestAnimationFrame(tell);
  else setTimeout(tell, 200);
}

/** @param {Partial<State["view"]>} patch */
export function setView(patch) {
  set({ view: { ...state.view, ...patch } });
}

/** @param {() => void} listener called after each change */
export function listen(listener) {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

/**
 * A part of the state; the component is drawn again when that part is another one.
 * @template T
 * @param {(state: State) => T} select must return parts, not new objects
 * @returns {T}
 */
export function useLab(select) {
  const [, again] = useState(0);
  const selected = select(state);
  useEffect(() => {
    let last = select(state);
    if (last !== selected) again((n) => n + 1);
    return listen(() => {
      const now = select(state);
      if (now !== last) {
        last = now;
        again((n) => n + 1);
      }
    });
  }, []);
  return selected;
}

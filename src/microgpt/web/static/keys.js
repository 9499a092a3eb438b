// @ts-check
/** The keyboard. */

import { byId } from "./dom.js";

/**
 * @typedef {object} KeyActions
 * @property {() => boolean} escape true where there was something to leave
 * @property {() => void} editLast
 * @property {() => void} send
 */

/** @param {KeyActions} actions */
export function listen(actions) {
  /** @type {HTMLTextAreaElement} */
  const box = byId("box");
  box.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // Enter and the arrows belong to the input method
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      actions.send();
    } else if (event.key === "ArrowUp" && box.value === "") {
      event.preventDefault();
      actions.editLast();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog:modal")) return;
    const focusKey = event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
    const typing = event.target instanceof Element && event.target.closest("input:not([type=range], [type=checkbox]), textarea, select");
    const plain = !typing && !event.ctrlKey && !event.metaKey && !event.altKey;
    if (event.key === "Escape") {
      if (actions.escape()) event.preventDefault();
    } else if (focusKey || (plain && event.key === "/")) {
      event.preventDefault();
      box.focus();
    } else if (plain && event.key === "?") {
      event.preventDefault();
      byId("help").showModal();
    }
  });
}

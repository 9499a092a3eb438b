// @ts-check
/** The small things around the conversation: a notice, light and dark, the key, the export. */

import { key, setKey } from "./api.js";
import { announce, byId, el } from "./dom.js";
import { dump } from "./storage.js";
import { path } from "./tree.js";

/**
 * @param {string} text empty takes the notice away
 * @param {string} action name of a button; empty for none
 * @param {() => void} act
 */
export function notice(text, action = "", act = () => {}) {
  const hide = () => {
    byId("notice").hidden = true;
  };
  if (text && (byId("notice").hidden || byId("notice-text").textContent !== text)) announce(text);
  byId("notice").hidden = text === "";
  byId("notice-text").textContent = text;
  byId("notice-act").hidden = action === "";
  byId("notice-act").textContent = action;
  byId("notice-act").onclick = () => {
    hide();
    act();
  };
  byId("notice-close").onclick = () => {
    hide();
    byId("box").focus();
  };
}

export function themeButton() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = byId("theme");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => {
    const to = dark() ? "Light" : "Dark";
    button.title = to;
    button.setAttribute("aria-label", `${to} colours`);
  };
  button.addEventListener("click", () => {
    const to = dark() ? "light" : "dark";
    // back at the system's own choice, the page follows the system again
    const follow = (to === "dark") === system.matches;
    if (follow) delete root.dataset.theme;
    else root.dataset.theme = to;
    try {
      if (follow) localStorage.removeItem("microgpt.theme");
      else localStorage.setItem("microgpt.theme", to);
    } catch {
      // no storage: the choice holds until the page is left
    }
    name();
  });
  system.addEventListener("change", name);
  name();
}

/** @returns {Promise<boolean>} whether there is a key now */
export function askForKey() {
  /** @type {HTMLDialogElement} */
  const dialog = byId("key");
  /** @type {HTMLInputElement} */
  const input = byId("key-input");
  byId("key-text").textContent = key()
    ? "It refused the one that it got."
    : "It is kept in this tab until you close it.";
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  byId("key-cancel").onclick = () => dialog.close();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const given = dialog.returnValue === "ok" && input.value !== "";
        if (given) setKey(input.value);
        input.value = "";
        resolve(given);
      },
      { once: true },
    );
  });
}

/**
 * Hand the conversation over as a file: the messages that are shown in the API's form, and all branches.
 *
 * @param {import("./main.js").State} state
 */
export function exportConversation({ tree, settings, model }) {
  const system = settings.system.trim() ? [{ role: "system", content: settings.system }] : [];
  const content = {
    messages: [...system, ...path(tree).map(({ role, content }) => ({ role, content }))],
    model: model?.id ?? "",
    exported: new Date().toISOString(),
    sampling: settings.sampling,
    branches: dump(tree),
  };
  const address = URL.createObjectURL(new Blob([JSON.stringify(content, null, 2)], { type: "application/json" }));
  const link = el("a", { href: address, download: `conversation-${content.exported.slice(0, 10)}.json` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

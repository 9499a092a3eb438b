// @ts-check
/** One message on the page: its text, what is known of it, and what can be done with it. */

import { copy, el, fit, icon, iconButton } from "./dom.js";
import { level, pieces, probability } from "./tokens.js";

/** @typedef {import("./tree.js").Node} Node */
/** @typedef {import("./tokens.js").Piece} Piece */

/**
 * @typedef {object} Actions what the page can do
 * @property {(id: string, text: string) => void} edit
 * @property {(id: string) => void} again
 * @property {(id: string) => void} goOn
 * @property {(id: string, by: -1 | 1) => void} step
 * @property {(text: string) => void} say
 * @property {() => void} edited
 * @property {import("./tip.js").Tip} tip
 */

/**
 * @typedef {object} Shown how a message is to be shown
 * @property {{index: number, count: number}} place its place among its branches
 * @property {boolean} running whether it is being written
 * @property {boolean} busy whether any reply is being written
 * @property {boolean} last
 * @property {boolean} probabilities
 * @property {string} given the text that it goes on with, for models without conversations
 */

/** A message's element, kept up to date by `update`. */
export class Message {
  /** @type {HTMLElement} */
  element;
  #text = el("div", { class: "text" });
  #note = el("p", { class: "note", hidden: "" });
  #error = el("div", { class: "error", hidden: "" });
  #tools = el("div", { class: "tools" });
  /** @type {Map<HTMLElement, Piece>} */
  #pieces = new Map();
  #toolsKey = "";
  #editing = false;
  #probabilities = false;

  /**
   * @param {Node} node
   * @param {Actions} actions
   */
  constructor(node, actions) {
    this.node = node;
    this.actions = actions;
    const label = node.role === "user" ? "You" : "Reply";
    this.element = el("article", { class: `message ${node.role}`, "aria-label": label, "data-id": node.id, tabindex: "-1" });
    this.element.append(this.#note, this.#text, this.#error, this.#tools);
    if (node.role === "assistant") this.#listen();
  }

  /** @param {Shown} shown */
  update(shown) {
    if (this.#editing) return;
    const { reply } = this.node;
    this.element.classList.toggle("running", shown.running);
    if (reply) {
      this.#probabilities = shown.probabilities;
      this.element.classList.toggle("coloured", shown.probabilities);
      this.#updatePieces(shown.given);
      this.#note.hidden = !reply.dropped;
      this.#note.textContent = `The oldest ${count(reply.dropped, "token")} no longer fit into the context.`;
      this.#updateError(shown);
    } else {
      this.#text.textContent = this.node.content;
    }
    const key = JSON.stringify([shown, reply?.finish, shown.running ? 0 : reply?.tokens.length]);
    if (key === this.#toolsKey) return;
    this.#toolsKey = key;
    this.#updateTools(shown);
  }

  /** @param {string} given */
  #updatePieces(given) {
    const { content, reply } = this.node;
    const found = pieces(content, reply?.tokens ?? []);
    let first = this.#text.firstElementChild;
    if (given) {
      if (!first?.classList.contains("given")) {
        first = el("span", { class: "given" });
        this.#text.prepend(first);
      }
      if (first.textContent !== given) first.textContent = given;
      first = first.nextElementSibling;
    }
    let span = /** @type {HTMLElement | null} */ (first);
    for (const piece of found) {
      if (!span) {
        span = el("span");
        this.#text.append(span);
      }
      if (span.textContent !== piece.text) span.textContent = piece.text;
      span.className = piece.tokens.length ? `token p${level(probability(piece))}` : "";
      this.#pieces.set(span, piece);
      span = /** @type {HTMLElement | null} */ (span.nextElementSibling);
    }
    while (span) {
      const next = /** @type {HTMLElement | null} */ (span.nextElementSibling);
      this.#pieces.delete(span);
      span.remove();
      span = next;
    }
    // one stop of the Tab key for a whole reply; the arrow keys go from token to token
    const held = this.#text.querySelector("[tabindex]");
    if (this.#probabilities && !held) this.#text.querySelector(".token")?.setAttribute("tabindex", "0");
    if (!this.#probabilities) held?.removeAttribute("tabindex");
  }

  #listen() {
    const { tip } = this.actions;
    /** @param {Event} event */
    const over = (event) => {
      const span = /** @type {HTMLElement} */ (event.target);
      const piece = this.#pieces.get(span);
      if (this.#probabilities && piece?.tokens.length) tip.show(span, piece);
    };
    this.#text.addEventListener("pointermove", over); // not pointerover: text may move below a pointer that rests
    this.#text.addEventListener("pointerdown", over);
    this.#text.addEventListener("pointerout", () => tip.leave());
    this.#text.addEventListener("focusin", over);
    this.#text.addEventListener("focusout", () => tip.hide());
    this.#text.addEventListener("keydown", (event) => {
      const all = /** @type {HTMLElement[]} */ ([...this.#text.querySelectorAll(".token")]);
      const at = all.indexOf(/** @type {HTMLElement} */ (event.target));
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: all.length - 1 }[event.key];
      if (at < 0 || to === undefined || !all[to]) return;
      event.preventDefault();
      all[at].removeAttribute("tabindex");
      all[to].setAttribute("tabindex", "0");
      all[to].focus();
    });
  }

  /** @param {Shown} shown */
  #updateError(shown) {
    const error = this.node.reply?.error ?? "";
    this.#error.hidden = !error;
    if (!error) return this.#error.replaceChildren();
    const retry = el("button", { type: "button", class: "full-button" }, "Retry");
    retry.disabled = shown.busy;
    retry.addEventListener("click", () => this.actions.again(this.node.id));
    this.#error.replaceChildren(el("p", {}, error), retry);
  }

  /** @param {Shown} shown */
  #updateTools(shown) {
    const hadFocus = this.#tools.contains(document.activeElement) ? document.activeElement?.getAttribute("aria-label") : null;
    this.#tools.replaceChildren(...this.#branches(shown), ...(this.node.reply ? this.#replyTools(shown) : this.#userTools(shown)));
    if (hadFocus) {
      const same = /** @type {HTMLButtonElement[]} */ ([...this.#tools.querySelectorAll("button")]);
      const next = same.find((b) => b.getAttribute("aria-label") === hadFocus && !b.disabled) ?? same.find((b) => !b.disabled);
      next?.focus();
    }
  }

  /** @param {Shown} shown */
  #branches({ place }) {
    if (place.count < 2) return [];
    const { id } = this.node;
    const left = iconButton("left", "Version before", () => this.actions.step(id, -1));
    const right = iconButton("right", "Version after", () => this.actions.step(id, 1));
    left.disabled = place.index === 0;
    right.disabled = place.index === place.count - 1;
    const where = el("span", { class: "number" }, `${place.index + 1}\u2009/\u2009${place.count}`);
    return [el("div", { class: "branches", role: "group", "aria-label": "Versions" }, left, where, right)];
  }

  /** @param {Shown} shown */
  #userTools(shown) {
    const edit = iconButton("edit", "Edit", () => this.startEdit());
    edit.disabled = shown.busy;
    return [edit];
  }

  /** @param {Shown} shown */
  #replyTools(shown) {
    const { id, reply, content } = this.node;
    if (shown.running || !reply) return [];
    const copyButton = iconButton("copy", "Copy", async () => {
      if (!(await copy(shown.given + content))) return this.actions.say("The browser did not let the text be copied.");
      this.actions.say("Copied");
      copyButton.replaceChildren(icon("check"));
      setTimeout(() => copyButton.replaceChildren(icon("copy")), 1500);
    });
    const again = iconButton("again", "Regenerate", () => this.actions.again(id));
    again.disabled = shown.busy;
    const tools = content ? [copyButton] : [];
    if (!reply.error) tools.push(again); // the error has a button of its own
    if (shown.given && reply.finish === "length" && shown.last) {
      const on = iconButton("on", "Go on", () => this.actions.goOn(id));
      on.disabled = shown.busy;
      tools.push(on);
    }
    return [...tools, el("span", { class: "facts" }, facts(this.node))];
  }

  startEdit() {
    if (this.#editing) return;
    this.#editing = true;
    const box = el("textarea", { class: "edit-box", "aria-label": "Edit the message", rows: "1" });
    box.value = this.node.content;
    const cancel = el("button", { type: "button", class: "plain-button" }, "Cancel");
    const send = el("button", { type: "submit", class: "full-button" }, "Send");
    const form = el("form", { class: "edit" }, box, el("div", { class: "dialog-foot" }, cancel, send));
    const end = () => {
      this.#editing = false;
      form.remove();
      this.#text.hidden = this.#tools.hidden = false;
      this.actions.edited();
    };
    cancel.addEventListener("click", end);
    box.addEventListener("input", () => fit(box));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!box.value.trim()) return;
      end();
      this.actions.edit(this.node.id, box.value);
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        end();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target === box) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    this.#text.hidden = this.#tools.hidden = true;
    this.element.append(form);
    fit(box);
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
  }
}

/**
 * @param {number} n
 * @param {string} noun
 */
export function count(n, noun) {
  return `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
}

/**
 * @param {Node} node a reply
 * @returns {string} how long, how fast, why it ended
 */
function facts({ content, reply }) {
  if (!reply) return "";
  const n = reply.tokens.length;
  const known = n ? [count(n, "token")] : [];
  if (n > 1 && reply.seconds > 0) known.push(`${Math.round(n / reply.seconds).toLocaleString("en")} a second`);
  if (reply.finish === "stopped") known.push("stopped");
  if (reply.finish === "length") known.push("cut at the limit");
  if (reply.finish === "stop" && !content) known.push("the model had nothing to say");
  return known.join(" · ");
}

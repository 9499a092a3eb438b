// @ts-check
/** The page as it follows from the state: messages, welcome, buttons. It changes nothing but the page. */

import { byId, el } from "./dom.js";
import { Message, count } from "./message.js";
import { LEVELS } from "./tokens.js";
import { node, path, place } from "./tree.js";

/** @typedef {import("./main.js").State} State */
/** @typedef {import("./message.js").Actions} Actions */

const STARTERS = {
  chat: ["Hello! How are you?", "What can you do?", "Tell me a short story."],
  plain: ["Once upon a time", "The", "A"],
};
const NEAR = 80;

/** Draws the state, at most once a frame. */
export class View {
  /** @type {Map<string, Message>} */
  #messages = new Map();
  #conversation = byId("conversation");
  #asked = false;
  #following = true;
  /** @type {unknown} */
  #welcomed = null;

  /**
   * @param {State} state
   * @param {Actions} actions
   * @param {(text: string) => void} begin
   */
  constructor(state, actions, begin) {
    this.state = state;
    this.actions = actions;
    this.begin = begin;
    legend();
    addEventListener("scroll", () => this.#scrolled(), { passive: true });
    addEventListener("resize", () => this.#scrolled(), { passive: true });
    byId("latest").addEventListener("click", () => this.toEnd());
  }

  /** Draw soon. */
  draw() {
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => {
      this.#asked = false;
      this.drawNow();
    });
  }

  drawNow() {
    const { state } = this;
    const shown = path(state.tree);
    const elements = shown.map((n, i) => {
      let message = this.#messages.get(n.id);
      if (message?.node !== n) {
        message = new Message(n, this.actions);
        this.#messages.set(n.id, message);
      }
      message.update({
        place: place(state.tree, n.id),
        running: state.running?.id === n.id,
        busy: state.running !== null,
        last: i === shown.length - 1,
        probabilities: state.settings.probabilities,
        given: n.reply && state.plain.has(n.reply.model) ? node(state.tree, n.parent).content : "",
      });
      return message.element;
    });
    for (const id of this.#messages.keys()) if (!state.tree.nodes.has(id)) this.#messages.delete(id);
    this.#arrange(elements);
    this.#frame(shown);
    if (this.#following) this.toEnd();
  }

  /**
   * Put the elements into the page without moving those that are in place: a moved one would lose the focus.
   *
   * @param {HTMLElement[]} elements
   */
  #arrange(elements) {
    const wanted = new Set(elements);
    let orphan = -1;
    [...this.#conversation.children].forEach((old, i) => {
      if (wanted.has(old)) return;
      if (old.contains(document.activeElement)) orphan = i;
      old.remove();
    });
    elements.forEach((element, i) => {
      if (this.#conversation.children[i] !== element) {
        this.#conversation.insertBefore(element, this.#conversation.children[i] ?? null);
      }
    });
    elements[orphan]?.focus({ preventScroll: true }); // what stands in the place of the focus takes it over
  }

  /** @param {import("./tree.js").Node[]} shown */
  #frame(shown) {
    const { state } = this;
    const empty = shown.length === 0;
    const running = state.running !== null;
    const hadFocus = document.activeElement;
    byId("send").hidden = running;
    byId("send").disabled = !state.model || byId("box").value.trim() === "";
    byId("stop").hidden = !running;
    byId("export").hidden = byId("clear").hidden = empty;
    byId("welcome").hidden = !empty || !state.model;
    if (hadFocus && hadFocus !== document.body && !hadFocus.checkVisibility()) byId("box").focus();
    byId("legend").hidden = !state.settings.probabilities || empty;
    byId("hint").hidden = !byId("legend").hidden;
    const used = shown.findLast((n) => n.reply?.used)?.reply?.used ?? 0;
    const block = state.model?.block ?? 0;
    byId("context").textContent = used && block ? `${used.toLocaleString("en")}\u2009/\u2009${block.toLocaleString("en")}` : "";
    const pressed = byId("probabilities");
    pressed.setAttribute("aria-pressed", String(state.settings.probabilities));
    if (this.#welcomed !== state.model) this.#welcome();
  }

  #welcome() {
    const { model } = this.state;
    this.#welcomed = model;
    if (!model) return;
    byId("welcome-title").textContent = model.id;
    const facts = [
      model.parameters ? `${roughly(model.parameters)} parameters` : "",
      model.block ? `context of ${count(model.block, "token")}` : "",
      model.vocabulary ? `vocabulary of ${model.vocabulary.toLocaleString("en")}` : "",
    ];
    byId("welcome-facts").textContent = facts.filter(Boolean).join(" · ");
    byId("welcome-text").textContent = model.chat
      ? "A small model that you can talk to. What you write goes to this server and nowhere else."
      : "This model was not trained for conversations: give it the beginning of a text, and it goes on.";
    byId("box").placeholder = model.chat ? "Write a message" : "Write the beginning of a text";
    byId("box-label").textContent = model.chat ? "Message" : "Text to go on with";
    byId("system-field").hidden = !model.chat;
    const starters = STARTERS[model.chat ? "chat" : "plain"].map((text) => {
      const button = el("button", { type: "button", class: "starter" }, text);
      button.addEventListener("click", () => this.begin(text));
      return el("li", {}, button);
    });
    byId("starters").replaceChildren(...starters);
  }

  #scrolled() {
    const { scrollHeight, clientHeight, scrollTop } = document.documentElement;
    this.#following = scrollHeight - clientHeight - scrollTop < NEAR;
    byId("latest").hidden = this.#following;
  }

  toEnd() {
    this.#following = true;
    scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
    byId("latest").hidden = true;
  }

  /** @param {string} id of a user's message on the page */
  edit(id) {
    this.#messages.get(id)?.startEdit();
  }
}

function legend() {
  const ends = ["0", ...LEVELS.map((end) => String(end * 100)), "100"];
  const entries = [...LEVELS, 1].map((_, i) =>
    el(
      "div",
      {},
      el("dt", { class: `swatch p${i}` }, el("span", { class: "unseen" }, `Colour ${i + 1}`)),
      el("dd", {}, i === 0 ? `< ${ends[1]} %` : i === LEVELS.length ? `> ${ends[i]} %` : `${ends[i]}–${ends[i + 1]}`),
    ),
  );
  byId("legend").replaceChildren(...entries);
}

/**
 * @param {number} n
 * @returns {string} such as "1.9 M"
 */
function roughly(n) {
  for (const [size, name] of /** @type {[number, string][]} */ ([[1e9, "billion"], [1e6, "million"]])) {
    if (n >= size) return `${(n / size).toLocaleString("en", { maximumFractionDigits: 1 })} ${name}`;
  }
  return n.toLocaleString("en");
}

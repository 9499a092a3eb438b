// @ts-check
/** The tooltip of a token: its probability, and what else could have stood there. */

import { byId, el } from "./dom.js";
import { percent, probability, visible } from "./tokens.js";

/** @typedef {import("./tokens.js").Piece} Piece */
/** @typedef {import("./tokens.js").Token} Token */

const MARGIN = 8;

/** The one tooltip of the page. */
export class Tip {
  /** @type {HTMLElement} */
  #box = byId("tip");
  /** @type {HTMLElement | null} */
  #for = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #leaving;

  constructor() {
    // the pointer may move onto the tooltip without losing it
    this.#box.addEventListener("pointerenter", () => clearTimeout(this.#leaving));
    this.#box.addEventListener("pointerleave", () => this.leave());
    addEventListener("scroll", () => this.#place(), { passive: true });
  }

  get open() {
    return this.#for !== null;
  }

  /**
   * @param {HTMLElement} span
   * @param {Piece} piece
   */
  show(span, piece) {
    clearTimeout(this.#leaving);
    if (this.#for === span) return;
    this.hide();
    this.#for = span;
    span.setAttribute("aria-describedby", this.#box.id);
    this.#box.replaceChildren(...parts(piece));
    this.#box.hidden = false;
    this.#place();
  }

  /** The pointer has left the token: it may be on its way to the tooltip. */
  leave() {
    clearTimeout(this.#leaving);
    this.#leaving = setTimeout(() => this.hide(), 150);
  }

  hide() {
    clearTimeout(this.#leaving);
    this.#for?.removeAttribute("aria-describedby");
    this.#for = null;
    this.#box.hidden = true;
  }

  #place() {
    if (!this.#for) return;
    if (!this.#for.isConnected) return this.hide();
    const around = this.#for.getClientRects()[0] ?? this.#for.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.#box;
    const left = Math.min(around.left + around.width / 2 - width / 2, document.documentElement.clientWidth - width - MARGIN);
    const above = around.top - height - MARGIN;
    this.#box.style.left = `${Math.max(MARGIN, left)}px`;
    this.#box.style.top = `${above > MARGIN ? above : around.bottom + MARGIN}px`;
  }
}

/**
 * @param {Piece} piece
 * @returns {HTMLElement[]}
 */
function parts(piece) {
  const head = el(
    "p",
    { class: "tip-head" },
    el("span", { class: "tip-token" }, visible(piece.text)),
    el("strong", {}, percent(probability(piece))),
  );
  if (piece.tokens.length === 1) return [head, choices(piece.tokens[0])];
  const note = el("p", { class: "tip-note" }, `One character of ${piece.tokens.length} tokens.`);
  return [head, note, ...piece.tokens.map(choices)];
}

/**
 * @param {Token} token
 * @returns {HTMLElement} the likeliest tokens of its place, with its own among them
 */
function choices(token) {
  const rows = token.top.map((a) => ({ ...a, own: a.token === token.token && Math.abs(a.logprob - token.logprob) < 1e-3 }));
  if (!rows.some((row) => row.own)) rows.push({ token: token.token, logprob: token.logprob, own: true });
  const list = el("ol", { class: "choices" });
  for (const row of rows) {
    const p = Math.exp(row.logprob);
    const bar = el("span", { class: "bar" }, el("span", { class: "fill" }));
    /** @type {HTMLElement} */ (bar.firstChild).style.width = `${Math.max(p * 100, 0.5)}%`;
    const name = el("span", { class: "choice-token" }, visible(row.token));
    if (row.own) name.append(el("span", { class: "unseen" }, " (chosen)"));
    list.append(el("li", row.own ? { class: "own" } : {}, name, bar, el("span", { class: "number" }, percent(p))));
  }
  return list;
}

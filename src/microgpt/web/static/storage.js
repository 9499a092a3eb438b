// @ts-check
/** The conversation in the browser's storage. What is found there may be damaged: every value is checked. */

import { ROOT, emptyReply, newTree, node } from "./tree.js";

/** @typedef {import("./tree.js").Tree} Tree */
/** @typedef {import("./tree.js").Reply} Reply */
/** @typedef {import("./tokens.js").Token} Token */

export const CONVERSATION = "microgpt.conversation";
const VERSION = 1;
const FINISHES = ["stop", "length", "stopped", "error"];

/** @param {number} x */
const short = (x) => Math.round(x * 1e4) / 1e4;

/**
 * @param {Tree} tree
 * @param {boolean} withTokens
 * @returns {object} plain values; probabilities to four decimals
 */
export function dump(tree, withTokens = true) {
  const nodes = [...tree.nodes.values()]
    .filter((n) => n.id !== ROOT)
    .map(({ id, parent, role, content, reply }) => {
      if (!reply) return { id, parent, role, content };
      const tokens = withTokens
        ? reply.tokens.map((t) => [t.token, short(t.logprob), t.bytes, t.top.map((a) => [a.token, short(a.logprob)])])
        : [];
      return { id, parent, role, content, reply: { ...reply, tokens } };
    });
  const chosen = Object.fromEntries([...tree.nodes.values()].filter((n) => n.chosen).map((n) => [n.id, n.chosen]));
  return { version: VERSION, nodes, chosen };
}

/**
 * @param {any} value what `dump` gave, or anything else
 * @returns {Tree} what of it is sound
 */
export function restore(value) {
  const tree = newTree();
  if (value?.version !== VERSION || !Array.isArray(value.nodes)) return tree;
  for (const n of value.nodes) {
    const sound =
      typeof n?.id === "string" &&
      /^n\d{1,9}$/.test(n.id) &&
      typeof n.content === "string" &&
      (n.role === "user" || n.role === "assistant") &&
      tree.nodes.has(n.parent) && // parents come first, so that no circle can be built
      !tree.nodes.has(n.id);
    if (!sound) continue;
    const reply = n.role === "assistant" ? restoreReply(n.reply) : null;
    tree.nodes.set(n.id, { id: n.id, parent: n.parent, role: n.role, content: n.content, children: [], chosen: "", reply });
    const above = node(tree, n.parent);
    above.children.push(n.id);
    above.chosen = n.id;
    tree.next = Math.max(tree.next, Number(n.id.slice(1)) + 1);
  }
  for (const n of tree.nodes.values()) {
    const chosen = value.chosen?.[n.id];
    if (n.children.includes(chosen)) n.chosen = chosen;
  }
  return tree;
}

/**
 * @param {any} value
 * @returns {Reply}
 */
function restoreReply(value) {
  const reply = emptyReply();
  /** @param {any} x */
  const count = (x) => (Number.isFinite(x) && x >= 0 ? x : 0);
  reply.model = String(value?.model ?? "");
  reply.seed = count(value?.seed);
  reply.error = typeof value?.error === "string" ? value.error : "";
  reply.dropped = count(value?.dropped);
  reply.used = count(value?.used);
  reply.seconds = count(value?.seconds);
  reply.finish = FINISHES.includes(value?.finish) ? value.finish : "stopped"; // the page was left while it was written
  const tokens = Array.isArray(value?.tokens) ? value.tokens.map(restoreToken) : [];
  reply.tokens = tokens.includes(null) ? [] : tokens;
  return reply;
}

/**
 * @param {any} value
 * @returns {Token | null}
 */
function restoreToken(value) {
  if (!Array.isArray(value)) return null;
  const [token, logprob, bytes, top] = value;
  if (typeof token !== "string" || !Number.isFinite(logprob) || !Array.isArray(top)) return null;
  const whole = Array.isArray(bytes) && bytes.every((b) => Number.isInteger(b) && b >= 0 && b < 256);
  const others = top
    .filter((a) => Array.isArray(a) && typeof a[0] === "string" && Number.isFinite(a[1]))
    .map(([text, lp]) => ({ token: text, logprob: lp }));
  return { token, logprob, bytes: whole ? bytes : null, top: others };
}

/** @returns {Tree} */
export function loadTree() {
  try {
    return restore(JSON.parse(localStorage.getItem(CONVERSATION) ?? "null"));
  } catch {
    return newTree();
  }
}

/**
 * @param {Tree} tree
 * @returns {boolean} false where the storage refuses it
 */
export function saveTree(tree) {
  for (const withTokens of [true, false]) {
    // storage is small: where the probabilities do not fit, the texts still do
    try {
      localStorage.setItem(CONVERSATION, JSON.stringify(dump(tree, withTokens)));
      return true;
    } catch {
      continue;
    }
  }
  return false;
}

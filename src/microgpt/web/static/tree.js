// @ts-check
/**
 * A conversation as a tree: an edited message or a regenerated reply is a further child of the same parent, and each
 * node remembers which of its children is shown. Nothing here knows of the page.
 */

/** @typedef {import("./tokens.js").Token} Token */

/**
 * @typedef {object} Reply what is known of an assistant's reply beside its text
 * @property {Token[]} tokens
 * @property {string} model
 * @property {number} seed
 * @property {"" | "stop" | "length" | "stopped" | "error"} finish empty while it is being written
 * @property {string} error
 * @property {number} dropped tokens of the conversation that no longer fitted
 * @property {number} used tokens of the context in use after it; 0 where not known
 * @property {number} seconds time it took
 */

/**
 * @typedef {object} Node
 * @property {string} id
 * @property {string} parent
 * @property {"user" | "assistant"} role
 * @property {string} content
 * @property {string[]} children
 * @property {string} chosen the child that is shown; empty for none
 * @property {Reply | null} reply of assistants only
 */

/**
 * @typedef {object} Tree
 * @property {Map<string, Node>} nodes in the order of their making: parents before children
 * @property {number} next
 */

export const ROOT = "root";

/** @returns {Reply} */
export function emptyReply() {
  return { tokens: [], model: "", seed: 0, finish: "", error: "", dropped: 0, used: 0, seconds: 0 };
}

/** @returns {Tree} */
export function newTree() {
  /** @type {Node} */
  const root = { id: ROOT, parent: "", role: "assistant", content: "", children: [], chosen: "", reply: null };
  return { nodes: new Map([[ROOT, root]]), next: 1 };
}

/**
 * @param {Tree} tree
 * @param {string} id
 * @returns {Node}
 */
export function node(tree, id) {
  const found = tree.nodes.get(id);
  if (!found) throw new Error(`no node ${id}`);
  return found;
}

/**
 * Add a child and show it.
 *
 * @param {Tree} tree
 * @param {string} parent
 * @param {"user" | "assistant"} role
 * @param {string} content
 * @returns {Node}
 */
export function add(tree, parent, role, content) {
  const id = `n${tree.next++}`;
  /** @type {Node} */
  const made = { id, parent, role, content, children: [], chosen: "", reply: role === "user" ? null : emptyReply() };
  const above = node(tree, parent);
  above.children.push(id);
  above.chosen = id;
  tree.nodes.set(id, made);
  return made;
}

/**
 * Take a node without children out again.
 *
 * @param {Tree} tree
 * @param {string} id
 */
export function drop(tree, id) {
  const gone = node(tree, id);
  if (id === ROOT || gone.children.length) throw new Error("only a leaf can be dropped");
  const above = node(tree, gone.parent);
  above.children = above.children.filter((child) => child !== id);
  if (above.chosen === id) above.chosen = above.children.at(-1) ?? "";
  tree.nodes.delete(id);
}

/**
 * @param {Tree} tree
 * @returns {Node[]} what is shown, from the first message on
 */
export function path(tree) {
  const shown = [];
  for (let at = node(tree, ROOT).chosen; at; at = node(tree, at).chosen) shown.push(node(tree, at));
  return shown;
}

/**
 * @param {Tree} tree
 * @param {string} id
 * @returns {Node[]} the nodes from the first message to this one
 */
export function pathTo(tree, id) {
  const found = [];
  for (let at = id; at !== ROOT; at = node(tree, at).parent) found.unshift(node(tree, at));
  return found;
}

/**
 * @param {Tree} tree
 * @param {string} id
 * @returns {{index: number, count: number}} its place among the branches that part here, from 0
 */
export function place(tree, id) {
  const among = node(tree, node(tree, id).parent).children;
  return { index: among.indexOf(id), count: among.length };
}

/**
 * Show the branch before or after this one.
 *
 * @param {Tree} tree
 * @param {string} id
 * @param {-1 | 1} by
 * @returns {string} the node that is shown now
 */
export function step(tree, id, by) {
  const above = node(tree, node(tree, id).parent);
  above.chosen = above.children[above.children.indexOf(id) + by] ?? above.chosen;
  return above.chosen;
}

/**
 * The messages that a reply at this node answers, in the API's form. Replies without text are left out.
 *
 * @param {Tree} tree
 * @param {string} id the user's message to answer
 * @returns {{role: string, content: string}[]}
 */
export function messages(tree, id) {
  return pathTo(tree, id)
    .filter((n) => n.role === "user" || n.content !== "")
    .map(({ role, content }) => ({ role, content }));
}

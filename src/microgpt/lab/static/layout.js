/** Where the nodes of the computation graph stand: a column for each depth, parameters above what takes them. */

/** @import { GraphNode } from "./types.js" */

export const NODE = { width: 114, height: 44, x: 136, y: 62, margin: 14 };

/**
 * @param {GraphNode[]} nodes in an order in which inputs come first or later, as the engine lists them
 * @returns {{ places: Map<number, { x: number, y: number }>, width: number, height: number }}
 */
export function arrange(nodes) {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  /** @type {Map<number, number>} */
  const depths = new Map();
  /** @param {GraphNode} node @returns {number} */
  const depth = (node) => {
    const known = depths.get(node.id);
    if (known !== undefined) return known;
    depths.set(node.id, 0);
    const before = node.inputs.flatMap((id) => byId.get(id) ?? []);
    const own = before.length ? 1 + Math.max(...before.map(depth)) : 0;
    depths.set(node.id, own);
    return own;
  };
  nodes.forEach(depth);
  // a leaf stands just before what takes it first
  for (const leaf of nodes.filter((node) => node.forward === null)) {
    const takers = nodes.filter((node) => node.inputs.includes(leaf.id)).map((node) => depths.get(node.id) ?? 0);
    if (takers.length) depths.set(leaf.id, Math.max(0, Math.min(...takers) - 1));
  }
  /** @type {GraphNode[][]} */
  const columns = [];
  for (const node of nodes) (columns[depths.get(node.id) ?? 0] ??= []).push(node);
  const tallest = Math.max(...columns.map((column) => column?.length ?? 0));
  /** @type {Map<number, { x: number, y: number }>} */
  const places = new Map();
  columns.forEach((column, at) => {
    const height = (/** @type {GraphNode} */ node) => {
      const known = node.inputs.flatMap((id) => places.get(id)?.y ?? []);
      return known.length ? known.reduce((a, b) => a + b, 0) / known.length : 0;
    };
    const ordered = column.toSorted((a, b) => Number(a.forward !== null) - Number(b.forward !== null) || height(a) - height(b));
    const top = ((tallest - ordered.length) * NODE.y) / 2;
    ordered.forEach((node, row) => places.set(node.id, { x: NODE.margin + at * NODE.x, y: NODE.margin + top + row * NODE.y }));
  });
  return { places, width: 2 * NODE.margin + (columns.length - 1) * NODE.x + NODE.width, height: 2 * NODE.margin + (tallest - 1) * NODE.y + NODE.height };
}

/** Inside a node of the graph: its numbers and their gradients, down to how a single one came about. */

import { html, useState } from "./vendor/preact.js";
import { useAnswer } from "./answer.js";
import { Heat } from "./colour.js";
import { num } from "./format.js";
import { useLab } from "./store.js";
import { where } from "./tokens.js";
import { Waiting } from "./panel.js";

/** @import { GraphNode, Stats, Tensor } from "./types.js" */

/** @param {number} flat @param {number[]} shape */
export function unravel(flat, shape) {
  const index = [];
  let rest = flat;
  for (const size of shape.toReversed()) {
    index.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  return index;
}

/** A tensor's shape as a picture: what leads makes rows. @param {number[]} shape @returns {[number, number]} */
export function flat(shape) {
  const columns = shape.at(-1) ?? 1;
  const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  if (rows > 1 || columns <= 64) return [rows, columns];
  return [Math.ceil(columns / 64), 64];
}

/** @param {{ label: string, stats: Stats | null }} props */
function StatsRow({ label, stats }) {
  return html`<tr><th scope="row">${label}</th>${stats
    ? ["mean", "std", "min", "max", "norm"].map((key) => html`<td class="right">${num(stats[/** @type {keyof Stats} */ (key)], 3)}</td>`)
    : html`<td colspan="5">none</td>`}</tr>`;
}

/** @param {Tensor} tensor */
const most = (tensor) => tensor.data.reduce((high, value) => Math.max(high, Math.abs(value)), 1e-30);

/**
 * @param {{ id: number, nodes: GraphNode[], active: boolean, open: (id: number) => void }} props
 */
export function NodeView({ id, nodes, active, open }) {
  const view = useLab((s) => s.view);
  const off = useLab((s) => s.off);
  const [trail, follow] = useState(/** @type {{ node: number, index: number[] }[]} */ ([]));
  const [over, hover] = useState(-1);
  const asked = where(view, off);
  const { answer, fault } = useAnswer("node", { ...asked, node: id }, active);
  const node = nodes.find((one) => one.id === id);
  if (!answer || !node) return html`<${Waiting} fault=${fault} />`;
  const { shown: shape, prefix, cut } = answer.data;
  const { value, gradient } = answer.tensors;
  const [rows, columns] = flat(shape);
  const indexOf = (/** @type {number} */ at) => [...prefix, ...(cut ? unravel(at, node.shape) : unravel(at, shape))];
  const pick = (/** @type {number} */ r, /** @type {number} */ c) => r * columns + c < value.data.length && follow([{ node: id, index: indexOf(r * columns + c) }]);
  const spot = over >= 0 && over < value.data.length ? over : -1;
  return html`<div class="split node-view" role="region" aria-label=${`Node ${node.name}`}>
    <div>
      <h3>${node.name} <span class="quiet small">${node.op} · ${node.shape.join(" × ") || "one number"}${node.forward !== null ? ` · forward ${node.forward}` : ""}${node.backward !== null ? ` · backward ${node.backward}` : ""}</span></h3>
      <div class="scroll" tabindex="0" role="region" aria-label=${`Spread of ${node.name}`}><table><thead><tr><th scope="col">of all numbers</th>${["mean", "std", "min", "max", "norm"].map((key) => html`<th scope="col" class="right">${key}</th>`)}</tr></thead>
        <tbody><${StatsRow} label="value" stats=${node.value} /><${StatsRow} label="gradient" stats=${node.gradient} /></tbody></table></div>
      <div class="pictures">
        <figure><figcaption>values, full colour at ±${num(most(value), 3)}</figcaption><${Heat} values=${value.data} rows=${rows} columns=${columns} most=${most(value)} label=${`Values of ${node.name}`}
          over=${(/** @type {number} */ r, /** @type {number} */ c) => hover(r * columns + c)} out=${() => hover(-1)} pick=${pick} /></figure>
        ${gradient && html`<figure><figcaption>gradients, full colour at ±${num(most(gradient), 3)}</figcaption><${Heat} values=${gradient.data} rows=${rows} columns=${columns} most=${most(gradient)} label=${`Gradients of ${node.name}`}
          over=${(/** @type {number} */ r, /** @type {number} */ c) => hover(r * columns + c)} out=${() => hover(-1)} pick=${pick} /></figure>`}
      </div>
      <p class="readout">${spot >= 0 ? html`[${indexOf(spot).join(", ")}] value ${num(value.data[spot], 5)}${gradient && html`, gradient ${num(gradient.data[spot], 4)}`}` : "Click a number to see how it came about."}</p>
      <form class="own" onSubmit=${(/** @type {SubmitEvent} */ event) => {
        event.preventDefault();
        const text = String(new FormData(/** @type {HTMLFormElement} */ (event.target)).get("index"));
        follow([{ node: id, index: text.split(/[^0-9]+/).filter(Boolean).map(Number) }]);
      }}><label class="small quiet">number at <input class="field" name="index" size="10" value=${(trail[0]?.index ?? [...prefix, ...shape.map(() => 0)]).join(", ")} aria-label=${`Index into ${node.name}`} /></label>
        <button type="submit" class="tool-button">Look inside</button></form>
    </div>
    <div>${trail.length > 0 && html`<${ScalarView} trail=${trail} follow=${follow} nodes=${nodes} asked=${asked} active=${active} open=${open} />`}</div>
  </div>`;
}

/**
 * @param {{
 *   trail: { node: number, index: number[] }[], follow: (trail: { node: number, index: number[] }[]) => void,
 *   nodes: GraphNode[], asked: object, active: boolean, open: (id: number) => void,
 * }} props
 */
function ScalarView({ trail, follow, nodes, asked, active, open }) {
  const here = trail[trail.length - 1];
  const [checking, check] = useState("");
  const { answer, fault, current } = useAnswer("scalar", { ...asked, ...here, count: 24 }, active);
  const spot = `${here.node} ${here.index}`;
  const name = (/** @type {number} */ id) => nodes.find((node) => node.id === id)?.name ?? "?";
  return html`<div class="scalar" aria-live="polite">
    <div class="crumbs">${trail.map((one, at) => html`${at > 0 && html`<span aria-hidden="true">←</span>`}<button type="button" key=${at} onClick=${() => follow(trail.slice(0, at + 1))}>${name(one.node)}[${one.index.join(",")}]</button>`)}</div>
    ${!answer || !current ? html`<${Waiting} fault=${fault} />` : html`
      <dl class="facts"><div><dt>value</dt><dd data-fact="scalar-value">${num(answer.data.value, 6)}</dd></div>
        <div><dt>gradient of the loss</dt><dd data-fact="scalar-gradient">${num(answer.data.gradient, 6)}</dd></div></dl>
      ${answer.data.gradient !== null && (checking === spot
        ? html`<${Check} asked=${{ ...asked, ...here }} active=${active} />`
        : html`<button type="button" class="tool-button" onClick=${() => check(spot)}>Check the gradient by finite difference</button>`)}
      ${answer.data.operands.length > 0 ? html`
        <h4>${answer.data.op} of ${answer.data.operand_count} ${answer.data.operand_count === 1 ? "number" : "numbers"}</h4>
        <div class="scroll operands" tabindex="0" role="region" aria-label="What it is made of"><table id="operands">
          <thead><tr><th scope="col">from</th><th scope="col" class="right">value</th><th scope="col" class="right">local derivative</th><th scope="col" class="right">flows back</th></tr></thead>
          <tbody>${answer.data.operands.map((/** @type {any} */ one) => html`<tr key=${`${one.node} ${one.index}`}>
            <th scope="row"><button type="button" class="text-button" onClick=${() => follow([...trail, { node: one.node, index: one.index }])}>${one.name}[${one.index.join(",")}]</button></th>
            <td class="right">${num(one.value)}</td><td class="right">${num(one.local)}</td><td class="right">${num(one.flow)}</td></tr>`)}</tbody>
        </table></div>
        ${answer.data.operand_count > answer.data.operands.length && html`<p class="readout">${answer.data.operand_count - answer.data.operands.length} more are smaller.</p>`}`
      : html`<p class="readout">It is made of no other number: a parameter or an input.</p>`}
      ${here.node !== trail[0].node && html`<button type="button" class="tool-button" onClick=${() => open(here.node)}>Open ${name(here.node)}</button>`}`}
  </div>`;
}

/** The gradient against a central difference. @param {{ asked: object, active: boolean }} props */
function Check({ asked, active }) {
  const { answer, fault, current } = useAnswer("check", asked, active, false);
  if (!answer || !current) return html`<${Waiting} fault=${fault} text="Computing the loss twice more…" />`;
  const { ok, numeric, error, epsilon } = answer.data;
  return html`<p><span class=${`badge${ok ? "" : " bad"}`} data-fact="check">${ok ? "✓ agrees" : "✗ differs"}: finite difference ${num(numeric, 6)}</span>
    <span class="readout"> relative error ${num(error, 2)}, step ±${num(epsilon, 2)} in float64</span></p>`;
}

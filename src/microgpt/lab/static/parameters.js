/** The weights: how they are spread, how far they move, and why one of them moved as it did. */

import { html, useState } from "./vendor/preact.js";
import { useAnswer } from "./answer.js";
import { Heat } from "./colour.js";
import { num, signed } from "./format.js";
import { flat, unravel } from "./node.js";
import { useLab } from "./store.js";
import { Waiting } from "./panel.js";

/** @import { Tensor } from "./types.js" */

const [WIDTH, HEIGHT] = [150, 38];

/**
 * A row of a histogram tensor, drawn. Its ends are written below.
 * @param {{ counts?: Tensor, edges?: Tensor, row: number, label: string, tone?: string }} props
 */
function Histogram({ counts, edges, row, label, tone = "" }) {
  if (!counts || !edges) return html`<span class="quiet">–</span>`;
  const bins = counts.shape[1];
  const values = counts.data.subarray(row * bins, (row + 1) * bins);
  const limits = edges.data.subarray(row * (bins + 1), (row + 1) * (bins + 1));
  const most = Math.max(...values, 1);
  const total = values.reduce((sum, value) => sum + value, 0);
  return html`<div class="histogram">
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${`${label}: ${total} numbers from ${num(limits[0], 3)} to ${num(limits[bins], 3)}`}>
      ${[...values].map((value, bin) => html`<rect class=${`bin ${tone}`} x=${(bin * WIDTH) / bins} width=${WIDTH / bins - 0.4} y=${HEIGHT - (HEIGHT * value) / most} height=${(HEIGHT * value) / most} />`)}
    </svg>
    <div class="ends" aria-hidden="true"><span>${num(limits[0], 2)}</span><span>${num(limits[bins], 2)}</span></div>
  </div>`;
}

/** @param {{ active: boolean }} props */
export function ParametersPanel({ active }) {
  const off = useLab((s) => s.off);
  const [chosen, choose] = useState("");
  const { answer, fault } = useAnswer("parameters", { off, bins: 40 }, active);
  if (!answer) return html`<${Waiting} fault=${fault} />`;
  const { matrices } = answer.data;
  const t = answer.tensors;
  return html`
    <p class="readout">${answer.step > 0 ? `Over update ${answer.step}.` : "No update yet: gradients and updates come with the first step."} Choose a matrix to look at single weights.</p>
    <div class="scroll matrices" tabindex="0" role="region" aria-label="Parameter tensors"><table>
      <thead><tr><th scope="col">matrix</th><th scope="col">rule</th><th scope="col">weights</th><th scope="col">gradients</th><th scope="col">log₁₀ of |change| / |weight|</th>
        <th scope="col" class="right">weight norm</th><th scope="col" class="right">gradient norm</th><th scope="col" class="right">update ratio</th></tr></thead>
      <tbody>${matrices.map((/** @type {any} */ matrix, /** @type {number} */ m) => html`<tr key=${matrix.name}>
        <th scope="row"><button type="button" class="text-button" aria-pressed=${matrix.name === chosen} onClick=${() => choose(matrix.name === chosen ? "" : matrix.name)}>${matrix.name}</button><br /><span class="quiet small">${matrix.shape.join(" × ")}</span></th>
        <td>${matrix.optimizer}</td>
        <td><${Histogram} counts=${t.weight_counts} edges=${t.weight_edges} row=${m} label=${`Weights of ${matrix.name}`} /></td>
        <td><${Histogram} counts=${t.gradient_counts} edges=${t.gradient_edges} row=${m} label=${`Gradients of ${matrix.name}`} tone="back" /></td>
        <td><${Histogram} counts=${t.update_counts} edges=${t.update_edges} row=${m} label=${`Relative updates of ${matrix.name}`} tone="plain" /></td>
        <td class="right">${num(matrix.weight.norm, 3)}</td><td class="right">${num(matrix.gradient?.norm, 3)}</td><td class="right">${num(matrix.update_ratio, 3)}</td></tr>`)}</tbody>
    </table></div>
    ${chosen && matrices.some((/** @type {any} */ one) => one.name === chosen) && html`<${MatrixView} key=${chosen} name=${chosen} off=${off} active=${active} />`}`;
}

/** One matrix as pictures; a number of it opens its account. @param {{ name: string, off: object, active: boolean }} props */
function MatrixView({ name, off, active }) {
  const [index, pick] = useState(/** @type {number[] | null} */ (null));
  const [over, hover] = useState(-1);
  const { answer, fault } = useAnswer("matrix", { name, off }, active);
  if (!answer) return html`<${Waiting} fault=${fault} />`;
  const shape = answer.data.shown;
  const [rows, columns] = flat(shape);
  const size = rows * columns;
  /** @type {[string, Tensor | undefined][]} */
  const pictures = [["weights", answer.tensors.weight], ["gradients", answer.tensors.gradient], ["last update", answer.tensors.update]];
  return html`<div class="split node-view" role="region" aria-label=${`Matrix ${name}`}>
    <div>
      <h3>${name} <span class="quiet small">${answer.data.shape.join(" × ")}</span></h3>
      <div class="pictures">${pictures.map(([label, tensor]) => {
        if (!tensor) return null;
        const most = tensor.data.reduce((high, value) => Math.max(high, Math.abs(value)), 1e-30);
        return html`<figure key=${label}><figcaption>${label}, ±${num(most, 3)}</figcaption><${Heat} values=${tensor.data} rows=${rows} columns=${columns} most=${most} label=${`${label} of ${name}`}
          over=${(/** @type {number} */ r, /** @type {number} */ c) => hover(r * columns + c)} out=${() => hover(-1)}
          pick=${(/** @type {number} */ r, /** @type {number} */ c) => r * columns + c < tensor.data.length && pick(unravel(r * columns + c, shape))} /></figure>`;
      })}</div>
      <p class="readout">${over >= 0 && over < size ? html`[${unravel(over, shape).join(", ")}] ${pictures.map(([label, tensor]) => tensor && html`${label} ${num(tensor.data[over], 5)} · `)}` : "Click a weight to see why it moved."}</p>
      <form class="own" onSubmit=${(/** @type {SubmitEvent} */ event) => {
        event.preventDefault();
        pick(String(new FormData(/** @type {HTMLFormElement} */ (event.target)).get("index")).split(/[^0-9]+/).filter(Boolean).map(Number));
      }}><label class="small quiet">weight at <input class="field" name="index" size="8" value=${(index ?? shape.map(() => 0)).join(", ")} aria-label=${`Index into ${name}`} /></label>
        <button type="submit" class="tool-button">Why did it move?</button></form>
    </div>
    <div>${index && html`<${WeightView} name=${name} index=${index} off=${off} active=${active} />`}</div>
  </div>`;
}

/** Why one weight moved. @param {{ name: string, index: number[], off: object, active: boolean }} props */
function WeightView({ name, index, off, active }) {
  const { answer, fault, current } = useAnswer("weight", { name, index, off }, active);
  if (!answer || !current) return html`<${Waiting} fault=${fault} />`;
  const { before, after, change, quantities, terms, error, optimizer } = answer.data;
  return html`<div class="scalar" aria-live="polite">
    <h3>Why did ${name}[${index.join(", ")}] move?</h3>
    <dl class="facts"><div><dt>before</dt><dd>${num(before, 6)}</dd></div><div><dt>after</dt><dd>${num(after, 6)}</dd></div>
      <div><dt>change (${optimizer})</dt><dd data-fact="change">${signed(change)}</dd></div></dl>
    <div class="scroll operands" tabindex="0" role="region" aria-label="The way to the change"><table>
      <tbody>${quantities.map((/** @type {any} */ one) => html`<tr><th scope="row">${one.name}</th><td class="formula">${one.formula}</td><td class="right">${num(one.value, 5)}</td></tr>`)}</tbody>
    </table></div>
    <table id="terms"><thead><tr><th scope="col">part of the change</th><th scope="col" class="right">value</th></tr></thead>
      <tbody>${terms.map((/** @type {any} */ one) => html`<tr><th scope="row">${one.name}</th><td class="right">${signed(one.value)}</td></tr>`)}
        <tr><th scope="row"><b>sum</b></th><td class="right"><b>${signed(terms.reduce((/** @type {number} */ sum, /** @type {any} */ one) => sum + one.value, 0))}</b></td></tr></tbody></table>
    <p><span class=${`badge${error < 1e-6 ? "" : " bad"}`} data-fact="account">${error < 1e-6 ? "✓ adds up" : "✗ does not add up"}</span><span class="readout"> off by ${num(error, 2)}</span></p>
  </div>`;
}

/** Who looks at whom: every layer and head at once, one of them large. */

import { html, useState } from "./vendor/preact.js";
import { useAnswer } from "./answer.js";
import { Heat } from "./colour.js";
import { percent, shown } from "./format.js";
import { setView, useLab } from "./store.js";
import { TokenPicker, placeOf, where } from "./tokens.js";
import { Waiting } from "./panel.js";

/** @param {{ active: boolean }} props */
export function AttentionPanel({ active }) {
  const view = useLab((s) => s.view);
  const off = useLab((s) => s.off);
  const [over, hover] = useState(/** @type {[number, number] | null} */ (null));
  const { answer, fault } = useAnswer("attention", where(view, off), active);
  if (!answer) return html`<${Waiting} fault=${fault} />`;
  const { shape, data } = answer.tensors.weights;
  const [layers, heads, size] = shape;
  const tokens = answer.data.tokens.slice(0, size);
  const [layer, head] = [Math.min(view.layer, layers - 1), Math.min(view.head, heads - 1)];
  const part = (/** @type {number} */ l, /** @type {number} */ h) => data.subarray((l * heads + h) * size * size, (l * heads + h + 1) * size * size);
  const large = part(layer, head);
  const root = size > 24;
  const query = placeOf(view.position, tokens.length);
  const [row, column] = over ?? [query, -1];
  const words = column >= 0
    ? column > row ? `${shown(tokens[row].text)} cannot see ${shown(tokens[column].text)}: it comes later`
      : `${shown(tokens[row].text)} (${row}) gives ${percent(large[row * size + column])} to ${shown(tokens[column].text)} (${column})`
    : `${shown(tokens[query].text)} at place ${query}, layer ${layer}, head ${head}`;
  return html`
    <${TokenPicker} tokens=${tokens} position=${view.position} label="The token that looks" />
    <div class="attention">
      <div class="large">
        <div class="ruled">
          <div class="rule-y" aria-hidden="true">${tokens.map((/** @type {any} */ token, /** @type {number} */ index) => html`<span class=${index === row ? "aim" : ""}>${size <= 40 ? shown(token.text).slice(0, 5) : ""}</span>`)}</div>
          <div class="masked">
            <${Heat} values=${large} rows=${size} columns=${size} most=${1} root=${root} label=${`Attention of layer ${layer}, head ${head}: rows look at columns`}
              over=${(/** @type {number} */ r, /** @type {number} */ c) => hover([r, c])} out=${() => hover(null)} pick=${(/** @type {number} */ r) => setView({ position: r === size - 1 ? -1 : r })} />
            <div class="row-mark" style=${{ top: `${(100 * row) / size}%`, height: `${100 / size}%` }}></div>
          </div>
          <i></i><div class="rule-x" aria-hidden="true">${tokens.map((/** @type {any} */ token) => html`<span>${size <= 24 ? shown(token.text).slice(0, 5) : ""}</span>`)}</div>
        </div>
        <p class="readout" data-fact="attention">${words}</p>
        ${root && html`<p class="readout">In a row as long as this one the shade is the square root of the weight.</p>`}
      </div>
      <div class="heads" role="group" aria-label="Layers and heads">
        ${Array.from({ length: layers * heads }, (_, index) => {
          const [l, h] = [Math.floor(index / heads), index % heads];
          const isOff = off.some((unit) => unit.kind === "head" && unit.layer === l && unit.index === h);
          return html`<button type="button" key=${index} class="head-button" aria-pressed=${l === layer && h === head} onClick=${() => setView({ layer: l, head: h })}>
            layer ${l}, head ${h}${isOff && " (off)"}
            <${Heat} values=${part(l, h)} rows=${size} columns=${size} most=${1} root=${root} label="" />
          </button>`;
        })}
      </div>
    </div>
    <details>
      <summary>Weights of ${shown(tokens[query].text)} as numbers</summary>
      <div class="scroll" tabindex="0" role="region" aria-label="Attention weights">
        <table id="attention-table">
          <thead><tr><th scope="col">head</th>${tokens.slice(0, query + 1).map((/** @type {any} */ token) => html`<th scope="col" class="right mono">${shown(token.text)}</th>`)}</tr></thead>
          <tbody>${Array.from({ length: heads }, (_, h) => html`<tr><th scope="row">${layer}.${h}</th>
            ${[...part(layer, h).subarray(query * size, query * size + query + 1)].map((weight) => html`<td class="right">${weight.toFixed(4)}</td>`)}</tr>`)}</tbody>
        </table>
      </div>
    </details>`;
}

/** Two states side by side on the same text: the shown one, and another step or session. */

import { html, useEffect, useState } from "./vendor/preact.js";
import { inspect, useAnswer } from "./answer.js";
import { Refused, get, post } from "./api.js";
import { Heat } from "./colour.js";
import { num, percent, shown, signed } from "./format.js";
import { distribution } from "./probabilities.js";
import { shownStep } from "./session.js";
import { useLab } from "./store.js";
import { placeOf } from "./tokens.js";
import { Waiting } from "./panel.js";

/** @import { Answer, Metadata, Shown } from "./types.js" */

const DRAWN = 10;

/** @typedef {{ id: string, step: number, metadata: Metadata, probabilities: Answer, attention: Answer }} Side */
/** @typedef {{ loss: [number | null, number | null], parameters: { name: string, shape: number[], norm_a: number, norm_b: number, distance: number, cosine: number }[] }} Difference */

/** All that is compared of one state. @param {string} id @param {number} step @param {string} text @returns {Promise<Side>} */
async function look(id, step, text) {
  const { metadata } = await get(`session/${id}`);
  const at = Math.min(step, metadata.step);
  const [probabilities, attention] = await Promise.all([
    inspect(id, "probabilities", at, { text }),
    inspect(id, "attention", at, { text }),
  ]);
  return { id, step: at, metadata, probabilities, attention };
}

/** @param {string} text */
const ending = (text) => (text.length > 60 ? `…${shown(text.slice(-60))}` : `<BOS>${text && shown(text)}`);

/**
 * The text of a row's document up to the chosen token, as much as a context holds.
 * @param {{ tokens: Shown[], length: number } | undefined} row @param {number} position @param {number} block @param {number} bos
 */
function prompt(row, position, block, bos) {
  if (!row) return "";
  const before = row.tokens.slice(0, placeOf(position, row.length) + 1);
  return before.slice(before.findLastIndex((token) => token.id === bos) + 1).slice(1 - block).map((token) => token.text).join("");
}

/** @param {{ active: boolean }} props */
export function ComparePanel({ active }) {
  const own = useLab((s) => s.sessionId) ?? "";
  const step = useLab(shownStep);
  const sessions = useLab((s) => s.sessions);
  const view = useLab((s) => s.view);
  const block = useLab((s) => s.metadata?.full_config.model?.block_size ?? s.metadata?.config.block_size ?? 8);
  const bos = useLab((s) => s.metadata?.bos_token_id ?? 0);
  const [other, choose] = useState({ id: own, step: 0 });
  const [told, tell] = useState({ sides: /** @type {Side[]} */ ([]), difference: /** @type {Difference | null} */ (null), fault: "" });
  const tokens = useAnswer("tokens", {}, active && !view.text);
  const row = tokens.answer?.data.rows[view.row] ?? tokens.answer?.data.rows[0];
  const text = view.text || prompt(row, view.position, block, bos);
  const last = sessions.find((one) => one.session_id === other.id)?.num_steps ?? step;

  async function compare() {
    try {
      const sides = await Promise.all([look(own, step, text), look(other.id, other.step, text)]);
      const [a, b] = sides.map((side) => ({ session_id: side.id, step: side.step }));
      tell({ sides, difference: await post("compare", { a, b }), fault: "" });
    } catch (error) {
      tell({ sides: [], difference: null, fault: error instanceof Refused ? error.message : String(error) });
    }
  }
  useEffect(() => {
    if (told.sides.length) void compare();
  }, [step, text]);

  return html`
    <form class="own" onSubmit=${(/** @type {Event} */ event) => {
      event.preventDefault();
      void compare();
    }}>
      <span class="small">step ${step} of this session with</span>
      <select class="field" aria-label="The other session" value=${other.id} onChange=${(/** @type {any} */ event) => choose({ ...other, id: event.target.value })}>
        ${sessions.map((one) => html`<option key=${one.session_id} value=${one.session_id}>${one.session_id === own ? "this session" : one.name || one.session_id.slice(0, 8)}</option>`)}</select>
      <label class="small">at step <input class="field" type="number" min="0" max=${last} value=${other.step} onInput=${(/** @type {any} */ event) => choose({ ...other, step: event.target.valueAsNumber || 0 })} /></label>
      <button type="submit" class="tool-button">Compare</button>
    </form>
    ${told.sides.length === 2 ? html`<${Sides} sides=${told.sides} difference=${told.difference} text=${text} />`
      : told.fault ? html`<${Waiting} fault=${told.fault} />` : html`<p class="readout">Both models read <span class="mono">${ending(text)}</span>, the chosen row up to the chosen token.</p>`}`;
}

/** @param {{ sides: Side[], difference: Difference, text: string }} props */
function Sides({ sides, difference, text }) {
  const [a, b] = sides;
  const layer = useLab((s) => s.view.layer);
  const head = useLab((s) => s.view.head);
  const named = (/** @type {Side} */ side) => `${side.metadata.name || side.id.slice(0, 8)}, step ${side.step}`;
  const logits = sides.map((side) => side.probabilities.tensors.logits.data);
  const alike = a.metadata.vocab.join("\u0000") === b.metadata.vocab.join("\u0000");
  const [left, right] = logits.map((one) => distribution(one, 1, 0, 1));
  const rights = new Map(right.map(({ id, prob }) => [id, prob]));
  const distance = left.reduce((sum, { id, prob }) => sum + Math.abs(prob - (rights.get(id) ?? 0)), 0) / 2;
  const [first, second] = difference.loss;
  const moved = difference.parameters.toSorted((x, y) => x.cosine - y.cosine);
  return html`
    <table id="compare-table"><thead><tr><th scope="col">of both</th>${sides.map((side) => html`<th scope="col" class="right">${named(side)}</th>`)}<th scope="col" class="right">difference</th></tr></thead>
      <tbody><tr><th scope="row">validation loss</th>${difference.loss.map((loss) => html`<td class="right">${num(loss, 5)}</td>`)}<td class="right">${first !== null && second !== null && signed(second - first)}</td></tr>
        <tr><th scope="row">peak learning rate</th>${sides.map((side) => html`<td class="right">${num(side.metadata.config.learning_rate)}</td>`)}<td></td></tr></tbody></table>
    ${alike ? html`<div><h3 class="label">After <span class="mono">${ending(text)}</span>: above the first, below the second; ${percent(distance)} of the probability lies elsewhere</h3>
      <div class="bars" role="list">${left.slice(0, DRAWN).map(({ id, prob }) => html`<div class="bar-line" role="listitem" key=${id}><span class="mono">${shown(a.metadata.vocab[id])}</span>
        <div><div class="track thin"><div class="fill" style=${{ width: `${100 * prob}%` }}></div></div><div class="track thin"><div class="fill second" style=${{ width: `${100 * (rights.get(id) ?? 0)}%` }}></div></div></div>
        <span class="number">${percent(prob)} · ${percent(rights.get(id) ?? 0)}</span></div>`)}</div></div>`
      : html`<p class="readout">Their tokens differ, so that their guesses cannot be laid side by side.</p>`}
    <div class="pictures small-pictures">${sides.map((side) => {
      const { shape, data } = side.attention.tensors.weights;
      const [layers, heads, size] = shape;
      const at = (Math.min(layer, layers - 1) * heads + Math.min(head, heads - 1)) * size * size;
      return html`<figure key=${named(side)}><figcaption>${named(side)}: layer ${Math.min(layer, layers - 1)}, head ${Math.min(head, heads - 1)}</figcaption>
        <${Heat} values=${data.subarray(at, at + size * size)} rows=${size} columns=${size} most=${1} label=${`Attention of ${named(side)}`} /></figure>`;
    })}</div>
    ${moved.length > 0 && html`<details><summary>How far the weights are apart</summary><div class="scroll operands" tabindex="0" role="region" aria-label="Distances of weights"><table>
      <thead><tr><th scope="col">matrix</th><th scope="col" class="right">norm of the first</th><th scope="col" class="right">of the second</th><th scope="col" class="right">distance</th><th scope="col" class="right">cosine</th></tr></thead>
      <tbody>${moved.map((one) => html`<tr key=${one.name}><th scope="row" class="mono">${one.name}</th><td class="right">${num(one.norm_a)}</td><td class="right">${num(one.norm_b)}</td><td class="right">${num(one.distance)}</td><td class="right">${num(one.cosine)}</td></tr>`)}</tbody>
    </table></div></details>`}`;
}

/** What comes next: the model's probabilities under temperature, top-k and top-p, and as each layer would have it. */

import { html, useState } from "./vendor/preact.js";
import { useAnswer } from "./answer.js";
import { num, percent, shown } from "./format.js";
import { setView, useLab } from "./store.js";
import { Bars, TokenPicker, where } from "./tokens.js";
import { Slider, Waiting } from "./panel.js";

const DRAWN = 14;

/**
 * Probabilities as sampling draws them: the logits over the temperature, then the k likeliest, then the fewest that
 * reach p together.
 * @param {ArrayLike<number>} logits @param {number} temperature @param {number} topK 0 is all @param {number} topP
 * @returns {{ id: number, prob: number }[]} likeliest first, those that are cut with 0
 */
export function distribution(logits, temperature, topK, topP) {
  const most = Math.max(...Array.from(logits));
  const weights = Array.from(logits, (logit, id) => ({ id, prob: Math.exp((logit - most) / temperature) }));
  weights.sort((a, b) => b.prob - a.prob || a.id - b.id);
  const kept = topK > 0 ? Math.min(topK, weights.length) : weights.length;
  const total = weights.slice(0, kept).reduce((sum, one) => sum + one.prob, 0);
  let before = 0;
  let sum = 0;
  const cut = weights.map((one, index) => {
    const stays = index < kept && (before < topP || index === 0);
    before += one.prob / total;
    sum += stays ? one.prob : 0;
    return { ...one, stays };
  });
  return cut.map(({ id, prob, stays }) => ({ id, prob: stays ? prob / sum : 0 }));
}

/** @param {{ active: boolean }} props */
export function ProbabilityPanel({ active }) {
  const view = useLab((s) => s.view);
  const off = useLab((s) => s.off);
  const metadata = useLab((s) => s.metadata);
  const { answer, fault } = useAnswer("probabilities", { ...where(view, off), position: view.position }, active);
  const [text, type] = useState(view.text);
  const vocab = metadata?.vocab ?? [];
  const own = metadata?.kind !== "trace" && html`<form class="own" onSubmit=${(/** @type {Event} */ event) => {
    event.preventDefault();
    setView({ text, position: -1 });
  }}>
    <label><span class="unseen">A text of your own</span><input class="field" value=${text} maxlength="200" placeholder="a text of your own" onInput=${(/** @type {any} */ event) => type(event.target.value)} /></label>
    <button type="submit" class="tool-button">Ask</button>
    ${view.text && html`<button type="button" class="tool-button" onClick=${() => {
      type("");
      setView({ text: "", position: -1 });
    }}>Back to the batch</button>`}
  </form>`;
  if (!answer) return html`${own}<${Waiting} fault=${fault} />`;
  const { tokens, position, target } = answer.data;
  const logits = answer.tensors.logits.data;
  const rows = distribution(logits, view.temperature, view.topK, view.topP);
  const entropy = rows.reduce((sum, { prob }) => sum - (prob > 0 ? prob * Math.log(prob) : 0), 0);
  return html`${own}
    <${TokenPicker} tokens=${tokens} position=${position} label="The token before the guess" />
    <div class="sliders">
      <${Slider} label="temperature" min=${0.05} max=${2} step=${0.05} value=${view.temperature} shown=${view.temperature.toFixed(2)} set=${(/** @type {number} */ temperature) => setView({ temperature })} />
      <${Slider} label="top-k" min=${0} max=${Math.min(100, logits.length)} step=${1} value=${view.topK} shown=${view.topK ? String(view.topK) : "all"} set=${(/** @type {number} */ topK) => setView({ topK })} />
      <${Slider} label="top-p" min=${0.05} max=${1} step=${0.05} value=${view.topP} shown=${view.topP.toFixed(2)} set=${(/** @type {number} */ topP) => setView({ topP })} />
    </div>
    <div id="probability-bars"><${Bars} rows=${rows.slice(0, DRAWN).map(({ id, prob }) => ({
      name: shown(vocab[id] ?? `#${id}`), value: prob, text: prob ? percent(prob) : "cut", aim: id === target.id, cut: !prob,
    }))} /></div>
    <p class="readout">After <span class="mono">${shown(tokens[position].text)}</span>${target.id >= 0 && html` the data has <b class="mono">${shown(target.text)}</b>`};
      entropy <span class="number" data-fact="entropy">${num(entropy)}</span> nats of at most ${num(Math.log(logits.length))}.</p>`;
}

/** @param {{ active: boolean }} props */
export function LensPanel({ active }) {
  const view = useLab((s) => s.view);
  const off = useLab((s) => s.off);
  const { answer, fault } = useAnswer("lens", { ...where(view, off), position: view.position }, active);
  if (!answer) return html`<${Waiting} fault=${fault} />`;
  const { tokens, position, target, layers } = answer.data;
  return html`
    <${TokenPicker} tokens=${tokens} position=${position} label="The token before the guess" />
    <div class="scroll" tabindex="0" role="region" aria-label="Guesses by layer">
    <table id="lens-table">
      <thead><tr><th scope="col">after</th><th scope="col" class="right">${target.id >= 0 ? html`<span class="mono">${shown(target.text)}</span> gets` : "target"}</th><th scope="col">likeliest</th></tr></thead>
      <tbody>${layers.map((/** @type {any} */ layer) => html`<tr key=${layer.name}><th scope="row">${layer.name.replace(/^layer(\d+)$/, "layer $1")}</th>
        <td class="right">${layer.target_prob === null ? "–" : percent(layer.target_prob)}</td>
        <td>${layer.top.map((/** @type {any} */ one) => html`<span class="guess" style=${{ "--heat-share": `${Math.round(42 * one.prob)}%` }}><span class="mono">${shown(one.token)}</span> ${percent(one.prob)}</span>`)}</td></tr>`)}</tbody>
    </table></div>`;
}

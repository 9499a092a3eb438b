/** Which token the page looks at, and how well the model expected each. */

import { html, useEffect } from "./vendor/preact.js";
import { useAnswer } from "./answer.js";
import { num, percent, shown } from "./format.js";
import { setView, useLab } from "./store.js";
import { Waiting } from "./panel.js";

/** @import { Shown, Unit, View } from "./types.js" */

const DRAWN = 12;

/** What every panel about a row is asked. @param {View} view @param {Unit[]} off */
export const where = (view, off) => (view.text ? { text: view.text, off } : { row: view.row, off });

/** @param {number} position from 0 or, negative, from the end @param {number} length */
export const placeOf = (position, length) => (position < 0 || position >= length ? length - 1 : position);

/** A chosen place as the view keeps it: the last one stays the last in a row of another length. @param {number} index @param {number} length */
const pointed = (index, length) => (index === length - 1 ? -1 : index);

/** The arrow keys move along a row of buttons. @param {KeyboardEvent} event */
export function arrows(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || !(event.target instanceof HTMLElement)) return;
  const all = [.../** @type {HTMLElement} */ (event.currentTarget).querySelectorAll("button")];
  const next = all[all.indexOf(/** @type {HTMLButtonElement} */ (event.target)) + step];
  if (!next) return;
  event.preventDefault();
  event.stopPropagation();
  next.focus();
  next.click();
}

/**
 * The tokens of a row, one of them chosen.
 * @param {{ tokens: Shown[], position: number, label: string }} props
 */
export function TokenPicker({ tokens, position, label }) {
  const chosen = placeOf(position, tokens.length);
  return html`<div class="tokens" role="group" aria-label=${label} onKeyDown=${arrows}>
    ${tokens.map((token, index) => html`<button type="button" class="token" key=${index} aria-pressed=${index === chosen} tabindex=${index === chosen ? 0 : -1}
      onClick=${() => setView({ position: pointed(index, tokens.length) })}>${shown(token.text)}</button>`)}
  </div>`;
}

/** @param {{ active: boolean }} props */
export function BatchPanel({ active }) {
  const off = useLab((s) => s.off);
  const view = useLab((s) => s.view);
  const { answer, fault } = useAnswer("tokens", { off }, active);
  if (!answer) return html`<${Waiting} fault=${fault} />`;
  const { rows, loss } = answer.data;
  const losses = answer.tensors.losses;
  const width = losses.shape[1];
  const most = Math.max(...losses.data, 1e-6);
  return html`
    <p class="readout">What update ${answer.step + 1} learns from: mean loss <b class="number" data-fact="batch-loss">${num(loss)}</b>. A token's colour and number are
      the loss of guessing what follows it.</p>
    <div class="batch">
      ${rows.slice(0, 32).map((/** @type {any} */ row, /** @type {number} */ r) => html`<div class="tokens" key=${r} role="group" aria-label=${`Row ${r + 1}: ${row.doc.slice(0, 60)}`} onKeyDown=${arrows}>
        ${row.tokens.slice(0, row.length).map((/** @type {Shown} */ token, /** @type {number} */ t) => {
          const value = losses.data[r * width + t];
          const none = row.targets[t].id < 0;
          const chosen = !view.text && r === view.row && t === placeOf(view.position, row.length);
          return html`<button type="button" class="token" key=${t} aria-pressed=${chosen} tabindex=${chosen || (t === 0 && r !== view.row) ? 0 : -1}
            style=${{ "--heat-share": `${none ? 0 : Math.round((42 * value) / most)}%` }}
            title=${none ? "nothing to guess" : `${shown(token.text)} → ${shown(row.targets[t].text)}: ${num(value)} nats, probability ${percent(Math.exp(-value))}`}
            onClick=${() => setView({ row: r, position: pointed(t, row.length), text: "" })}>${shown(token.text)}<small>${none ? "–" : num(value, 3)}</small></button>`;
        })}
      </div>`)}
    </div>
    ${rows.length > 32 && html`<p class="readout">${rows.length - 32} more rows are not drawn.</p>`}
    <${Story} active=${active} length=${rows[view.row]?.length ?? 1} />`;
}

/** What went in, what came out, and what pulled on it. @param {{ active: boolean, length: number }} props */
function Story({ active, length }) {
  const view = useLab((s) => s.view);
  const off = useLab((s) => s.off);
  const { answer, fault } = useAnswer("token", { ...where(view, off), position: view.text ? view.position : placeOf(view.position, length) }, active);
  useEffect(() => {
    if (fault && (view.row || view.position !== -1)) setView({ row: 0, position: -1 });
  }, [fault]);
  if (!answer) return html`<${Waiting} fault=${fault} />`;
  const { tokens, position, target, loss, rank, top, parameters } = answer.data;
  const saliency = answer.tensors.saliency.data;
  const strongest = Math.max(...saliency, 1e-12);
  const pulling = [...saliency].slice(0, position + 1).map((value, index) => ({ value, index }));
  const drawn = pulling.toSorted((a, b) => b.value - a.value).slice(0, DRAWN).sort((a, b) => a.index - b.index);
  const pulls = Object.entries(parameters).sort(([, a], [, b]) => b - a);
  const hardest = pulls[0]?.[1] || 1;
  return html`<div class="story" aria-live="polite">
    <h3>The story of ${shown(tokens[position].text)} at place ${position}</h3>
    <p>${target.id < 0 ? "Nothing follows it in the data." : html`The data goes on with <b class="mono">${shown(target.text)}</b>: the model put it at
      rank <b data-fact="rank">${rank}</b> with ${percent(Math.exp(-loss))}, a loss of <b class="number" data-fact="token-loss">${num(loss)}</b> nats.`}</p>
    <div class="story-parts">
      <div><h4>It expected</h4><${Bars} rows=${top.map((/** @type {any} */ one) => ({ name: shown(one.token), value: one.prob, text: percent(one.prob), aim: one.token_id === target.id }))} /></div>
      <div><h4>${pulling.length > DRAWN ? `The ${DRAWN} inputs that its loss depends on most` : "Inputs that its loss depends on"}</h4><${Bars} rows=${drawn.map(({ value, index }) => ({ name: shown(tokens[index].text), value: value / strongest, text: num(value, 3) }))} /></div>
      <div><h4>Gradient by matrix</h4><${Bars} rows=${pulls.slice(0, 10).map(([name, value]) => ({ name, value: value / hardest, text: num(value, 3) }))} /></div>
    </div>
  </div>`;
}

/**
 * Named bars; `value` is a share of the whole width.
 * @param {{ rows: { name: string, value: number, text: string, aim?: boolean, cut?: boolean }[] }} props
 */
export function Bars({ rows }) {
  return html`<div class="bars" role="list">
    ${rows.map((row, index) => html`<div role="listitem" class=${`bar-line${row.cut ? " cut" : ""}`} key=${index}>
      <span class=${`mono${row.aim ? " aim" : ""}`}>${row.name}${row.aim && html`<span class="unseen"> (what follows)</span>`}</span>
      <div class="track"><div class="fill" style=${{ width: `${100 * Math.min(1, Math.max(0, row.value))}%` }}></div></div>
      <span class="number">${row.text}</span>
    </div>`)}
  </div>`;
}

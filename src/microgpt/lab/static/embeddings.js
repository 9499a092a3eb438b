/** The token vectors as a map: those that the model treats alike lie close together. */

import { html, useState } from "./vendor/preact.js";
import { useAnswer } from "./answer.js";
import { num, percent, shown } from "./format.js";
import { useLab } from "./store.js";
import { Toggle, Waiting } from "./panel.js";

const SIZE = 400;
const EDGE = 26;
const NAMED = 120;

/** @param {{ active: boolean }} props */
export function EmbeddingsPanel({ active }) {
  const off = useLab((s) => s.off);
  const positions = useLab((s) => "wpe" in (s.metadata?.parameters ?? {}));
  const [which, choose] = useState("wte");
  const [over, hover] = useState(-1);
  const { answer, fault } = useAnswer("embeddings", { which, dimensions: 2, off }, active);
  const choice = positions && html`<div class="row" role="group" aria-label="Which vectors">
    <${Toggle} label="tokens" on=${which === "wte"} set=${() => choose("wte")} /><${Toggle} label="positions" on=${which === "wpe"} set=${() => choose("wpe")} /></div>`;
  if (!answer) return html`${choice}<${Waiting} fault=${fault} />`;
  const { labels, explained } = answer.data;
  const { data } = answer.tensors.points;
  const reach = data.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-9);
  const place = (/** @type {number} */ value) => SIZE / 2 + (value / reach) * (SIZE / 2 - EDGE);
  const at = over >= 0 && over < labels.length ? over : -1;
  return html`${choice}
    <svg class="plot map" viewBox=${`0 0 ${SIZE} ${SIZE}`} role="img" aria-label=${`${labels.length} vectors in their two main directions`}>
      <path class="edge" d=${`M${SIZE / 2} ${EDGE / 2}V${SIZE - EDGE / 2}M${EDGE / 2} ${SIZE / 2}H${SIZE - EDGE / 2}`} />
      ${labels.map((/** @type {string} */ label, /** @type {number} */ index) => html`<g key=${index} class=${`point${index === at ? " chosen" : ""}`} transform=${`translate(${place(data[2 * index])} ${place(-data[2 * index + 1])})`}
        onMouseEnter=${() => hover(index)} onMouseLeave=${() => hover(-1)}>
        <circle r=${labels.length > NAMED ? 3 : 9} />${labels.length <= NAMED && html`<text class="mono" text-anchor="middle" dy="4">${shown(label).slice(0, 5)}</text>`}</g>`)}
    </svg>
    <p class="readout">${at >= 0 ? html`<span class="mono">${shown(labels[at])}</span> at ${num(data[2 * at], 3)}, ${num(data[2 * at + 1], 3)}` : html`These two directions hold <span data-fact="explained">${percent(explained[0])} and ${percent(explained[1] ?? 0)}</span> of the spread.`}</p>`;
}

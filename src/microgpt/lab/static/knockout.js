/** What each part is good for: switched off, how much worse does the model get on texts it has not seen? */

import { html, useState } from "./vendor/preact.js";
import { useAnswer } from "./answer.js";
import { num, signed } from "./format.js";
import { set, state, useLab } from "./store.js";
import { Toggle, Waiting } from "./panel.js";

/** @import { Unit } from "./types.js" */

/** @param {Unit} unit */
const same = (unit) => (/** @type {Unit} */ other) => unit.layer === other.layer && unit.kind === other.kind && unit.index === other.index;

/** @param {Unit} unit */
function turn(unit) {
  set({ off: state.off.some(same(unit)) ? state.off.filter((other) => !same(unit)(other)) : [...state.off, unit] });
}

/** @param {{ active: boolean }} props */
export function KnockoutPanel({ active }) {
  const off = useLab((s) => s.off);
  const metadata = useLab((s) => s.metadata);
  const running = useLab((s) => s.running);
  const [kind, choose] = useState(/** @type {"head" | "neuron"} */ ("head"));
  const [layer, go] = useState(0);
  const { answer, fault, current } = useAnswer("knockout", { kind, layer, off, rows: 64 }, active, false);
  const layers = metadata?.layers ?? 1;
  const tools = html`<div class="row" role="group" aria-label="Parts">
    <${Toggle} label="heads" on=${kind === "head"} set=${() => choose("head")} /><${Toggle} label="neurons" on=${kind === "neuron"} set=${() => choose("neuron")} />
    ${kind === "neuron" && layers > 1 && html`<label class="link">layer <select class="field" value=${layer} onChange=${(/** @type {any} */ event) => go(Number(event.target.value))}>${Array.from({ length: layers }, (_, index) => html`<option value=${index}>${index}</option>`)}</select></label>`}
    ${off.length > 0 && html`<button type="button" class="tool-button" onClick=${() => set({ off: [] })}>All on again</button>`}
  </div>`;
  if (!answer || (!current && answer.data.kind !== kind)) return html`${tools}<${Waiting} fault=${fault} text=${running ? "This map is drawn when the session pauses, or for a step in the past." : "Scoring the model once for each part…"} />`;
  const effect = answer.tensors.effect;
  const columns = kind === "head" ? effect.shape[1] : Math.min(32, effect.shape[0]);
  const most = effect.data.reduce((high, value) => Math.max(high, Math.abs(value)), 1e-9);
  const units = Array.from(effect.data, (value, at) => ({ value, unit: /** @type {Unit} */ (kind === "head"
    ? { kind, layer: Math.floor(at / columns), index: at % columns } : { kind, layer, index: at }) }));
  const { loss, whole, targets } = answer.data;
  return html`${tools}
    <div class="scroll"><div class=${`knock ${kind}`} style=${{ gridTemplateColumns: `repeat(${columns}, minmax(${kind === "head" ? "3.4rem" : "1rem"}, 1fr))` }} role="group" aria-label=${kind === "head" ? "Layers by heads" : `Neurons of layer ${layer}`}>
      ${units.map(({ value, unit }) => {
        const isOff = off.some(same(unit));
        const name = `${kind} ${unit.index} of layer ${unit.layer}`;
        return html`<button type="button" key=${name} disabled=${metadata?.kind === "trace"} class=${`part ${value < 0 ? "helps" : ""}`} aria-pressed=${isOff} aria-label=${`${name}${isOff ? ", off" : `: ${signed(value)} nats when off`}`} title=${`${name}: ${signed(value)} nats`}
          style=${{ "--heat-share": `${Math.round((42 * Math.abs(value)) / most)}%` }} onClick=${() => turn(unit)}>
          ${kind === "head" && html`<small>${unit.layer}.${unit.index}</small>${isOff ? "off" : signed(value, 2)}`}</button>`;
      })}
    </div></div>
    <p class="readout">Validation loss <b class="number" data-fact="whole">${num(whole, 5)}</b> over ${targets} tokens${current && off.length > 0 && html`; with ${off.length} off <b class="number" data-fact="knocked">${num(loss, 5)}</b> (${signed(loss - whole)})`}.
      Each part shows what its loss adds to that. Click to switch it off in every panel and in samples.</p>`;
}

/** What the model writes, from its first babble to now. */

import { html } from "./vendor/preact.js";
import { sample, travel } from "./session.js";
import { useLab } from "./store.js";

export function SamplesPanel() {
  const samples = useLab((s) => s.samples);
  const busy = useLab((s) => s.busy);
  const kind = useLab((s) => s.metadata?.kind);
  return html`
    ${kind !== "trace" && html`<div class="row"><button type="button" class="tool-button" disabled=${busy !== ""} onClick=${sample}>Draw ten now</button></div>`}
    ${samples.length === 0
      ? html`<p class="wait">No samples yet: press C.</p>`
      : html`<div class="samples" tabindex="0" role="region" aria-label="Drawn texts">${samples.map((told) => html`<section key=${`${told.step} ${told.samples[0]}`}>
          <h3><button type="button" class="text-button" onClick=${() => travel(told.step)}>step ${told.step}</button>
            <br />t ${told.temperature}${told.off.length > 0 && ", parts off"}</h3>
          <ul>${told.samples.map((text) => html`<li>${told.prompt}${text || "∅"}</li>`)}</ul>
        </section>`)}</div>`}`;
}

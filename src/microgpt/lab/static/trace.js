/** The session as a file: to keep, to open again, or to show where there is no server. */

import { html, useRef } from "./vendor/preact.js";
import { get, post } from "./api.js";
import { page } from "./replay.js";
import { act, enter, here } from "./session.js";
import { state, useLab } from "./store.js";

/** @param {string} text @param {string} kind @param {string} name */
function save(text, kind, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const title = () => `microgpt-${state.metadata?.name || state.sessionId?.slice(0, 8)}-step${state.newest}`;

const saveTrace = () => act("trace", async () => save(JSON.stringify(await get(here("trace"))), "application/json", `${title()}.trace.json`));

const savePage = () => act("trace", async () => save(await page(await get(here("trace"))), "text/html", `${title()}.html`));

/** @param {File} file */
const openTrace = (file) =>
  act("trace", async () => {
    /** @type {any} */
    let told;
    try {
      told = JSON.parse(await file.text());
    } catch {
      throw new Error(`${file.name} is no trace: it is not JSON`);
    }
    await enter((await post("trace", told)).session_id);
  });

export function TracePanel() {
  const busy = useLab((s) => s.busy);
  const running = useLab((s) => s.running);
  const points = useLab((s) => s.points.length);
  const file = useRef(/** @type {HTMLInputElement | null} */ (null));
  return html`<div class="row">
      <button type="button" class="tool-button" disabled=${busy !== "" || running} onClick=${saveTrace}>Save the trace</button>
      <button type="button" class="tool-button" disabled=${busy !== "" || running} onClick=${savePage}>Save as one page</button>
      <button type="button" class="tool-button" disabled=${busy !== ""} onClick=${() => file.current?.click()}>Open a trace…</button>
      <input ref=${file} type="file" accept=".json,application/json" hidden aria-label="Trace file" onChange=${(/** @type {any} */ event) => {
        const [chosen] = event.target.files;
        if (chosen) void openTrace(chosen);
        event.target.value = "";
      }} />
      <span class="readout" role="status">${busy === "trace" ? "Collecting every recorded step…" : `${points} steps so far.`}</span>
    </div>`;
}

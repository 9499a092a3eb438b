/** What stands above the page: the form of a new session, the keys. */

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { get } from "./api.js";
import { num } from "./format.js";
import { KEYS } from "./keys.js";
import { attach, complain, fork, shownStep, start } from "./session.js";
import { set, useLab } from "./store.js";

/** @typedef {{ name: string, label: string, value: string | number, min?: number, max?: number, step?: number | "any", choices?: "optimizers" | "embedded" | "tokenizers" | "models" }} Field */

/** The preset whose sizes the form asks for; the others have sizes of their own. */
const SMALL = "micro_first";

/** @type {Field[]} */
const SIZES = [
  { name: "n_embd", label: "width (n_embd)", value: 16, min: 4, max: 2048 },
  { name: "n_head", label: "heads", value: 4, min: 1, max: 64 },
  { name: "n_layer", label: "layers", value: 1, min: 1, max: 48 },
  { name: "block_size", label: "context (block_size)", value: 8, min: 2, max: 2048 },
];

/** @type {Field[]} */
const FIELDS = [
  { name: "learning_rate", label: "learning rate", value: 0.01, min: 0.000001, max: 1, step: "any" },
  { name: "num_steps", label: "steps", value: 500, min: 1, max: 100000 },
  { name: "batch_size", label: "rows a step", value: 1, min: 1, max: 1024 },
  { name: "seed", label: "seed", value: 42, min: 0, max: 9007199254740992 },
  { name: "temperature", label: "temperature of samples", value: 0.5, min: 0.01, max: 2, step: "any" },
  { name: "optimizer", label: "optimizer", value: "adamw", choices: "optimizers" },
  { name: "data", label: "texts", value: "names", choices: "embedded" },
  { name: "tokenizer", label: "tokens", value: "char", choices: "tokenizers" },
];

/** @param {Event} event */
function begin(event) {
  event.preventDefault();
  const given = new FormData(/** @type {HTMLFormElement} */ (event.target));
  const words = [...given].map(([name, value]) => [name, SIZES.concat(FIELDS).some((field) => field.name === name && !field.choices) ? Number(value) : value]);
  void start(Object.fromEntries(words));
}

/** @param {{ field: Field, choices: string[] }} props */
function Input({ field, choices }) {
  return html`<label>${field.label}
    ${field.choices
      ? html`<select class="field" name=${field.name}>${choices.map((choice) => html`<option value=${choice} selected=${choice === field.value}>${choice}</option>`)}</select>`
      : html`<input class="field" type="number" required name=${field.name} min=${field.min} max=${field.max} step=${field.step ?? 1} defaultValue=${field.value} />`}
  </label>`;
}

/** @param {{ cancel?: () => void }} props */
export function NewForm({ cancel }) {
  const busy = useLab((s) => s.busy);
  const options = useLab((s) => s.options);
  const [model, choose] = useState(SMALL);
  if (!options) return null;
  return html`<form onSubmit=${begin} class="form">
    <label>model<select class="field" name="model" value=${model} onChange=${(/** @type {any} */ event) => choose(event.target.value)}>
      ${options.models.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select></label>
    ${[...(model === SMALL ? SIZES : []), ...FIELDS].map((field) => html`<${Input} key=${field.name} field=${field} choices=${field.choices ? options[field.choices] : []} />`)}
    <div class="row">
      ${cancel && html`<button type="button" class="plain-button" onClick=${cancel}>Cancel</button>`}
      <button type="submit" class="full-button" autofocus disabled=${busy !== ""}>${busy === "start" ? "Starting…" : "Start"} <kbd>Enter</kbd></button>
    </div>
  </form>`;
}

/** The runs of `microgpt.train`: each opens as a session to look into. */
export function Runs() {
  const [runs, tell] = useState(/** @type {any[]} */ ([]));
  useEffect(() => {
    get("runs").then((told) => tell(told.runs), complain);
  }, []);
  if (!runs.length) return null;
  return html`<h3>Or look into a run of microgpt.train</h3>
    <div class="scroll runs" tabindex="0" role="region" aria-label="Runs"><table>
      <thead><tr><th scope="col">run</th><th scope="col">status</th><th scope="col" class="right">step</th><th scope="col" class="right">validation</th></tr></thead>
      <tbody>${runs.map((one) => html`<tr key=${one.run}><th scope="row"><button type="button" class="text-button" onClick=${() => attach(one.run)}>${one.name || one.run}</button></th>
        <td>${one.status.toLowerCase()}</td><td class="right">${one.step ?? "–"}</td><td class="right">${num(one.val_loss)}</td></tr>`)}</tbody>
    </table></div>`;
}

/** What goes on otherwise on the new branch; what is left empty stays as it is. */
function ForkForm() {
  const metadata = useLab((s) => s.metadata);
  const off = useLab((s) => s.off);
  const busy = useLab((s) => s.busy);
  const step = useLab(shownStep);
  const options = useLab((s) => s.options);
  /** @param {Event} event */
  const go = (event) => {
    event.preventDefault();
    const given = new FormData(/** @type {HTMLFormElement} */ (event.target));
    const changes = Object.fromEntries(["learning_rate", "num_steps"].filter((name) => given.get(name)).map((name) => [name, Number(given.get(name))]));
    void fork({ ...changes, ...(given.get("data") ? { data: given.get("data") } : {}), ...(given.get("name") ? { name: given.get("name") } : {}) });
  };
  return html`<form class="form" onSubmit=${go}>
    <p class="row">From step ${step} of this session. What stays empty stays as it is, and the branch then repeats the old one bit for bit.</p>
    <label>learning rate<input class="field" type="number" name="learning_rate" min="0.000001" max="1" step="any" placeholder=${metadata?.config.learning_rate} autofocus /></label>
    <label>steps<input class="field" type="number" name="num_steps" min=${step} max="100000" placeholder=${metadata?.num_steps} /></label>
    <label>texts<select class="field" name="data"><option value="">as it is</option>${options?.embedded.map((/** @type {string} */ name) => html`<option value=${name}>${name}</option>`)}</select></label>
    <label>called<input class="field" name="name" maxlength="64" pattern="[A-Za-z0-9._\\-]*" /></label>
    ${off.length > 0 && html`<p class="row">${off.length} ${off.length === 1 ? "part stays" : "parts stay"} switched off while it trains.</p>`}
    <div class="row"><button type="button" class="plain-button" onClick=${() => set({ dialog: "" })}>Cancel</button>
      <button type="submit" class="full-button" disabled=${busy !== ""}>Fork <kbd>Enter</kbd></button></div>
  </form>`;
}

/** @param {{ title: string, children?: any }} props */
function Dialog({ title, children }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    dialog.current?.showModal();
    const first = /** @type {HTMLElement | null} */ (dialog.current?.querySelector("[autofocus]"));
    first?.focus();
  }, []);
  return html`<dialog ref=${dialog} aria-label=${title} onClose=${() => set({ dialog: "" })}
    onClick=${(/** @type {MouseEvent} */ event) => event.target === dialog.current && set({ dialog: "" })}>
    <h2>${title}</h2>${children}</dialog>`;
}

export function Dialogs() {
  const dialog = useLab((s) => s.dialog);
  const close = () => set({ dialog: "" });
  if (dialog === "new") return html`<${Dialog} key="new" title="A new session"><${NewForm} cancel=${close} /><${Runs} /></${Dialog}>`;
  if (dialog === "fork") return html`<${Dialog} key="fork" title="Fork"><${ForkForm} /></${Dialog}>`;
  if (dialog === "keys")
    return html`<${Dialog} key="keys" title="Keys"><table class="sheet"><tbody>${KEYS.map(([key, words]) => html`<tr><td><kbd>${key}</kbd></td><td>${words}</td></tr>`)}</tbody></table>
      <div class="row close-row"><button type="button" class="plain-button line-button" autofocus onClick=${close}>Close</button></div></${Dialog}>`;
  return null;
}

/** What went wrong, until it is read. */
export function Notice() {
  const notice = useLab((s) => s.notice);
  return html`<div role="alert">${notice && html`<div class="notice"><p>${notice}</p><button type="button" class="plain-button" onClick=${() => set({ notice: "" })}>Close</button></div>`}</div>`;
}

/** The page: the bar that drives a session, and the panels that look into it. */

import { html, useState } from "./vendor/preact.js";
import { Dialogs, NewForm, Notice, Runs } from "./dialogs.js";
import { count } from "./format.js";
import { speed } from "./keys.js";
import { Pace } from "./loss.js";
import { Panel } from "./panel.js";
import { PANELS } from "./panels.js";
import { trace } from "./replay.js";
import { act, end, enter, move, pause, reset, run, sample, shownStep, stepOnce, travel } from "./session.js";
import { set, useLab } from "./store.js";
import { Tour } from "./tour.js";

/** @import { SessionRow } from "./types.js" */

/** @param {SessionRow} row @param {number} step */
const titled = (row, step) => `${row.name || row.session_id.slice(0, 8)}${row.kind === "live" ? "" : ` (${row.kind})`} · ${step}/${row.num_steps}`;

const SPEEDS = [
  { label: "full speed", delay: 0 },
  { label: "20 a second", delay: 50 },
  { label: "5 a second", delay: 200 },
  { label: "1 a second", delay: 1000 },
];

function Transport() {
  const running = useLab((s) => s.running);
  const busy = useLab((s) => s.busy) !== "";
  const kind = useLab((s) => s.metadata?.kind);
  const done = useLab((s) => Boolean(s.metadata) && s.newest >= (s.metadata?.num_steps ?? 0));
  const [at, pick] = useState(0);
  const live = kind === "live";
  if (trace) return html`<div class="transport"><span class="quiet small">a recorded session</span></div>`;
  return html`<div class="transport">
    <button type="button" class="plain-button line-button" onClick=${() => set({ dialog: "new" })}>New <kbd>N</kbd></button>
    ${live && html`<button type="button" class="plain-button line-button" disabled=${busy || running || done} onClick=${stepOnce}>Step <kbd>S</kbd></button>
      ${running
        ? html`<button type="button" class="full-button" onClick=${pause}>Pause <kbd>P</kbd></button>`
        : html`<button type="button" class="full-button" disabled=${busy || done} onClick=${() => run(speed.steps, speed.delay)}>Run <kbd>R</kbd></button>`}
      <select class="field speed" aria-label="Speed" value=${at} onChange=${(/** @type {any} */ event) => {
        pick(Number(event.target.value));
        speed.delay = SPEEDS[Number(event.target.value)].delay;
      }}>${SPEEDS.map((one, index) => html`<option value=${index}>${one.label}</option>`)}</select>`}
    ${kind !== "trace" && html`<button type="button" class="plain-button line-button" disabled=${busy} onClick=${sample}>Samples <kbd>C</kbd></button>`}
    ${live && html`<button type="button" class="plain-button" disabled=${busy || running} onClick=${reset}>Reset</button>`}
    <button type="button" class="plain-button" disabled=${busy || running} title="End this session; its run stays in outputs/" onClick=${end}>End</button>
  </div>`;
}

/** The slider over all that has been: every panel shows the step that it stands at. */
function TimeSlider() {
  const newest = useLab((s) => s.newest);
  const at = useLab((s) => s.at);
  const metadata = useLab((s) => s.metadata);
  const shown = useLab(shownStep);
  const first = metadata?.first_step ?? 0;
  return html`<div class="time" id="time">
    <button type="button" class="icon-button" aria-label="One step back" title="One step back ([)" disabled=${shown <= first} onClick=${() => move(-1)}>‹</button>
    <input type="range" aria-label="Time travel: the step that all panels show" min=${first} max=${Math.max(newest, first + 1)} value=${shown}
      disabled=${newest <= first} onInput=${(/** @type {any} */ event) => travel(event.target.valueAsNumber)} />
    <button type="button" class="icon-button" aria-label="One step forward" title="One step forward (])" disabled=${at === null} onClick=${() => move(1)}>›</button>
    <output class=${at === null ? "" : "past"} data-fact="step">step ${shown} of ${at === null ? metadata?.num_steps : newest}</output>
    <button type="button" class="tool-button" disabled=${at === null} onClick=${() => travel(null)}>Newest</button>
    ${metadata?.kind !== "trace" && html`<button type="button" class="tool-button" title="Go on from this step as a session of its own" onClick=${() => set({ dialog: "fork" })}>Fork</button>`}
  </div>`;
}

function Bar() {
  const sessions = useLab((s) => s.sessions);
  const id = useLab((s) => s.sessionId);
  const link = useLab((s) => s.link);
  const newest = useLab((s) => s.newest);
  const metadata = useLab((s) => s.metadata);
  const share = metadata ? newest / metadata.num_steps : 0;
  return html`<header class="bar">
    <div class="bar-row">
      <h1 class="mark">micro<span>gpt</span><small>lab</small></h1>
      ${id && html`<${Transport} />`}
      <span class="push"></span>
      ${id && html`<span class=${`link ${link}`} role="status"><span>${{ live: "connected", lost: "reconnecting…", off: "" }[link]}</span></span>`}
      ${sessions.length > 1 && html`<select class="field session-pick" aria-label="Session" value=${id} onChange=${(/** @type {any} */ event) => act("enter", () => enter(event.target.value))}>
        ${sessions.map((row) => html`<option key=${row.session_id} value=${row.session_id}>${titled(row, row.session_id === id ? newest : row.step)}</option>`)}</select>`}
      ${id && html`<button type="button" class="plain-button" onClick=${() => set({ tour: true })}>Tour</button>`}
      <button type="button" class="icon-button" aria-label="Keys" title="Keys (?)" onClick=${() => set({ dialog: "keys" })}>?</button>
      <${ThemeButton} />
    </div>
    ${id && html`<div class="bar-row"><${TimeSlider} /></div>
      <div class="progress" role="progressbar" aria-label="Training progress" aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.round(100 * share)}><div style=${{ width: `${100 * share}%` }}></div></div>`}
  </header>`;
}

function ThemeButton() {
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const [now, turn] = useState(dark());
  return html`<button type="button" class="icon-button" aria-label="Dark" aria-pressed=${now} title="Light or dark" onClick=${() => {
    root.dataset.theme = now ? "light" : "dark";
    localStorage.setItem("microgpt.theme", root.dataset.theme);
    turn(!now);
  }}>◐</button>`;
}

function Facts() {
  const metadata = useLab((s) => s.metadata);
  if (!metadata) return null;
  const facts = [
    ["parameters", count(metadata.num_params)],
    ["layers × heads", `${metadata.layers} × ${metadata.heads}`],
    ["token ids", count(metadata.vocab_size)],
    ["documents", count(metadata.num_docs)],
  ];
  return html`<dl class="facts session-facts">${facts.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}<${Pace} /></dl>`;
}

export function App() {
  const id = useLab((s) => s.sessionId);
  const loaded = useLab((s) => s.loaded);
  const dialog = useLab((s) => s.dialog === "new");
  const panels = PANELS.filter((panel) => !trace || panel.recorded);
  return html`<${Bar} />
    ${id
      ? html`<nav class="jump" aria-label="Panels"><ul>${panels.map((panel) => html`<li key=${panel.id}><a href=${`#${panel.id}`} onClick=${(/** @type {Event} */ event) => {
          event.preventDefault();
          const target = document.getElementById(panel.id);
          target?.scrollIntoView();
          target?.focus({ preventScroll: true });
        }}>${panel.title}</a></li>`)}</ul></nav>
        <main class="grid" key=${id}><div class="overview"><${Facts} /></div>${panels.map((panel) => html`<${Panel} key=${panel.id} ...${panel} />`)}</main>`
      : html`<main class="welcome">${loaded && !dialog && html`
          <h2>Watch a GPT learn, and look inside</h2>
          <p>A small model trains on this machine, one step at a time or at full speed. Every number on the page is its own: each loss, each
            attention weight, each gradient, at any step you go back to.</p>
          <${NewForm} /><${Runs} />`}</main>`}
    <${Dialogs} />${id && html`<${Tour} />`}<${Notice} />`;
}

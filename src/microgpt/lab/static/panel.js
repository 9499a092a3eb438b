/** The frame of every panel: its name, its tools, what it is, and whether anyone sees it. */

import { html, useEffect, useRef, useState } from "./vendor/preact.js";

/**
 * @param {{
 *   id: string, title: string, span?: number, what: string, why: string, how: string,
 *   body: (props: { active: boolean }) => any,
 * }} props
 */
export function Panel({ id, title, span = 12, what, why, how, body: Body }) {
  const frame = useRef(/** @type {HTMLElement | null} */ (null));
  const [active, setActive] = useState(false);
  const [open, setOpen] = useState(false);
  useEffect(() => {
    const watcher = new IntersectionObserver((entries) => setActive(entries[entries.length - 1].isIntersecting), { rootMargin: "80px" });
    watcher.observe(/** @type {HTMLElement} */ (frame.current));
    return () => watcher.disconnect();
  }, []);
  return html`<section ref=${frame} id=${id} class=${`panel span-${span}`} aria-labelledby=${`${id}-title`} tabindex="-1">
    <header>
      <h2 id=${`${id}-title`}>${title}</h2>
      <button type="button" class="explain-button" aria-label=${`About ${title}`} title="What, why, how to read" aria-expanded=${open} onClick=${() => setOpen(!open)}>?</button>
    </header>
    ${open && html`<div class="explain"><dl><dt>What</dt><dd>${what}</dd><dt>Why</dt><dd>${why}</dd><dt>How to read</dt><dd>${how}</dd></dl></div>`}
    <div class="body"><${Body} active=${active} /></div>
  </section>`;
}

/** What stands where there is nothing yet. @param {{ fault?: string, text?: string }} props */
export function Waiting({ fault, text = "…" }) {
  return fault ? html`<p class="fault" role="alert">${fault}</p>` : html`<p class="wait">${text}</p>`;
}

/**
 * A switch with a label.
 * @param {{ on: boolean, set: (on: boolean) => void, label: string, disabled?: boolean }} props
 */
export function Toggle({ on, set, label, disabled = false }) {
  return html`<button type="button" class="tool-button" aria-pressed=${on} disabled=${disabled} onClick=${() => set(!on)}>${label}</button>`;
}

/**
 * A slider with its value beside its name.
 * @param {{ label: string, value: number, min: number, max: number, step: number, shown: string, set: (value: number) => void }} props
 */
export function Slider({ label, value, min, max, step, shown, set }) {
  return html`<label><span>${label}</span><span class="number" aria-hidden="true">${shown}</span>
    <input type="range" min=${min} max=${max} step=${step} value=${value} aria-valuetext=${shown} onInput=${(/** @type {any} */ event) => set(event.target.valueAsNumber)} />
  </label>`;
}

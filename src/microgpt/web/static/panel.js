// @ts-check
/** The settings: beside the conversation where there is room, over it where there is none. */

import { byId, el } from "./dom.js";
import { CONTROLS, clamp, clampSeed, saveSettings, startValues } from "./settings.js";

/** @typedef {import("./settings.js").Settings} Settings */
/** @typedef {import("./settings.js").Control} Control */

const USUAL_BLOCK = 1024;
const roomy = matchMedia("(min-width: 64rem)");

/** The panel and its button. */
export class Panel {
  /** @type {HTMLDialogElement} */
  #dialog = byId("settings");
  /** @type {HTMLButtonElement} */
  #button = byId("settings-button");
  /** @type {Map<string, {range: HTMLInputElement, number: HTMLInputElement, control: Control}>} */
  #inputs = new Map();

  /** @param {Settings} settings kept up to date and saved */
  constructor(settings) {
    this.settings = settings;
    byId("controls").replaceChildren(...CONTROLS.map((c) => this.#control({ ...c })));
    this.#seed();
    this.#system();
    byId("reset").addEventListener("click", () => {
      settings.sampling = startValues();
      this.#fill();
    });
    this.#button.addEventListener("click", () => (this.#dialog.open ? this.#dialog.close() : this.open()));
    byId("settings-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close(); // the backdrop
    });
    this.#dialog.addEventListener("close", () => {
      this.#shown(false);
      if (document.activeElement === document.body) this.#button.focus();
    });
    roomy.addEventListener("change", () => {
      if (!this.#dialog.open) return;
      this.#dialog.close();
      this.open();
    });
    if (settings.panel && roomy.matches) {
      this.#dialog.setAttribute("open", ""); // as show() does, without taking the focus
      this.#shown(true);
    }
  }

  open() {
    if (roomy.matches) this.#dialog.show();
    else this.#dialog.showModal();
    this.#shown(true);
  }

  /** @param {boolean} open */
  #shown(open) {
    this.#button.setAttribute("aria-expanded", String(open));
    document.documentElement.classList.toggle("with-panel", open);
    this.settings.panel = open;
    saveSettings(this.settings);
  }

  /** @param {number} block context of the model in tokens; 0 where not known */
  limit(block) {
    const inputs = this.#inputs.get("max_tokens");
    if (!inputs) return;
    inputs.control.max = block || USUAL_BLOCK;
    inputs.range.max = inputs.number.max = String(inputs.control.max);
    this.#show("max_tokens"); // what was set is kept for models with a larger context
  }

  /**
   * @param {Control} control
   * @returns {HTMLElement}
   */
  #control(control) {
    const { key, name, help, min, max, step } = control;
    const bounds = { min: String(min), max: String(max), step: String(step) };
    const range = el("input", { type: "range", id: key, "aria-describedby": `${key}-help`, ...bounds });
    const number = el("input", { type: "number", id: `${key}-number`, "aria-label": `${name}, as a number`, ...bounds });
    this.#inputs.set(key, { range, number, control });
    range.addEventListener("input", () => this.#set(key, range.valueAsNumber));
    number.addEventListener("change", () => this.#set(key, number.valueAsNumber));
    this.#show(key);
    const row = el("div", { class: "field-row" }, el("label", { for: key }, name), number);
    return el("div", { class: "field" }, row, range, el("p", { class: "help", id: `${key}-help` }, help));
  }

  /**
   * @param {string} key
   * @param {number} value
   */
  #set(key, value) {
    const inputs = this.#inputs.get(key);
    if (!inputs) return;
    this.settings.sampling[key] = clamp(inputs.control, value);
    this.#show(key);
    saveSettings(this.settings);
  }

  /** @param {string} key */
  #show(key) {
    const inputs = this.#inputs.get(key);
    if (!inputs) return;
    const value = clamp(inputs.control, this.settings.sampling[key]);
    inputs.range.value = inputs.number.value = String(value);
    const { min, max } = inputs.control;
    inputs.range.style.setProperty("--at", `${((value - min) / (max - min)) * 100}%`);
  }

  #fill() {
    for (const key of this.#inputs.keys()) this.#show(key);
    saveSettings(this.settings);
  }

  #seed() {
    const { settings } = this;
    /** @type {HTMLInputElement} */
    const seed = byId("seed");
    /** @type {HTMLInputElement} */
    const random = byId("random-seed");
    seed.value = String(settings.seed);
    random.checked = settings.randomSeed;
    seed.disabled = settings.randomSeed;
    random.addEventListener("change", () => {
      settings.randomSeed = seed.disabled = random.checked;
      saveSettings(settings);
    });
    seed.addEventListener("change", () => {
      settings.seed = clampSeed(seed.valueAsNumber);
      seed.value = String(settings.seed);
      saveSettings(settings);
    });
  }

  #system() {
    /** @type {HTMLTextAreaElement} */
    const system = byId("system");
    system.value = this.settings.system;
    system.addEventListener("input", () => {
      this.settings.system = system.value;
      saveSettings(this.settings);
    });
  }
}

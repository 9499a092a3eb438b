// @ts-check
/** What the reader sets, and where it is remembered. */

const KEY = "microgpt.settings";
export const MAX_SEED = 2 ** 31 - 1;

/**
 * @typedef {object} Control a number that the reader sets
 * @property {string} key its name in a request
 * @property {string} name
 * @property {string} help
 * @property {number} min
 * @property {number} max
 * @property {number} step
 * @property {number} start
 */

/** @type {Control[]} */
export const CONTROLS = [
  { key: "temperature", name: "Temperature", help: "Low is careful, high is bold. 0 takes the likeliest token.", min: 0, max: 2, step: 0.05, start: 0.7 },
  { key: "top_p", name: "Top-p", help: "Keep the smallest set with this probability. 1 keeps all.", min: 0.05, max: 1, step: 0.01, start: 0.95 },
  { key: "top_k", name: "Top-k", help: "Keep the k likeliest tokens. 0 keeps all.", min: 0, max: 200, step: 1, start: 40 },
  { key: "min_p", name: "Min-p", help: "Drop tokens below this share of the likeliest one.", min: 0, max: 0.5, step: 0.01, start: 0 },
  { key: "repetition_penalty", name: "Repetition penalty", help: "Makes recent tokens less likely. 1 is off.", min: 0.5, max: 2, step: 0.05, start: 1 },
  { key: "max_tokens", name: "Most tokens", help: "Where a reply is cut.", min: 1, max: 2 ** 20, step: 1, start: 200 },
];

/**
 * @typedef {object} Settings
 * @property {Record<string, number>} sampling by the key of each control
 * @property {number} seed
 * @property {boolean} randomSeed
 * @property {string} system
 * @property {string} model
 * @property {boolean} probabilities
 * @property {boolean} panel whether the settings stand beside the conversation
 */

/**
 * @param {Control} control
 * @param {unknown} value
 * @returns {number} within the control's range; its start where it is no number
 */
export function clamp(control, value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return control.start;
  const steps = Math.round((Math.min(control.max, Math.max(control.min, value)) - control.min) / control.step);
  return Number((control.min + steps * control.step).toFixed(4));
}

/** @param {unknown} value */
export function clampSeed(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return 42;
  return Math.min(MAX_SEED, Math.max(0, Math.trunc(value)));
}

/** @returns {Record<string, number>} */
export function startValues() {
  return Object.fromEntries(CONTROLS.map((c) => [c.key, c.start]));
}

/**
 * @param {any} value anything
 * @returns {Settings} sound settings, made of what is sound in it
 */
export function restoreSettings(value) {
  return {
    sampling: Object.fromEntries(CONTROLS.map((c) => [c.key, clamp(c, value?.sampling?.[c.key])])),
    seed: clampSeed(value?.seed),
    randomSeed: value?.randomSeed !== false,
    system: typeof value?.system === "string" ? value.system : "",
    model: typeof value?.model === "string" ? value.model : "",
    probabilities: value?.probabilities === true,
    panel: value?.panel === true,
  };
}

/** @returns {Settings} */
export function loadSettings() {
  try {
    return restoreSettings(JSON.parse(localStorage.getItem(KEY) ?? "null"));
  } catch {
    return restoreSettings(null);
  }
}

/** @param {Settings} settings */
export function saveSettings(settings) {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // a full or forbidden storage: the settings hold until the page is left
  }
}

/**
 * The seed of a reply. A fixed seed gives the same replies in the same order.
 *
 * @param {Settings} settings
 * @param {number} branch the place of the reply among its branches, from 0
 */
export function seedFor(settings, branch) {
  if (!settings.randomSeed) return clampSeed(settings.seed + branch);
  return crypto.getRandomValues(new Uint32Array(1))[0] & MAX_SEED;
}

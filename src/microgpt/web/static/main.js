// @ts-check
/** The chat page: state, what can be done with it, and how the parts hang together. */

import { ApiError, listModels, stream } from "./api.js";
import { askForKey, exportConversation, notice, themeButton } from "./corner.js";
import { announce, byId, fit } from "./dom.js";
import { listen } from "./keys.js";
import { count } from "./message.js";
import { Panel } from "./panel.js";
import { loadSettings, saveSettings, seedFor } from "./settings.js";
import { CONVERSATION, loadTree, saveTree } from "./storage.js";
import { Tip } from "./tip.js";
import { ROOT, add, drop, messages, newTree, node, path, place, step } from "./tree.js";
import { View } from "./view.js";

/** @typedef {import("./tree.js").Tree} Tree */
/** @typedef {import("./api.js").Model} Model */

/**
 * @typedef {object} State
 * @property {Tree} tree
 * @property {import("./settings.js").Settings} settings
 * @property {Model[]} models
 * @property {Model | null} model
 * @property {Set<string>} plain names of the models that were not trained for conversations
 * @property {{id: string, controller: AbortController} | null} running the reply that is being written
 */

const LOADING_MS = 1000;

/** @type {State} */
const state = { tree: loadTree(), settings: loadSettings(), models: [], model: null, plain: new Set(), running: null };
/** @type {HTMLTextAreaElement} */
const box = byId("box");
const tip = new Tip();
const panel = new Panel(state.settings);
const view = new View(state, { edit, again, goOn, step: toBranch, say: announce, edited, tip }, send);
let saved = 0;

/** @param {string} text */
function send(text) {
  if (!state.model || state.running || !text.trim()) return;
  notice("");
  box.value = "";
  fit(box);
  const last = path(state.tree).at(-1);
  const said = add(state.tree, last?.id ?? ROOT, "user", text);
  view.toEnd();
  void reply(said.id);
}

/**
 * @param {string} id a user's message; the new text becomes a branch beside it
 * @param {string} text
 */
function edit(id, text) {
  if (state.running) return;
  const said = add(state.tree, node(state.tree, id).parent, "user", text);
  void reply(said.id);
}

/** @param {string} id a reply; a new one becomes a branch beside it, or takes its place where it has no text */
function again(id) {
  if (state.running) return;
  const old = node(state.tree, id);
  if (old.content === "" && !old.children.length) drop(state.tree, id);
  void reply(old.parent);
}

/** @param {string} id a cut continuation */
function goOn(id) {
  if (!state.running) void write(id, true);
}

/**
 * @param {string} id
 * @param {-1 | 1} by
 */
function toBranch(id, by) {
  const shown = step(state.tree, id, by);
  save();
  view.drawNow();
  /** @type {HTMLElement | null} */
  const button = document.querySelector(`[data-id="${shown}"] .branches button:not(:disabled)`);
  /** @type {HTMLElement | null} */
  const same = document.querySelector(`[data-id="${shown}"] .branches button:nth-of-type(${by < 0 ? 1 : 2}):not(:disabled)`);
  (same ?? button)?.focus();
  const at = place(state.tree, shown);
  announce(`Version ${at.index + 1} of ${at.count}`);
}

/** @param {string} parent the user's message to answer */
async function reply(parent) {
  const made = add(state.tree, parent, "assistant", "");
  await write(made.id, false);
}

/**
 * Let the model write a reply. Whatever happens, the conversation is whole afterwards.
 *
 * @param {string} id of the reply
 * @param {boolean} further whether to go on with what it has
 */
async function write(id, further) {
  const { model, settings, tree } = state;
  const target = node(tree, id);
  const known = target.reply;
  if (!model || !known) return;
  const controller = new AbortController();
  const seed = seedFor(settings, place(tree, id).index);
  Object.assign(known, { model: model.id, finish: "", error: "", seed });
  state.running = { id, controller };
  save();
  view.draw();
  announce("Reply started");
  const before = known.seconds;
  const began = performance.now();
  try {
    const said = messages(tree, target.parent);
    const system = settings.system.trim() ? [{ role: "system", content: settings.system }] : [];
    const text = node(tree, target.parent).content + (further ? target.content : "");
    for await (const part of answered(model, model.chat ? [...system, ...said] : text, { ...sampling(model), seed }, controller)) {
      target.content += part.text;
      known.tokens.push(...part.tokens);
      known.finish = part.finish || known.finish;
      known.dropped = part.usage?.dropped ?? known.dropped;
      known.used = part.usage?.total ?? known.used;
      known.seconds = before + (performance.now() - began) / 1000;
      view.draw();
      if (performance.now() - saved > 1000) save();
    }
    known.finish ||= "stop";
    announce(`Reply finished, ${count(known.tokens.length, "token")}`);
  } catch (error) {
    if (controller.signal.aborted) {
      known.finish = "stopped";
      announce("Reply stopped");
    } else {
      known.finish = "error";
      known.error = error instanceof ApiError ? error.message : "The server's answer cannot be read.";
      announce(`No reply: ${known.error}`);
    }
  }
  state.running = null;
  save();
  view.draw();
}

/**
 * @param {Model} model
 * @returns {Record<string, number>} the settings as this model can follow them
 */
function sampling(model) {
  const { max_tokens, ...others } = state.settings.sampling;
  return { ...others, max_tokens: Math.min(max_tokens, model.block || max_tokens) };
}

/**
 * `stream`, which asks for a key once where the server wants one.
 *
 * @param {Model} model
 * @param {{role: string, content: string}[] | string} input
 * @param {Record<string, number>} sampling
 * @param {AbortController} controller
 */
async function* answered(model, input, sampling, controller) {
  try {
    yield* stream(model, input, sampling, controller.signal);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401 || !(await askForKey())) throw error;
    yield* stream(model, input, sampling, controller.signal);
  }
}

function save() {
  saved = performance.now();
  if (!saveTree(state.tree)) notice("The browser has no room left: this conversation will not be here after a reload.");
}

function clear() {
  const before = state.tree;
  state.running?.controller.abort();
  state.tree = newTree();
  save();
  view.drawNow();
  box.focus();
  notice("Conversation cleared.", "Undo", () => {
    state.tree = before;
    save();
    view.drawNow();
    box.focus();
  });
}

/** An edit has ended: the message shows its text again. */
function edited() {
  view.drawNow();
  box.focus();
}

/** @returns {boolean} */
function escape() {
  if (tip.open) tip.hide();
  else if (state.running) state.running.controller.abort();
  else return false;
  return true;
}

async function loadModels() {
  /** @type {HTMLSelectElement} */
  const picker = byId("model");
  try {
    state.models = await listModels();
  } catch (error) {
    const refused = error instanceof ApiError;
    if (refused && error.status === 401 && (await askForKey())) return loadModels();
    notice(refused ? error.message : "The server's list of models cannot be read.", "Retry", () => void loadModels());
    return;
  }
  if (!state.models.length) {
    notice("The server is still loading its models.");
    setTimeout(() => void loadModels(), LOADING_MS);
    return;
  }
  notice("");
  state.plain = new Set(state.models.filter((m) => !m.chat).map((m) => m.id));
  picker.replaceChildren(...state.models.map((m) => new Option(m.id, m.id)));
  picker.disabled = state.models.length < 2;
  choose(state.settings.model);
}

/** @param {string} id of a model; the first one where there is no such */
function choose(id) {
  state.model = state.models.find((m) => m.id === id) ?? state.models[0] ?? null;
  if (!state.model) return;
  byId("model").value = state.model.id;
  panel.limit(state.model.block);
  view.draw();
}

byId("composer").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  send(box.value);
});
box.addEventListener("input", () => {
  fit(box);
  view.draw();
});
byId("stop").addEventListener("click", () => {
  state.running?.controller.abort();
  box.focus();
});
byId("model").addEventListener("change", () => {
  state.settings.model = byId("model").value;
  saveSettings(state.settings);
  choose(state.settings.model);
});
byId("probabilities").addEventListener("click", () => {
  state.settings.probabilities = !state.settings.probabilities;
  saveSettings(state.settings);
  tip.hide();
  view.draw();
});
byId("clear").addEventListener("click", clear);
byId("export").addEventListener("click", () => exportConversation(state));
byId("help-button").addEventListener("click", () => byId("help").showModal());
addEventListener("pagehide", () => saveTree(state.tree));
addEventListener("storage", (event) => {
  // another tab has gone on with the conversation
  if (event.key !== CONVERSATION || state.running) return;
  state.tree = loadTree();
  view.draw();
});
listen({
  escape,
  send: () => send(box.value),
  editLast: () => {
    const last = path(state.tree).findLast((n) => n.role === "user");
    if (last && !state.running) view.edit(last.id);
  },
});
themeButton();
view.drawNow();
box.focus();
void loadModels();

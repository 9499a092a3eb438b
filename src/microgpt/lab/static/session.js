/** One session: what the reader asks of it, and what it tells. */

import { forget } from "./answer.js";
import { Refused, get, post, remove } from "./api.js";
import { close, open } from "./socket.js";
import { set, state } from "./store.js";

/** @import { Metadata, Point, Samples, Scalars, SessionRow } from "./types.js" */

const KEPT_SAMPLES = 100;

/** @param {string} [path] below the session */
export const here = (path) => `session/${state.sessionId}${path ? `/${path}` : ""}`;

/** @param {unknown} error */
export function complain(error) {
  set({ notice: error instanceof Refused ? error.message : String(error) });
}

/** @type {Set<string>} */
const pending = new Set();
let last = Promise.resolve();

/**
 * Requests one after the other, each once at a time; what goes wrong is told in the notice.
 * @param {string} name @param {() => Promise<void>} work
 */
export async function act(name, work) {
  if (pending.has(name)) return;
  pending.add(name);
  last = last.then(async () => {
    set({ busy: name, notice: "" });
    try {
      await work();
    } catch (error) {
      complain(error);
    } finally {
      pending.delete(name);
      set({ busy: "" });
    }
  });
  await last;
}

/** @param {Scalars} told @returns {Point[]} */
export const pointsOf = (told) =>
  told.rows.map((row) => /** @type {Point} */ (Object.fromEntries(told.columns.map((name, index) => [name, row[index]]))));

/** What is known of a step, with what a later row adds. @param {Point | undefined} old @param {Point} fresh */
const joined = (old, fresh) => ({ ...old, ...Object.fromEntries(Object.entries(fresh).filter(([, value]) => value !== null)) });

/** Add points, keeping one a step in rising order. @param {Scalars} told */
export function addScalars(told) {
  if (told.session_id !== state.sessionId || told.generation !== state.metadata?.generation || !told.rows.length) return;
  const fresh = pointsOf(told);
  const last = state.points.at(-1)?.step ?? 0;
  /** @type {Point[]} */
  let points;
  if (fresh[0].step > last) points = state.points.concat(fresh);
  else {
    const byStep = new Map(state.points.map((point) => [point.step, point]));
    for (const point of fresh) byStep.set(point.step, /** @type {Point} */ (joined(byStep.get(point.step), point)));
    points = [...byStep.values()].sort((a, b) => a.step - b.step);
  }
  set({ points, newest: Math.max(state.newest, points[points.length - 1].step) });
}

/** @param {Samples} told */
export function addSamples(told) {
  const same = state.samples.some((one) => JSON.stringify(one) === JSON.stringify(told));
  if (!same) set({ samples: [told, ...state.samples].sort((a, b) => b.step - a.step).slice(0, KEPT_SAMPLES) });
}

/** @param {Metadata} metadata */
export function addMetadata(metadata) {
  if (metadata.generation !== state.metadata?.generation) {
    forget();
    set({ points: [], samples: [], at: null, newest: metadata.step });
  }
  set({ metadata, newest: Math.max(state.newest, metadata.step) });
}

export async function listSessions() {
  set({ sessions: (await get("sessions")).sessions });
}

/** Show a session from its whole record. @param {string} id @param {number | null} [at] */
export async function enter(id, at = null) {
  const told = await get(`session/${id}`);
  close();
  forget();
  set({ sessionId: id, metadata: null, points: [], samples: [], branches: [], off: [], newest: 0, at });
  addMetadata(told.metadata);
  set({ running: told.running, at });
  await refill();
  open(id);
  await Promise.all([listSessions(), loadBranches()]);
}

/** The scalars and samples of the whole session. */
async function refill() {
  const [scalars, { samples }] = await Promise.all([get(here("scalars")), get(here("samples"))]);
  addScalars(scalars);
  samples.forEach(addSamples);
}

/** Ask for a session and show it; the form that asked is done then. @param {string} path @param {object} body */
async function begin(path, body) {
  await enter((await post(path, body)).session_id);
  set({ dialog: "" });
}

/** @param {Record<string, any>} config */
export const start = (config) => act("start", () => begin("session/start", config));

/** Look into a run of `microgpt.train`. @param {string} run */
export const attach = (run) => act("attach", () => begin("runs/attach", { run }));

export const stepOnce = () =>
  act("step", async () => {
    set({ at: null });
    const { step } = await post(here("step"));
    set({ newest: Math.max(state.newest, step) });
  });

/** Go on from the step that is shown as a session of its own. @param {Record<string, any>} changes */
export const fork = (changes) =>
  act("fork", () => begin(here("fork"), { step: shownStep(), off: state.off, ...changes }));

/** The loss of this session's other branches: what it was forked from, what was forked from it. */
export async function loadBranches() {
  const id = state.sessionId;
  const { sessions } = await get(here("branches"));
  const others = sessions.filter((/** @type {SessionRow} */ row) => row.session_id !== id);
  const branches = await Promise.all(
    others.map(async (/** @type {SessionRow} */ row) => ({ row, points: pointsOf(await get(`session/${row.session_id}/scalars`)) })),
  );
  if (state.sessionId === id) set({ branches });
}

/** @param {number} steps @param {number} delay_ms */
export const run = (steps, delay_ms) =>
  act("run", async () => {
    if (state.running) return;
    set({ at: null });
    await post(here("run"), steps ? { steps, delay_ms } : { to_end: true, delay_ms });
    set({ running: true });
  });

export const pause = () =>
  act("pause", async () => {
    await post(here("pause"));
    set({ running: false });
  });

export const reset = () =>
  act("reset", async () => {
    addMetadata((await post(here("reset"))).metadata);
    set({ running: false });
  });

/** End the session, whose run stays in outputs/, and show another if there is one. */
export const end = () =>
  act("end", async () => {
    await remove(here());
    await leave();
  });

/** Leave the session if the server has it no more: it was ended elsewhere, or nobody has looked for too long. */
export async function checkSession() {
  await listSessions();
  if (state.sessions.some((row) => row.session_id === state.sessionId)) return;
  await leave();
  set({ notice: "The session has ended." });
}

/** Go on without the session that was shown. */
async function leave() {
  close();
  set({ sessionId: null, metadata: null, running: false });
  await listSessions();
  const next = state.sessions.at(-1);
  if (next) await enter(next.session_id);
}

export const sample = () =>
  act("sample", async () => {
    const temperature = Math.min(2, Math.max(0.05, state.view.temperature));
    addSamples(await post(here("sample"), { num_samples: 10, temperature, step: state.at, off: state.off, prompt: state.view.text }));
  });

/** @param {number | null} step none goes back to the newest */
export function travel(step) {
  const kept = recorded();
  const wanted = step ?? state.newest;
  const nearest = kept ? kept.reduce((best, one) => (Math.abs(one - wanted) < Math.abs(best - wanted) ? one : best), kept[0]) : wanted;
  set({ at: nearest >= (kept?.at(-1) ?? state.newest) ? null : Math.max(state.metadata?.first_step ?? 0, nearest) });
}

/** The only steps that can be looked at, or null where any can. @returns {number[] | null} */
export function recorded() {
  const { metadata } = state;
  return metadata && metadata.kind !== "live" && metadata.recorded.length ? metadata.recorded : null;
}

/** One recorded step on or back. @param {number} way 1 or -1 */
export function move(way) {
  const kept = recorded();
  const step = shownStep();
  travel((way > 0 ? kept?.find((one) => one > step) : kept?.findLast((one) => one < step)) ?? (kept ? step : step + way));
}

/** The step that every panel shows. */
export const shownStep = () => state.at ?? recorded()?.at(-1) ?? state.newest;

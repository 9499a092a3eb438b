/** The session's WebSocket: streams what is watched, comes back by itself, and asks for the steps it missed. */

import { readFrame } from "./frame.js";
import { trace } from "./replay.js";
import { addMetadata, addSamples, addScalars, checkSession, complain, listSessions, loadBranches } from "./session.js";
import { set, state } from "./store.js";

/** @import { Answer } from "./types.js" */

const FRAMES_A_SECOND = 6;
/** how the server closes the connection to a session that is not there */
const GONE = 4404;

/** @type {WebSocket | null} */
let socket = null;
let wanted = "";
let tries = 0;
let pending = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
/** @type {Map<string, { panel: string, params: object, hear: Set<(answer: Answer) => void> }>} */
const watches = new Map();

/** @param {string} id */
export function open(id) {
  if (trace) return;
  wanted = id;
  tries = 0;
  connect();
}

export function close() {
  wanted = "";
  clearTimeout(timer);
  const old = socket;
  socket = null;
  if (old?.readyState === WebSocket.CONNECTING) old.addEventListener("open", () => old.close());
  else old?.close();
  set({ link: "off" });
}

function connect() {
  const mine = new WebSocket(new URL(`ws/${wanted}`, document.baseURI.replace(/^http/, "ws")));
  mine.binaryType = "arraybuffer";
  socket = mine;
  mine.addEventListener("open", () => {
    if (socket !== mine) return;
    tries = 0;
    set({ link: "live" });
    subscribe();
  });
  mine.addEventListener("message", ({ data }) => {
    if (socket === mine) hear(data);
  });
  mine.addEventListener("close", ({ code }) => {
    if (socket !== mine) return;
    if (code === GONE) {
      checkSession().catch(complain);
      return;
    }
    set({ link: "lost" });
    tries += 1;
    timer = setTimeout(connect, Math.min(5000, 200 * 2 ** tries));
  });
}

/** Ask for what is watched now, and for every step after the last that came. */
function subscribe() {
  pending = false;
  if (socket?.readyState !== WebSocket.OPEN) return;
  const panels = [...watches].map(([key, { panel, params }]) => ({ key, panel, params, hz: FRAMES_A_SECOND }));
  const since = state.points.at(-1)?.step ?? 0;
  socket.send(JSON.stringify({ type: "subscribe", panels, since, generation: state.metadata?.generation ?? 0 }));
}

function subscribeSoon() {
  if (!pending) setTimeout(subscribe);
  pending = true;
}

let keys = 0;

/**
 * Stream a panel's answers.
 * @param {string} panel @param {object} params @param {(answer: Answer) => void} listener
 * @returns {() => void} ends it
 */
export function watch(panel, params, listener) {
  const same = [...watches].find(([, one]) => one.panel === panel && JSON.stringify(one.params) === JSON.stringify(params));
  const key = same?.[0] ?? `w${(keys += 1)}`;
  const one = same?.[1] ?? { panel, params, hear: new Set() };
  one.hear.add(listener);
  watches.set(key, one);
  subscribeSoon();
  return () => {
    one.hear.delete(listener);
    if (one.hear.size) return;
    watches.delete(key);
    subscribeSoon();
  };
}

/** @param {string | ArrayBuffer} data */
function hear(data) {
  if (typeof data !== "string") {
    const frame = readFrame(data);
    if (frame.key && frame.generation === state.metadata?.generation) for (const listener of watches.get(frame.key)?.hear ?? []) listener(frame);
    return;
  }
  const message = JSON.parse(data);
  if (message.type === "session") addMetadata(message.metadata);
  else if (message.type === "scalars") addScalars(message);
  else if (message.type === "samples") addSamples(message);
  else if (message.type === "run_status") set({ running: message.running });
  else if (message.type === "forked") Promise.all([listSessions(), loadBranches()]).catch(complain);
  else if (message.type === "error") {
    set({ notice: message.detail });
    checkSession().catch(complain);
  }
}

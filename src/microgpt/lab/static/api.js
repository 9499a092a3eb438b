/** Questions to the server, or to the trace of a page that has none. */

import { recall, trace } from "./replay.js";

/** An answer that is no answer, with the server's own words. */
export class Refused extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** @param {any} body */
function reason(body) {
  if (typeof body?.detail === "string") return body.detail;
  if (Array.isArray(body?.detail)) return body.detail.map((/** @type {any} */ one) => `${(one.loc ?? []).slice(1).join(".")}: ${one.msg}`).join("; ");
  return typeof body?.error === "string" ? body.error : "the server gave no reason";
}

/** @param {string} path @param {RequestInit} [options] @returns {Promise<any>} */
async function ask(path, options) {
  if (trace) {
    const told = recall(path, options?.body ? JSON.parse(String(options.body)) : null);
    if (told === undefined) throw new Refused(404, "this was not recorded in the file");
    return told;
  }
  let answer;
  try {
    answer = await fetch(`api/${path}`, options);
  } catch {
    throw new Refused(0, "the server cannot be reached");
  }
  const body = await answer.json().catch(() => null);
  if (!answer.ok) throw new Refused(answer.status, reason(body));
  return body;
}

/** @param {string} path below api/ */
export const get = (path) => ask(path);

/** @param {string} path below api/ */
export const remove = (path) => ask(path, { method: "DELETE" });

/** @param {string} path below api/ @param {object} [body] */
export const post = (path, body = {}) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

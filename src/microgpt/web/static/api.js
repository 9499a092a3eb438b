// @ts-check
/** The server's API, as the page needs it. Addresses are relative, so that the page works below any prefix. */

import { EventParser } from "./sse.js";

/** @typedef {import("./tokens.js").Token} Token */

/**
 * @typedef {object} Model
 * @property {string} id
 * @property {boolean} chat whether it was trained for conversations; the others go on with a text
 * @property {number} block context in tokens; 0 where not known
 * @property {number} vocabulary 0 where not known
 * @property {number} parameters 0 where not known
 */

/**
 * @typedef {object} Part a part of an answer
 * @property {string} text
 * @property {Token[]} tokens
 * @property {"" | "stop" | "length"} finish
 * @property {{total: number, dropped: number} | null} usage
 */

const KEY = "microgpt.key";

/** A refusal of the server, or a server that does not answer. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status 0 where there was no answer
   */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** @returns {string} the key of this tab, empty for none */
export function key() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return ""; // no storage, no key
  }
}

/** @param {string} value kept until the tab is closed */
export function setKey(value) {
  try {
    sessionStorage.setItem(KEY, value);
  } catch {
    throw new ApiError("The browser does not let this page keep the key.", 401);
  }
}

/** @returns {Record<string, string>} */
function headers() {
  return { "Content-Type": "application/json", ...(key() ? { Authorization: `Bearer ${key()}` } : {}) };
}

/**
 * @param {string} path
 * @param {RequestInit} init
 * @returns {Promise<Response>} an answer that is no refusal
 */
async function request(path, init) {
  let response;
  try {
    response = await fetch(path, { ...init, headers: headers() });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is it still running?", 0);
  }
  if (response.ok) return response;
  let message = `The server answered ${response.status}.`;
  try {
    message = String((await response.json()).error.message);
  } catch {
    // no JSON: the status must do
  }
  const wait = Number(response.headers.get("Retry-After"));
  if (wait > 0) message = `${message.replace(/\.$/, "")}. Try again in ${wait} ${wait === 1 ? "second" : "seconds"}.`;
  throw new ApiError(message, response.status);
}

/** @returns {Promise<Model[]>} */
export async function listModels() {
  const response = await request("v1/models", {});
  const { data } = await response.json();
  return data.map((/** @type {any} */ m) => ({
    id: String(m.id),
    chat: m.microgpt?.chat !== false,
    block: Number(m.microgpt?.block_size) || 0,
    vocabulary: Number(m.microgpt?.vocab_size) || 0,
    parameters: Number(m.microgpt?.parameters) || 0,
  }));
}

/**
 * A reply as it is written.
 *
 * @param {Model} model
 * @param {{role: string, content: string}[] | string} input messages for chat models, a text for the others
 * @param {Record<string, number>} sampling
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Part>}
 */
export async function* stream(model, input, sampling, signal) {
  const chat = typeof input !== "string";
  const body = {
    model: model.id,
    ...(chat ? { messages: input, logprobs: true, top_logprobs: 5 } : { prompt: input, logprobs: 5 }),
    ...sampling,
    stream: true,
    stream_options: { include_usage: true },
  };
  const path = chat ? "v1/chat/completions" : "v1/completions";
  const response = await request(path, { method: "POST", body: JSON.stringify(body), signal });
  for await (const data of events(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(String(chunk.error.message), 500);
    yield part(chunk);
  }
  throw new ApiError("The connection ended before the reply was complete.", 0);
}

/**
 * @param {Response} response
 * @returns {AsyncGenerator<string>}
 */
async function* events(response) {
  const parser = new EventParser();
  const decoder = new TextDecoder();
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError("The connection broke before the reply was complete.", 0);
  } finally {
    reader.cancel().catch(() => {}); // left early: tell the server; a broken stream has nobody to tell
  }
}

/**
 * @param {any} chunk
 * @returns {Part}
 */
function part(chunk) {
  const choice = chunk.choices?.[0];
  const usage = chunk.usage
    ? { total: Number(chunk.usage.total_tokens) || 0, dropped: Number(chunk.usage.microgpt_tokens_dropped) || 0 }
    : null;
  return {
    text: choice?.delta?.content ?? choice?.text ?? "",
    tokens: choice?.logprobs ? tokens(choice.logprobs) : [],
    finish: choice?.finish_reason ?? "",
    usage,
  };
}

/**
 * @param {string} token as completions write it
 * @returns {number[] | null} the bytes of a token that is no whole text, such as `bytes:\xf0\x9f`
 */
function bytes(token) {
  if (!/^bytes:(\\x[0-9a-f]{2})+$/.test(token)) return null;
  return token.slice("bytes:\\x".length).split("\\x").map((two) => parseInt(two, 16));
}

/**
 * @param {any} logprobs of a chat answer, or of a completion
 * @returns {Token[]}
 */
function tokens(logprobs) {
  if (logprobs.content) {
    return logprobs.content.map((/** @type {any} */ t) => ({
      token: t.token,
      logprob: t.logprob,
      bytes: t.bytes ?? null,
      top: t.top_logprobs.map((/** @type {any} */ a) => ({ token: a.token, logprob: a.logprob })),
    }));
  }
  return (logprobs.tokens ?? []).map((/** @type {string} */ token, /** @type {number} */ i) => ({
    token,
    logprob: logprobs.token_logprobs[i],
    bytes: bytes(token),
    top: Object.entries(logprobs.top_logprobs?.[i] ?? {})
      .map(([text, logprob]) => ({ token: text, logprob: Number(logprob) }))
      .sort((a, b) => b.logprob - a.logprob),
  }));
}

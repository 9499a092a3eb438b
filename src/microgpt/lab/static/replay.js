/** A session from a file: answers from a trace that stands in the page, and the page that holds one. */

/** @typedef {{ panel: string, params: Record<string, any>, step: number, data: any, tensors: Record<string, any> }} Frame */
/** @typedef {{ metadata: any, scalars: any, samples: any[], frames: Frame[], [more: string]: any }} Trace */

const ID = "trace";
const element = document.getElementById(ID);

/** The trace that stands in this page, if it is one from a file. @type {Trace | null} */
export const trace = element ? JSON.parse(element.textContent ?? "") : null;

/** What a question without a word of it means. @type {Record<string, any>} */
const DEFAULTS = { row: 0, position: -1, bins: 40, which: "wte", dimensions: 2, kind: "head", layer: 0, rows: 64 };

/** @param {Record<string, any>} params */
function plain(params) {
  const told = Object.entries(params).filter(([name, value]) => value !== DEFAULTS[name] && !(name === "off" && value.length === 0));
  return JSON.stringify(told.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** @type {Map<string, Frame>} */
const frames = new Map(trace?.frames.map((frame) => [`${frame.panel} ${frame.step} ${plain(frame.params)}`, frame]));

/**
 * What the server would answer, from the trace; undefined where it does not have it.
 * @param {string} path below api/ @param {any} body
 */
export function recall(path, body) {
  if (!trace) return undefined;
  const id = trace.scalars.session_id;
  const { metadata } = trace;
  /** @type {Record<string, () => any>} */
  const known = {
    options: () => ({ models: [], data: [], embedded: [], tokenizers: [], optimizers: [] }),
    sessions: () => ({ sessions: [{ session_id: id, running: false, step: metadata.step, num_steps: metadata.num_steps, clients: 0, kind: "trace", name: metadata.name, parent: null }] }),
    [`session/${id}`]: () => ({ session_id: id, running: false, metadata: { ...metadata, kind: "trace" } }),
    [`session/${id}/scalars`]: () => trace.scalars,
    [`session/${id}/samples`]: () => ({ samples: trace.samples }),
    [`session/${id}/branches`]: () => ({ sessions: [] }),
    [`session/${id}/inspect`]: () => frames.get(`${body.panel} ${body.step} ${plain(body.params)}`),
  };
  return known[path]?.();
}

/** @param {string} text */
const words = async (text) => (await fetch(text)).text();

/** All modules that one imports, by name, with their imports renamed so that a map finds them. @param {string} first */
async function modules(first) {
  /** @type {Map<string, string>} */
  const found = new Map();
  const wanted = [first];
  for (let name = wanted.pop(); name; name = wanted.pop()) {
    if (found.has(name)) continue;
    const source = await words(`static/${name}`);
    found.set(name, source.replace(/(\bfrom\s*|\bimport\s*)"\.\/([\w./-]+)"/g, (_, word, other) => {
      wanted.push(other);
      return `${word}"lab/${other}"`;
    }));
  }
  return found;
}

/** Text that can stand in a script element. @param {string} text */
const inert = (text) => text.replaceAll("<", "\\u003c");

/**
 * The whole page as one file that needs no server.
 * @param {Trace} told
 * @returns {Promise<string>} HTML
 */
export async function page(told) {
  const outline = new DOMParser().parseFromString(await words("./"), "text/html");
  const head = [`<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">`];
  head.push(`<title>microgpt lab: ${told.metadata.name.replace(/[^\w.-]/g, "") || "a recorded session"}</title>`);
  for (const link of outline.querySelectorAll("link")) {
    const source = await words(link.getAttribute("href") ?? "");
    if (link.rel === "stylesheet") head.push(`<style>${source}</style>`);
    else if (link.rel === "icon") head.push(`<link rel="icon" href="data:image/svg+xml,${encodeURIComponent(source)}">`);
  }
  head.push(`<script>${await words("static/theme.js")}</script>`);
  const imports = Object.fromEntries([...(await modules("main.js"))].map(([name, source]) => [`lab/${name}`, `data:text/javascript;charset=utf-8,${encodeURIComponent(source)}`]));
  head.push(`<script type="importmap">${inert(JSON.stringify({ imports }))}</script>`);
  head.push(`<script type="application/json" id="${ID}">${inert(JSON.stringify(told))}</script>`);
  head.push(`<script type="module">import "lab/main.js";</script>`);
  return `<!doctype html>\n<html lang="en"><head>${head.join("\n")}</head><body></body></html>\n`;
}

// The pictures of a comparison and the sorting of its tables. Everything that is shown stands in this file's page.

/**
 * @typedef {{step: number[], tokens: (number|null)[], seconds: (number|null)[], value: number[]}} Curve
 * @typedef {{id: string, name: string, label: string, status: string, score: number|null, flops_per_token: number|null,
 *   settings: Record<string, any>, validation: Curve, training: Curve}} Run
 * @typedef {{runs: Run[], unit: string, measure: string, keys: string[],
 *   importance: {weights: {key: string}[]}}} Told
 * @typedef {{run: number, points: [number, number][], kind: string}} Line
 */

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 8;
const LINES_NEAR = 24;

/** @type {Told} */
const told = JSON.parse(/** @type {HTMLElement} */ (document.getElementById("data")).textContent ?? "");
/** The runs in colour, in the order in which they were ticked; a place keeps its colour. @type {(number|null)[]} */
const marked = [];
/** @type {number|null} */
let pointed = null;

/** @param {string} id */
const part = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/**
 * @param {string} name
 * @param {Record<string, string|number>} attributes
 * @param {string} [text]
 */
function draw(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (text !== undefined) made.textContent = text;
  return made;
}

/** A number as people write it, with at most three digits. @param {number} value */
function short(value) {
  for (const [size, sign] of /** @type {[number, string][]} */ ([[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])) {
    if (Math.abs(value) >= size) return `${Number((value / size).toPrecision(3))} ${sign}`;
  }
  return String(Number(value.toPrecision(3)));
}

/** A setting in words. @param {any} value */
const word = (value) => (value === null || value === undefined ? "auto" : typeof value === "string" ? value : JSON.stringify(value));

/** @param {number} index */
function colour(index) {
  const place = marked.indexOf(index);
  return place < 0 ? "" : `seen s${place % COLOURS}${place >= COLOURS ? " second" : ""}`;
}

// --- scales

/**
 * Round steps from low to high, about as many as wanted.
 * @param {number} low @param {number} high @param {number} wanted
 */
function linearTicks(low, high, wanted) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

/** @param {number} low @param {number} high */
function logTicks(low, high) {
  const ticks = [];
  const factors = high / low > 1000 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const factor of factors) {
      const tick = factor * 10 ** power;
      if (tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9)) ticks.push(Number(tick.toPrecision(12)));
    }
  }
  return ticks;
}

/**
 * @param {number} low @param {number} high @param {number} from @param {number} to @param {boolean} log
 * @returns {(value: number) => number}
 */
function scale(low, high, from, to, log) {
  const f = log ? Math.log : (/** @type {number} */ x) => x;
  const span = f(high) - f(low) || 1;
  return (value) => from + ((f(value) - f(low)) / span) * (to - from);
}

// --- loss curves

/** @returns {{axis: "step"|"tokens"|"flops"|"seconds", curve: string, log: boolean, zoom: boolean}} */
function wanted() {
  const form = new FormData(/** @type {HTMLFormElement} */ (part("controls")));
  return {
    axis: /** @type {"step"} */ (form.get("axis")),
    curve: String(form.get("curve")),
    log: form.get("log") !== null,
    zoom: form.get("zoom") !== null,
  };
}

/**
 * @param {Run} run @param {"validation"|"training"} kind @param {"step"|"tokens"|"flops"|"seconds"} axis
 * @returns {[number, number][]}
 */
function pointsOf(run, kind, axis) {
  const curve = run[kind];
  const each = run.flops_per_token;
  const xs = axis === "flops" ? curve.tokens.map((t) => (t === null || each === null ? null : t * each)) : curve[axis];
  /** @type {[number, number][]} */
  const found = [];
  xs.forEach((x, i) => {
    if (x !== null) found.push([x, curve.value[i]]);
  });
  return found;
}

const AXIS_NAMES = { step: "optimizer steps", tokens: "tokens", flops: "FLOPs of training", seconds: "seconds of training" };

/** @type {{line: Line, pixels: [number, number][], element: SVGElement}[]} */
let curves = [];

function drawCurves() {
  const { axis, curve, log, zoom } = wanted();
  const place = part("curves");
  const kinds = /** @type {("training"|"validation")[]} */ (curve === "both" ? ["training", "validation"] : [curve]);
  /** @type {Line[]} */
  let lines = [];
  told.runs.forEach((run, index) => {
    for (const kind of kinds) {
      let points = pointsOf(run, kind, axis);
      if (log) points = points.filter(([x]) => x > 0);
      if (points.length) lines.push({ run: index, points, kind });
    }
  });
  curves = [];
  if (!lines.length) {
    place.textContent = "No run has a curve of this kind.";
    return;
  }
  const all = lines.flatMap((line) => line.points);
  const low = all.reduce((least, [x]) => Math.min(least, x), Infinity);
  const high = all.reduce((most, [x]) => Math.max(most, x), -Infinity);
  // the start of training is steep and the same for all: without it the ends can be told apart
  const starts = zoom && lines.some((line) => line.points.length > 4)
    ? lines.filter((line) => line.points.length > 4).map((line) => line.points[Math.ceil(line.points.length * 0.2)][1])
    : lines.flatMap((line) => line.points.map((point) => point[1]));
  starts.sort((a, b) => a - b);
  const bottom = all.reduce((least, [, y]) => Math.min(least, y), Infinity);
  const top = zoom ? starts[Math.floor((starts.length - 1) * 0.9)] : starts[starts.length - 1];
  const pad = (top - bottom || Math.abs(bottom) || 1) * 0.05;
  const width = Math.max(320, place.clientWidth - 16);
  const height = 400;
  const box = { left: 58, right: width - 12, top: 12, bottom: height - 42 };
  const x = scale(log ? low : 0, high, box.left, box.right, log);
  const y = scale(bottom - pad, top + pad, box.bottom, box.top, false);
  const best = told.runs[0];
  const svg = draw("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": `${curve} loss of ${new Set(lines.map((line) => line.run)).size} runs over ${AXIS_NAMES[axis]}`
      + (best.score === null ? "" : `; the lowest validation is ${best.score.toFixed(4)} ${told.unit}, of ${best.name}`),
  });
  const clip = draw("clipPath", { id: "inside" });
  clip.append(draw("rect", { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top }));
  svg.append(clip);
  for (const tick of linearTicks(bottom - pad, top + pad, 6)) {
    svg.append(draw("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }));
    svg.append(draw("text", { x: box.left - 8, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  let last = -Infinity;
  for (const tick of log ? logTicks(low, high) : linearTicks(0, high, Math.max(3, width / 130))) {
    svg.append(draw("line", { class: "grid", x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom }));
    if (x(tick) - last < 48) continue;
    last = x(tick);
    svg.append(draw("text", { x: x(tick), y: box.bottom + 16, "text-anchor": x(tick) > box.right - 12 ? "end" : "middle" }, short(tick)));
  }
  svg.append(draw("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  svg.append(draw("text", { class: "title", x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, AXIS_NAMES[axis]));
  const inside = draw("g", { "clip-path": "url(#inside)" });
  // those in colour lie above the grey ones, the best on top
  lines = lines.sort((a, b) => Number(marked.includes(a.run)) - Number(marked.includes(b.run)) || b.run - a.run);
  for (const line of lines) {
    const pixels = /** @type {[number, number][]} */ (line.points.map(([px, py]) => [x(px), y(py)]));
    const kind = line.kind === "training" && curve === "both" ? "training" : "";
    const classes = `curve ${kind} ${colour(line.run)}`;
    // one point is no line: a dash shows that there is something
    const path = pixels.length > 1 ? pixels : [[pixels[0][0] - 5, pixels[0][1]], [pixels[0][0] + 5, pixels[0][1]]];
    const element = draw("polyline", { class: classes, points: path.map(([px, py]) => `${px.toFixed(1)},${py.toFixed(1)}`).join(" ") });
    inside.append(element);
    curves.push({ line, pixels, element });
  }
  svg.append(inside);
  svg.addEventListener("pointermove", (event) => near(/** @type {SVGElement} */ (svg), event));
  svg.addEventListener("pointerleave", () => point(null));
  place.replaceChildren(svg);
}

/** Point at the curve that is nearest to the pointer. @param {SVGElement} svg @param {PointerEvent} event */
function near(svg, event) {
  const frame = svg.getBoundingClientRect();
  const view = /** @type {SVGSVGElement} */ (svg).viewBox.baseVal;
  const at = [((event.clientX - frame.left) / frame.width) * view.width, ((event.clientY - frame.top) / frame.height) * view.height];
  let closest = LINES_NEAR ** 2;
  /** @type {{run: number, text: string}|null} */
  let found = null;
  for (const { line, pixels } of curves) {
    pixels.forEach(([px, py], i) => {
      const far = (px - at[0]) ** 2 + (py - at[1]) ** 2;
      if (far >= closest) return;
      closest = far;
      const [x, y] = line.points[i];
      found = { run: line.run, text: `${line.kind} ${y.toFixed(4)} ${told.unit} at ${short(x)} ${AXIS_NAMES[wanted().axis]}` };
    });
  }
  const hit = /** @type {{run: number, text: string}|null} */ (found);
  point(hit ? hit.run : null, hit ? hit.text : "");
}

// --- parallel coordinates

function drawParallel() {
  const place = part("parallel");
  const runs = told.runs.map((run, index) => ({ run, index })).filter(({ run }) => run.score !== null);
  const named = told.importance.weights.map((weight) => weight.key);
  const keys = (named.length ? named : told.keys).slice(0, 8);
  if (runs.length < 2 || !keys.length) {
    place.textContent = "It needs two runs with a validation loss and other settings.";
    return;
  }
  const width = Math.max(320, place.clientWidth - 16);
  const height = 340;
  const box = { left: 70, right: width - 70, top: 52, bottom: height - 24 };
  const at = (/** @type {number} */ i) => box.left + ((box.right - box.left) * i) / keys.length;
  const svg = draw("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": `${runs.length} runs as lines through ${keys.join(", ")} and the best loss`,
  });
  /** @type {((run: Run) => number)[]} */
  const places = [];
  keys.forEach((key, i) => {
    const values = runs.map(({ run }) => run.settings[key]);
    const numbers = values.every((value) => typeof value === "number");
    const kinds = [...new Set(values.map(word))];
    /** @type {[string, number][]} */
    let ticks;
    /** @type {(value: any) => number} */
    let y;
    if (numbers) {
      const low = Math.min(...values);
      const high = Math.max(...values);
      const log = low > 0 && high / low >= 8;
      y = scale(low, high, box.bottom, box.top, log);
      const sorted = [...new Set(values)].sort((a, b) => a - b);
      const shown = sorted.length <= 8 ? sorted : log ? [low, ...logTicks(low, high).slice(1, -1), high] : linearTicks(low, high, 5);
      ticks = shown.map((value) => [short(value), y(value)]);
    } else {
      kinds.sort();
      y = (value) => scale(0, Math.max(1, kinds.length - 1), box.bottom, box.top, false)(kinds.indexOf(word(value)));
      ticks = kinds.length <= 16 ? kinds.map((kind) => [kind.length > 14 ? `${kind.slice(0, 13)}…` : kind, y(kind)]) : [];
    }
    // runs of one value would lie on each other: each has a place of its own around it, the best lowest
    const spread = kinds.length < runs.length ? Math.min(20, (box.bottom - box.top) / kinds.length / 2) : 0;
    places.push((run) => y(run.settings[key]) + spread * (0.5 - told.runs.indexOf(run) / runs.length));
    axis(svg, at(i), box, i % 2 && keys.length > 4 ? 14 : 28, key.split(".").at(-1) ?? key, ticks);
  });
  const scores = runs.map(({ run }) => Number(run.score));
  // a diverged run would press the others together: what is beyond the middle half stands at the end of the axis
  const low = scores[0];
  const high = Math.max(Math.min(scores[scores.length - 1], 2 * scores[Math.floor((scores.length - 1) * 0.75)] - low), low + 1e-9);
  const y = scale(low, high, box.bottom, box.top, false);
  const y1 = (/** @type {number} */ score) => Math.max(box.top, y(score));
  const ticks = /** @type {[string, number][]} */ (linearTicks(low, high, 6).map((tick) => [String(tick), y(tick)]));
  const group = draw("g", {});
  // worst first, so that the best lie on top
  for (const { run, index } of [...runs].reverse()) {
    const points = [...places.map((to, i) => [at(i), to(run)]), [at(keys.length), y1(Number(run.score))]];
    const fifth = Math.min(4, Math.floor((5 * index) / runs.length));
    const line = draw("polyline", {
      class: `line q${fifth}`,
      "data-run": index,
      points: points.map(([px, py]) => `${px.toFixed(1)},${py.toFixed(1)}`).join(" "),
    });
    line.addEventListener("pointerenter", () => point(index));
    line.addEventListener("pointerleave", () => point(null));
    group.append(line);
  }
  svg.prepend(group);
  axis(svg, at(keys.length), box, 28, told.measure === "val/bpb" ? "bits a byte" : "best loss", ticks, true);
  place.replaceChildren(svg);
}

/**
 * @param {Element} svg @param {number} x @param {{top: number, bottom: number}} box @param {number} title
 * @param {string} name @param {[string, number][]} ticks @param {boolean} [outside]
 */
function axis(svg, x, box, title, name, ticks, outside) {
  svg.append(draw("line", { class: "axis", x1: x, x2: x, y1: box.top, y2: box.bottom }));
  svg.append(draw("text", { class: "title", x, y: title, "text-anchor": "middle" }, name));
  for (const [text, y] of ticks) {
    svg.append(draw("line", { class: "axis", x1: x - 3, x2: x + 3, y1: y, y2: y }));
    svg.append(draw("text", { x: outside ? x + 8 : x - 8, y: y + 4, "text-anchor": outside ? "start" : "end" }, text));
  }
}

// --- one run in all pictures

/** Show a run everywhere, or none. @param {number|null} index @param {string} [text] */
function point(index, text) {
  if (index !== pointed) {
    pointed = index;
    for (const { line, element } of curves) element.classList.toggle("pointed", line.run === index);
    for (const line of document.querySelectorAll("#parallel .line")) {
      line.classList.toggle("pointed", line.getAttribute("data-run") === String(index));
    }
    for (const row of document.querySelectorAll("#runs-table tbody tr")) {
      row.classList.toggle("pointed", row.getAttribute("data-run") === String(index));
    }
  }
  const run = index === null ? null : told.runs[index];
  const best = run?.score === null || run === null ? "" : `best ${run.score.toFixed(4)}`;
  const said = run === null ? "" : [run.label, text || best].filter(Boolean).join(": ");
  part("curves-told").textContent = said;
  part("parallel-told").textContent = said;
}

/** Draw everything that depends on the ticks. */
function colourise() {
  for (const swatch of document.querySelectorAll("#runs-table .swatch")) {
    const place = marked.indexOf(Number(swatch.getAttribute("data-run")));
    swatch.setAttribute("class", place < 0 ? "swatch" : `swatch f${place % COLOURS}`);
  }
  const items = marked.flatMap((index, place) => {
    if (index === null) return [];
    const item = document.createElement("li");
    const swatch = document.createElement("span");
    swatch.className = `swatch f${place % COLOURS}`;
    item.append(swatch, `${told.runs[index].label}${place >= COLOURS ? " (dashed)" : ""}`);
    item.addEventListener("pointerenter", () => point(index));
    item.addEventListener("pointerleave", () => point(null));
    return [item];
  });
  part("legend").replaceChildren(...items);
  drawCurves();
}

/** @param {number} index @param {boolean} on */
function mark(index, on) {
  const place = marked.indexOf(index);
  if (on && place < 0) {
    const free = marked.indexOf(null);
    if (free < 0) marked.push(index);
    else marked[free] = index;
  } else if (!on && place >= 0) {
    marked[place] = null;
  }
}

// --- the table

/** @param {HTMLTableCellElement} cell */
const key = (cell) => cell.getAttribute("data-v");

/** Sort the rows by a column; what has no value stays at the end. @param {HTMLTableElement} table @param {number} column */
function sort(table, column) {
  const heads = [...table.tHead?.rows[0].cells ?? []];
  const up = heads[column].getAttribute("aria-sort") !== "ascending";
  for (const head of heads) head.removeAttribute("aria-sort");
  heads[column].setAttribute("aria-sort", up ? "ascending" : "descending");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, value: key(row.cells[column]) }));
  const known = rows.filter(({ value }) => value !== null);
  const numbers = known.every(({ value }) => value !== "" && Number.isFinite(Number(value)));
  known.sort((a, b) => {
    const order = numbers ? Number(a.value) - Number(b.value) : String(a.value).localeCompare(String(b.value), "en", { numeric: true });
    return up ? order : -order;
  });
  body.append(...known.map(({ row }) => row), ...rows.filter(({ value }) => value === null).map(({ row }) => row));
}

const table = /** @type {HTMLTableElement} */ (part("runs-table"));
[...table.tHead?.rows[0].cells ?? []].forEach((head, column) => {
  head.querySelector("button")?.addEventListener("click", () => sort(table, column));
});
const boxes = /** @type {HTMLInputElement[]} */ ([...table.querySelectorAll("input[data-run]")]);
for (const box of boxes) {
  const index = Number(box.getAttribute("data-run"));
  box.checked = box.defaultChecked; // a browser remembers ticks over a reload
  mark(index, box.checked);
  box.addEventListener("change", () => {
    mark(index, box.checked);
    colourise();
  });
  box.addEventListener("focus", () => point(index));
  box.addEventListener("blur", () => point(null));
}
for (const row of table.tBodies[0].rows) {
  const index = Number(row.getAttribute("data-run"));
  row.addEventListener("pointerenter", () => point(index));
  row.addEventListener("pointerleave", () => point(null));
}
part("none").addEventListener("click", () => {
  for (const box of boxes) box.checked = false;
  marked.length = 0;
  colourise();
});
part("controls").addEventListener("change", drawCurves);
part("controls").addEventListener("submit", (event) => event.preventDefault());
let size = 0;
new ResizeObserver(() => {
  if (part("curves").clientWidth === size) return;
  size = part("curves").clientWidth;
  drawCurves();
  drawParallel();
}).observe(part("curves"));
colourise();

export {};

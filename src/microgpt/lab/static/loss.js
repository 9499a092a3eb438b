/** The loss over time: what each step said, its moving average, the validation set, and what a guess would score. */

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import uPlot from "./vendor/uplot.js";
import { css, useTheme } from "./colour.js";
import { duration, num } from "./format.js";
import { shownStep, travel } from "./session.js";
import { setView, state, useLab } from "./store.js";
import { Toggle } from "./panel.js";

/** @import { Point, State } from "./types.js" */

const WINDOW = 20;
const WATCHED_MS = 3000;
const HEIGHT = 264;

/**
 * The mean of each value and up to WINDOW - 1 before it; what is no number does not count.
 * @param {(number | null)[]} values
 */
export function movingAverage(values) {
  let [sum, numbers] = [0, 0];
  return values.map((value, index) => {
    const gone = values[index - WINDOW] ?? null;
    sum += (value ?? 0) - (gone ?? 0);
    numbers += Number(value !== null) - Number(gone !== null);
    return numbers ? sum / numbers : null;
  });
}

/** @param {Point} point */
const lossOf = (point) => point.loss;

/**
 * Columns of the chart: step, loss, average, validation, guess, then the average of each branch.
 * @param {Point[]} own @param {number} guess @param {State["branches"]} branches @returns {any}
 */
function columns(own, guess, branches) {
  return uPlot.join([table(own, guess), ...branches.map(({ points }) => [points.map((point) => point.step), movingAverage(points.map(lossOf))])]);
}

/** @param {Point[]} points @param {number} guess @returns {any} */
function table(points, guess) {
  const loss = points.map(lossOf);
  return [points.map((point) => point.step), loss, movingAverage(loss), points.map((point) => point.val_loss ?? null), points.map(() => guess)];
}

/** Ends of an axis that hold with one value or none. @param {any} _chart @param {number | null} low @param {number | null} high @returns {[number, number]} */
const spread = (_chart, low, high) => (low === null || high === null ? [1, state.metadata?.num_steps ?? 2] : low < high ? [low, high] : [low * 0.9, high * 1.1]);

/** The same with room above and below. @param {any} chart @param {number | null} low @param {number | null} high @returns {[number, number]} */
function padded(chart, low, high) {
  const [from, to] = low === null ? [0, 1.2 * (state.metadata?.uniform_loss ?? 1)] : spread(chart, low, high);
  const room = (to - from) / 20;
  return [from - room, to + room];
}

/** @param {boolean} log @param {number} width @param {number} branches @returns {any} */
function options(log, width, branches) {
  const [accent, quiet, line, edge, minus] = ["--accent", "--quiet", "--line", "--edge", "--minus"].map(css);
  const axis = { stroke: quiet, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px sans-serif" };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { points: { size: 6 }, drag: { x: true, y: false } },
    scales: { x: { time: false, range: spread }, y: log ? { distr: 3, range: spread } : { range: padded } },
    axes: [axis, { ...axis, size: 46 }],
    series: [
      {},
      { label: "train", stroke: edge, width: 1, alpha: 0.6, points: { show: false } },
      { label: "average", stroke: accent, width: 2, points: { show: false } },
      { label: "validation", stroke: minus, width: 2, spanGaps: true, points: { show: true, size: 5, fill: minus } },
      { label: "guess", stroke: quiet, width: 1, dash: [5, 5], points: { show: false } },
      ...Array.from({ length: branches }, () => ({ stroke: quiet, width: 1.5, dash: [2, 3], spanGaps: true, points: { show: false } })),
    ],
    hooks: {
      draw: [
        (/** @type {any} */ chart) => {
          if (state.at === null) return;
          const x = Math.round(chart.valToPos(state.at, "x", true));
          chart.ctx.fillStyle = accent;
          chart.ctx.fillRect(x, chart.bbox.top, 2, chart.bbox.height);
        },
      ],
    },
  };
}

export function LossPanel() {
  const points = useLab((s) => s.points);
  const metadata = useLab((s) => s.metadata);
  const log = useLab((s) => s.view.log);
  const at = useLab((s) => s.at);
  const branches = useLab((s) => s.branches);
  const holder = useRef(/** @type {HTMLElement | null} */ (null));
  const chart = useRef(/** @type {any} */ (null));
  const [hover, setHover] = useState(-1);
  const theme = useTheme();
  const guess = Math.log(metadata?.vocab_size ?? 1);

  useEffect(() => {
    const place = /** @type {HTMLElement} */ (holder.current);
    const make = () => {
      chart.current?.destroy();
      const given = options(log, place.clientWidth, branches.length);
      given.hooks.setCursor = [(/** @type {any} */ plot) => setHover(plot.data[0][plot.cursor.idx ?? -1] ?? -1)];
      chart.current = new uPlot(given, columns(state.points, guess, branches), place);
      chart.current.over.addEventListener("click", () => {
        const index = chart.current.cursor.idx;
        const step = chart.current.data[0][index ?? -1];
        if (typeof step === "number") travel(step);
      });
    };
    make();
    const sized = new ResizeObserver(() => chart.current.setSize({ width: place.clientWidth, height: HEIGHT }));
    sized.observe(place);
    return () => {
      sized.disconnect();
      chart.current.destroy();
      chart.current = null;
    };
  }, [log, guess, theme, branches]);
  useEffect(() => chart.current?.setData(columns(points, guess, branches)), [points]);
  useEffect(() => chart.current?.redraw(false), [at]);

  const losses = points.flatMap((one) => one.loss ?? []);
  const point = points.find((one) => one.step === hover) ?? points.findLast((one) => one.step <= shownStep());
  const last = points.at(-1);
  const validation = points.findLast((one) => one.step <= (point?.step ?? 0) && typeof one.val_loss === "number");
  const label = last
    ? `Training loss from ${num(points[0].loss)} at step ${points[0].step} to ${num(last.loss)} at step ${last.step}`
    : "No step has been made yet";
  return html`
    <div class="chart" ref=${holder} role="img" aria-label=${label}></div>
    <div class="panel-foot keys">
      <span style="--key: var(--edge)">train</span><span style="--key: var(--accent)">average of ${WINDOW}</span>
      ${validation && html`<span style="--key: var(--minus)">validation</span>`}
      ${branches.length > 0 && html`<span class="dashed" style="--key: var(--quiet)">${branches.length === 1 ? "the other branch" : `${branches.length} other branches`}</span>`}
      <span class="dashed" style="--key: var(--quiet)">guessing, ln ${metadata?.vocab_size} = ${num(guess)}</span>
      <${Toggle} on=${log} set=${(/** @type {boolean} */ on) => setView({ log: on })} label="log scale" />
    </div>
    <dl class="facts" id="loss-facts">
      <div><dt>step ${point?.step ?? 0}</dt><dd data-fact="loss">${num(point?.loss)}</dd></div>
      <div><dt>lowest</dt><dd data-fact="lowest">${losses.length ? num(Math.min(...losses)) : "–"}</dd></div>
      <div><dt>highest</dt><dd data-fact="highest">${losses.length ? num(Math.max(...losses)) : "–"}</dd></div>
      <div><dt>learning rate</dt><dd>${num(point?.learning_rate, 3)}</dd></div>
      <div><dt>gradient norm</dt><dd>${num(point?.grad_norm, 3)}</dd></div>
      <div><dt>validation</dt><dd data-fact="val-loss">${num(validation?.val_loss)}</dd></div>
    </dl>`;
}

/** Steps a second and the time left: as they come while it runs, else as long as the newest ones took to compute. */
export function Pace() {
  const points = useLab((s) => s.points);
  const metadata = useLab((s) => s.metadata);
  const running = useLab((s) => s.running);
  const seen = useRef(/** @type {[number, number][]} */ ([]));
  useEffect(() => {
    const now = performance.now();
    seen.current = running ? [...seen.current.filter(([time]) => now - time < WATCHED_MS), [now, points.at(-1)?.step ?? 0]] : [];
  }, [points, running]);
  const recent = points.slice(-20).map((point) => point.step_ms ?? 0).filter((ms) => ms > 0);
  const mean = recent.reduce((sum, ms) => sum + ms, 0) / recent.length;
  const [[from, first], [until, last]] = [seen.current[0] ?? [0, 0], seen.current.at(-1) ?? [0, 0]];
  const pace = last > first ? (1000 * (last - first)) / (until - from) : 1000 / mean;
  const left = (metadata?.num_steps ?? 0) - (points.at(-1)?.step ?? 0);
  return html`<div><dt>pace</dt><dd>${recent.length ? `${num(pace, 3)} steps/s` : "–"}</dd></div>
    <div><dt>time left</dt><dd>${recent.length ? duration(left / pace) : "–"}</dd></div>`;
}

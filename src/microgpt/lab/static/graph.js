/** The computation of the loss as it happened: every operation with value and gradient, forward and backward. */

import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { useAnswer } from "./answer.js";
import { num } from "./format.js";
import { NODE, arrange } from "./layout.js";
import { NodeView } from "./node.js";
import { useLab } from "./store.js";
import { where } from "./tokens.js";
import { Waiting } from "./panel.js";

/** @import { GraphNode } from "./types.js" */

const DRAWN = 90;
const TICK_MS = 110;

/** A name that fits its box: without the layer, and without the operation that a part consists of. @param {GraphNode} node */
const short = (node) => node.name.replace(/^layer\d+\./, "").split(".")[0].slice(0, 16);

/** @param {{ active: boolean }} props */
export function GraphPanel({ active }) {
  const view = useLab((s) => s.view);
  const off = useLab((s) => s.off);
  const { answer, fault } = useAnswer("graph", where(view, off), active);
  const [chosen, choose] = useState(-1);
  const [part, show] = useState(0);
  const [moment, go] = useState(-1);
  const [playing, play] = useState(false);
  const scroller = useRef(/** @type {HTMLElement | null} */ (null));
  /** @type {GraphNode[]} */
  const all = answer?.data.nodes ?? [];
  const layers = 1 + Math.max(0, ...all.map((node) => node.layer ?? 0));
  const whole = all.length <= DRAWN;
  const drawn = useMemo(() => (whole ? all : all.filter((node) => node.layer === null || node.layer === part)), [answer, part]);
  const placed = useMemo(() => arrange(drawn), [all.map((node) => node.name).join(), part]);
  const order = useMemo(() => {
    const by = (/** @type {"forward" | "backward"} */ key) => all.filter((node) => node[key] !== null).sort((a, b) => Number(a[key]) - Number(b[key])).map((node) => ({ id: node.id, name: node.name, key }));
    return [...by("forward"), ...by("backward")];
  }, [answer]);
  useEffect(() => {
    if (!playing) return undefined;
    const clock = setInterval(() => go((at) => at + 1), TICK_MS);
    return () => clearInterval(clock);
  }, [playing]);
  useEffect(() => {
    if (moment >= order.length) {
      play(false);
      go(-1);
    }
  }, [moment]);
  const now = order[moment];
  useEffect(() => {
    const place = now && placed.places.get(now.id);
    const frame = scroller.current;
    if (!place || !frame) return;
    if (place.x < frame.scrollLeft || place.x + NODE.width > frame.scrollLeft + frame.clientWidth) frame.scrollLeft = place.x - frame.clientWidth / 3;
  }, [now?.id]);
  if (!answer) return html`<${Waiting} fault=${fault} />`;
  const byId = new Map(all.map((node) => [node.id, node]));
  const lit = (/** @type {number} */ id) => (now?.id === id ? (now.key === "forward" ? " lit" : " lit-back") : "");
  const edges = drawn.flatMap((node) => node.inputs.map((from) => ({ from, to: node.id })));
  return html`
    <div class="row">
      <button type="button" class="tool-button" onClick=${() => {
        if (moment < 0) go(0);
        play(!playing);
      }}>${playing ? "Hold" : "Play forward and backward"}</button>
      <label class="moment"><span class="unseen">Moment of the pass</span>
        <input type="range" min=${-1} max=${order.length - 1} value=${moment} aria-valuetext=${now ? `${now.key}: ${now.name}` : "before"} onInput=${(/** @type {any} */ event) => go(event.target.valueAsNumber)} /></label>
      <span class="readout" data-fact="moment">${now ? html`${now.key} ${moment + 1 - (now.key === "backward" ? order.findIndex((one) => one.key === "backward") : 0)}: <b>${now.name}</b>` : html`loss <b class="number" data-fact="graph-loss">${num(answer.data.loss)}</b>, step ${answer.step}`}</span>
      ${!whole && html`<label class="link">layer <select class="field" value=${part} onChange=${(/** @type {any} */ event) => show(Number(event.target.value))}>${Array.from({ length: layers }, (_, index) => html`<option value=${index}>${index}</option>`)}</select></label>`}
    </div>
    <div ref=${scroller} class="scroll graph-scroll" tabindex="0" role="region" aria-label="Operations and how they depend">
      <svg class="plot" width=${placed.width} height=${placed.height} role="group" aria-label=${`${drawn.length} operations and parameters`}>
        ${edges.map(({ from, to }) => {
          const [a, b] = [placed.places.get(from), placed.places.get(to)];
          if (!a || !b) return null;
          const [x1, y1, x2, y2] = [a.x + NODE.width, a.y + NODE.height / 2, b.x, b.y + NODE.height / 2];
          const glow = now?.key === "forward" && to === now.id ? " lit" : now?.key === "backward" && from === now.id ? " lit-back" : "";
          const bend = Math.max(24, (x2 - x1) / 2);
          return html`<path key=${`${from} ${to}`} class=${`edge${glow}`} d=${`M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`} />`;
        })}
        ${drawn.map((node) => {
          const place = placed.places.get(node.id);
          if (!place) return null;
          const open = () => choose(node.id);
          return html`<g key=${node.id} class=${`node${node.forward === null ? " param" : ""}${chosen === node.id ? " chosen" : ""}${lit(node.id)}`} role="button" tabindex="0"
            aria-pressed=${chosen === node.id} aria-label=${`${node.name}, ${node.op}, shape ${node.shape.join(" by ") || "one number"}`} transform=${`translate(${place.x} ${place.y})`} onClick=${open}
            onKeyDown=${(/** @type {KeyboardEvent} */ event) => {
              if (event.key !== "Enter" && event.key !== " ") return;
              event.preventDefault();
              event.stopPropagation();
              open();
            }}>
            <rect width=${NODE.width} height=${NODE.height} rx="7" />
            <text class="name" x="8" y="17">${short(node)}</text>
            <text x="8" y="34">${node.shape.join("×") || "scalar"}${node.gradient ? `  ∇ ${num(node.gradient.norm, 2)}` : ""}</text>
          </g>`;
        })}
      </svg>
    </div>
    ${byId.get(chosen) ? html`<${NodeView} key=${chosen} id=${chosen} nodes=${all} active=${active} open=${choose} />`
      : html`<p class="readout">Choose a node for its numbers. Solid boxes are operations, dashed ones parameters and inputs; ∇ is the norm of the gradient.</p>`}`;
}

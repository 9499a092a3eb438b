/** The style sheet's colours where a canvas needs them, and tensors as pictures. */

import { html, useEffect, useRef, useState } from "./vendor/preact.js";

/** @param {string} name of a custom property @returns {[number, number, number]} */
export function rgb(name) {
  const dot = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  if (!dot) return [0, 0, 0];
  dot.fillStyle = getComputedStyle(probe).color;
  probe.remove();
  dot.fillRect(0, 0, 1, 1);
  const [red, green, blue] = dot.getImageData(0, 0, 1, 1).data;
  return [red, green, blue];
}

/** @param {string} name */
export const css = (name) => `rgb(${rgb(name).join(" ")})`;

/** Draws again when light turns dark or back. @returns {number} */
export function useTheme() {
  const [version, change] = useState(0);
  useEffect(() => {
    const next = () => change((n) => n + 1);
    const themed = new MutationObserver(next);
    themed.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", next);
    return () => {
      themed.disconnect();
      dark.removeEventListener("change", next);
    };
  }, []);
  return version;
}

/**
 * A matrix as a picture, one pixel a number: full colour at `most`, nothing at 0, the second colour below. With `root`
 * the strength is the square root of the number, so that small ones are seen.
 * @param {{
 *   values: ArrayLike<number>, rows: number, columns: number, most: number, label: string, root?: boolean,
 *   over?: (row: number, column: number) => void, out?: () => void, pick?: (row: number, column: number) => void,
 * }} props
 */
export function Heat({ values, rows, columns, most, label, root = false, over, out, pick }) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const theme = useTheme();
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context || !rows || !columns) return;
    const picture = context.createImageData(columns, rows);
    const [plus, minus] = [rgb("--accent"), rgb("--minus")];
    for (let index = 0; index < rows * columns; index += 1) {
      const value = values[index];
      picture.data.set(value >= 0 ? plus : minus, 4 * index);
      const strength = Math.min(1, Math.abs(value) / (most || 1));
      picture.data[4 * index + 3] = 255 * (root ? Math.sqrt(strength) : strength);
    }
    context.putImageData(picture, 0, 0);
  }, [values, rows, columns, most, root, theme]);
  /** @param {MouseEvent} event @returns {[number, number]} */
  const place = (event) => {
    const box = /** @type {HTMLElement} */ (event.currentTarget).getBoundingClientRect();
    const at = (/** @type {number} */ share, /** @type {number} */ size) => Math.max(0, Math.min(size - 1, Math.floor(share * size)));
    return [at((event.clientY - box.top) / box.height, rows), at((event.clientX - box.left) / box.width, columns)];
  };
  return html`<canvas ref=${canvas} class="wash" width=${columns} height=${rows} role=${label ? "img" : "presentation"} aria-label=${label || null}
    style=${{ aspectRatio: `${columns} / ${rows}`, cursor: pick ? "pointer" : "default" }}
    onMouseMove=${over && ((/** @type {MouseEvent} */ event) => over(...place(event)))} onMouseLeave=${out}
    onClick=${pick && ((/** @type {MouseEvent} */ event) => pick(...place(event)))}></canvas>`;
}

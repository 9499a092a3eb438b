/** Numbers and tokens as people read them. */

/** @param {number | null | undefined} value @param {number} [digits] significant digits */
export function num(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(Math.min(digits - 1, 2)).replace("-", "−").replace("e+", "e").replace("e-", "e−");
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return value.toFixed(Math.min(places, 8)).replace("-", "−");
}

/** @param {number | null | undefined} value @param {number} [digits] significant digits */
export function signed(value, digits = 4) {
  const text = num(value, digits);
  return value !== null && value !== undefined && value > 0 ? `+${text}` : text;
}

/** @param {number} share of one */
export function percent(share) {
  if (!Number.isFinite(share)) return "–";
  const value = share * 100;
  return value > 0 && value < 0.1 ? "<0.1 %" : `${value.toFixed(value >= 99.95 || value < 10 ? 1 : 0)} %`;
}

/** @param {number} value */
export const count = (value) => value.toLocaleString("en").replaceAll(",", "\u202f");

/** @param {number} seconds */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A token so that spaces and line ends are seen. @param {string} text */
export function shown(text) {
  return text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "∅";
}

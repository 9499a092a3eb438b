// @ts-check
/** Small helpers for elements. Text only ever comes in as text. */

/**
 * @param {string} id
 * @returns {any} the element of the page with this id
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element ${id}`);
  return found;
}

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string>} attributes
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {string} name of a symbol in index.html, without its prefix
 * @returns {SVGElement}
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/**
 * A button that is an icon; its name is its label and its tooltip.
 *
 * @param {string} symbol
 * @param {string} name
 * @param {() => void} act
 */
export function iconButton(symbol, name, act) {
  const button = el("button", { type: "button", class: "icon-button", "aria-label": name, title: name }, icon(symbol));
  button.addEventListener("click", act);
  return button;
}

/** @param {HTMLTextAreaElement} box grows with its text, as far as its style lets it */
export function fit(box) {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
}

/**
 * @param {string} text
 * @returns {Promise<boolean>} whether it is in the clipboard now
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // forbidden, or the page came over plain HTTP from another machine
  }
}

/**
 * Say something to those who do not see the page.
 *
 * @param {string} text
 */
export function announce(text) {
  byId("status").textContent = text;
}

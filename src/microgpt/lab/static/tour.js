/** A walk through the page for those who see it first. */

import { html, useEffect, useLayoutEffect, useState } from "./vendor/preact.js";
import { trace } from "./replay.js";
import { set, useLab } from "./store.js";

const SEEN = "microgpt.lab.tour";

/** @type {{ at: string, title: string, words: string }[]} */
const STOPS = [
  { at: ".transport", title: "One step at a time", words: "Step makes one update of the model, Run many. The letters on the buttons are keys." },
  { at: "#loss", title: "Does it learn?", words: "The loss falls when the model is less surprised by what comes next. The dashed line is pure guessing." },
  { at: "#samples", title: "Read what it writes", words: "Press C now and then: noise turns into syllables, syllables into names." },
  { at: "#tokens", title: "Where it is wrong", words: "These are the texts of the next update. Choose a token, and the panels below look at it too." },
  { at: "#attention", title: "Who looks at whom", words: "All heads at once. Choose one to enlarge it." },
  { at: "#graph", title: "All the way down", words: "The whole computation, forward and backward. Every number can be opened until nothing is left to ask." },
  { at: "#time", title: "Go back", words: "The slider takes every panel to any earlier step. From there you can fork: change something, and go on another way." },
];

/** Whether this reader has walked through it, or looks at a file, which has no memory of its readers. */
const seen = () => trace !== null || localStorage.getItem(SEEN) !== null;

export function Tour() {
  const on = useLab((s) => s.tour);
  const [stop, go] = useState(0);
  const here = on ? STOPS[stop] : undefined;
  useEffect(() => {
    if (seen()) return;
    localStorage.setItem(SEEN, "1");
    set({ tour: true });
  }, []);
  useLayoutEffect(() => { // marked together with the words: an effect would come a frame later
    const target = here && document.querySelector(here.at);
    target?.classList.add("toured");
    if (target?.closest(".grid")) target.scrollIntoView({ block: "start" });
    return () => target?.classList.remove("toured");
  }, [here]);
  if (!here) return null;
  const end = () => {
    go(0);
    set({ tour: false });
  };
  return html`<aside class="tour" aria-label="Tour">
    <h2>${here.title}</h2><p aria-live="polite">${here.words}</p>
    <div class="row"><span class="quiet small">${stop + 1} of ${STOPS.length}</span><span class="push"></span>
      <button type="button" class="plain-button" onClick=${end}>${stop === STOPS.length - 1 ? "Close" : "Skip"}</button>
      ${stop < STOPS.length - 1 && html`<button type="button" class="full-button" onClick=${() => go(stop + 1)}>Next</button>`}</div>
  </aside>`;
}

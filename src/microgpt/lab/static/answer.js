/**
 * Answers of panels about one step: streamed while the session runs and the reader follows it, asked for otherwise.
 */

import { useEffect, useRef, useState } from "./vendor/preact.js";
import { Refused, post } from "./api.js";
import { readAnswer } from "./frame.js";
import { shownStep } from "./session.js";
import { watch } from "./socket.js";
import { state, useLab } from "./store.js";

/** @import { Answer } from "./types.js" */

const KEPT = 300;

/** @type {Map<string, Answer>} */
const kept = new Map();

/** Forget all answers, as after a reset. */
export const forget = () => kept.clear();

/**
 * One look at a panel. What a step holds never changes, so an answer is asked for once.
 * @param {string} id of the session @param {string} panel @param {number} step @param {object} params
 */
export async function inspect(id, panel, step, params) {
  const key = JSON.stringify([id, panel, step, params]);
  const had = kept.get(key);
  if (had) return had;
  const answer = readAnswer(await post(`session/${id}/inspect`, { panel, step, params }));
  kept.set(key, answer);
  if (kept.size > KEPT) kept.delete(/** @type {string} */ (kept.keys().next().value));
  return answer;
}

const following = () => state.running && state.at === null;

/**
 * The panel's answer for the step that is shown; while a newer one is on its way the last one stays.
 * @param {string} panel
 * @param {Record<string, any>} params
 * @param {boolean} active whether anyone looks
 * @param {boolean} [streams] false asks only when the session stands still
 * @returns {{ answer: Answer | null, fault: string, current: boolean }} current is false while the answer is to another question
 */
export function useAnswer(panel, params, active, streams = true) {
  const step = useLab(shownStep);
  const id = useLab((s) => s.sessionId);
  const generation = useLab((s) => s.metadata?.generation);
  const live = useLab(following);
  const [told, tell] = useState({ answer: /** @type {Answer | null} */ (null), fault: "", of: "", given: "" });
  const given = JSON.stringify(params);
  const of = `${id} ${generation} ${panel}`;
  const wanted = useRef("");
  const busy = useRef(false);

  useEffect(() => {
    if (active && live && streams && id) return watch(panel, JSON.parse(given), (answer) => tell({ answer, fault: "", of, given }));
    return undefined;
  }, [of, given, live, active, streams]);

  useEffect(() => {
    if (!active || live || !id) return;
    wanted.current = JSON.stringify([id, panel, step, JSON.parse(given), of]);
    if (!busy.current) void ask();
  }, [of, given, live, active, step]);

  async function ask() {
    busy.current = true;
    while (wanted.current) {
      const [session, which, at, asked, by] = JSON.parse(wanted.current);
      wanted.current = "";
      try {
        const answer = await inspect(session, which, at, asked);
        tell({ answer, fault: "", of: by, given: JSON.stringify(asked) });
      } catch (error) {
        tell({ answer: null, fault: error instanceof Refused ? error.message : String(error), of: by, given: JSON.stringify(asked) });
      }
    }
    busy.current = false;
  }

  if (told.of !== of) return { answer: null, fault: "", current: false };
  return { answer: told.answer, fault: told.fault, current: told.given === given };
}

// @ts-check
/** Server-sent events, as the HTML standard defines them: the part of them that carries data. */

/**
 * Takes text as the network cuts it and gives whole events back.
 */
export class EventParser {
  #rest = "";
  /** @type {string[]} */
  #data = [];

  /**
   * @param {string} chunk the next piece of the stream; an event may begin or end anywhere in it
   * @returns {string[]} the data of each event that is complete now
   */
  push(chunk) {
    this.#rest += chunk;
    /** @type {string[]} */
    const events = [];
    let start = 0;
    for (;;) {
      const end = this.#lineEnd(start);
      if (end < 0) break;
      this.#line(this.#rest.slice(start, end), events);
      start = end + (this.#rest.startsWith("\r\n", end) ? 2 : 1);
    }
    this.#rest = this.#rest.slice(start);
    return events;
  }

  /** @param {number} from */
  #lineEnd(from) {
    for (let i = from; i < this.#rest.length; i++) {
      const c = this.#rest[i];
      if (c === "\n") return i;
      // a carriage return at the very end may be the first half of CR LF: wait for what follows
      if (c === "\r") return i + 1 < this.#rest.length ? i : -1;
    }
    return -1;
  }

  /**
   * @param {string} line
   * @param {string[]} events
   */
  #line(line, events) {
    if (line === "") {
      if (this.#data.length) events.push(this.#data.join("\n"));
      this.#data = [];
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    if (field !== "data") return; // comments (an empty name), ids and the like
    const value = colon < 0 ? "" : line.slice(colon + 1);
    this.#data.push(value.startsWith(" ") ? value.slice(1) : value);
  }
}

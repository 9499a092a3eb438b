// @ts-check
/** From the tokens of an answer to pieces of text, and from log-probabilities to what a person reads. */

/**
 * @typedef {object} Alternative
 * @property {string} token
 * @property {number} logprob natural logarithm of its probability
 */

/**
 * @typedef {object} Token
 * @property {string} token
 * @property {number} logprob natural logarithm of its probability
 * @property {number[] | null} bytes its UTF-8 bytes, where the server gives them
 * @property {Alternative[]} top the likeliest tokens of its place
 */

/**
 * @typedef {object} Piece
 * @property {string} text
 * @property {Token[]} tokens several where a character is made of several tokens; none where they are not known
 */

/** Upper ends of the ranges of probability that are told apart by colour, unlikely first. */
export const LEVELS = [0.05, 0.2, 0.5, 0.8];

/**
 * Divide a text among its tokens. The pieces together are the text, whatever the tokens say.
 *
 * @param {string} content
 * @param {Token[]} tokens
 * @returns {Piece[]}
 */
export function pieces(content, tokens) {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  /** @type {Piece[]} */
  const found = [];
  /** @type {Token[]} */
  let waiting = [];
  let at = 0;
  for (const token of tokens) {
    if (at >= content.length) break;
    waiting.push(token);
    const text = token.bytes
      ? decoder.decode(new Uint8Array(token.bytes), { stream: true })
      : decoder.decode() + token.token;
    if (text === "") continue; // a part of a character
    if (content.startsWith(text, at)) {
      found.push({ text, tokens: waiting });
      at += text.length;
    } else if (text.startsWith(content.slice(at))) {
      found.push({ text: content.slice(at), tokens: waiting }); // a stop text, or the end so far, lies within it
      at = content.length;
    } else {
      break;
    }
    waiting = [];
  }
  if (at < content.length) found.push({ text: content.slice(at), tokens: [] });
  return found;
}

/**
 * @param {Piece} piece
 * @returns {number} the probability of the piece: of all its tokens, one after the other
 */
export function probability(piece) {
  return Math.exp(piece.tokens.reduce((sum, t) => sum + t.logprob, 0));
}

/**
 * @param {number} p
 * @returns {number} 0 for the least likely range, up to LEVELS.length
 */
export function level(p) {
  const at = LEVELS.findIndex((end) => p < end);
  return at < 0 ? LEVELS.length : at;
}

/**
 * @param {number} p a probability
 * @returns {string} such as "41.2 %"
 */
export function percent(p) {
  const value = p * 100;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  return `${value.toFixed(1)} %`;
}

/**
 * @param {string} token
 * @returns {string} the token with its white space to be seen
 */
export function visible(token) {
  if (token === "") return "(empty)";
  return token.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll("\r", "␍");
}

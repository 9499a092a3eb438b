/** Answers of panels as they cross the wire: binary frames on the WebSocket, base64 in JSON. */

/** @import { Answer, Tensor } from "./types.js" */

/** @param {ArrayBuffer} buffer @returns {Answer & { key: string | null, id: string | null, session_id: string, generation: number }} */
export function readFrame(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  /** @type {Record<string, Tensor>} */
  const tensors = {};
  for (const { name, shape, offset } of header.tensors) {
    const size = shape.reduce((/** @type {number} */ product, /** @type {number} */ one) => product * one, 1);
    tensors[name] = { shape, data: new Float32Array(buffer, 4 + length + 4 * offset, size) };
  }
  return { ...header, tensors };
}

/** @param {any} told @returns {Answer} */
export function readAnswer(told) {
  /** @type {Record<string, Tensor>} */
  const tensors = {};
  for (const [name, { shape, f32 }] of Object.entries(told.tensors)) {
    const bytes = Uint8Array.from(atob(f32), (letter) => letter.charCodeAt(0));
    tensors[name] = { shape, data: new Float32Array(bytes.buffer) };
  }
  return { ...told, tensors };
}

/** The shapes of the engine's answers (messages.py, panels.py) and of the page's own state, as JSDoc types. */

/**
 * @typedef {{ layer: number, kind: "head" | "neuron", index: number }} Unit
 * @typedef {{ session_id: string, step: number | null }} Place
 * @typedef {{
 *   config: Record<string, any>, num_docs: number, vocab_size: number, bos_token_id: number, step: number,
 *   num_params: number, num_steps: number, steps_remaining: number, progress: number, kind: "live" | "run" | "trace",
 *   completed: boolean, name: string, parent: Place | null, off: Unit[], layers: number, heads: number, hidden: number,
 *   vocab: string[], parameters: Record<string, number[]>, first_step: number, recorded: number[],
 *   uniform_loss: number, generation: number, run: string, full_config: Record<string, any>,
 * }} Metadata
 * @typedef {{
 *   session_id: string, running: boolean, step: number, num_steps: number, clients: number, kind: string,
 *   name: string, parent: Place | null,
 * }} SessionRow
 * @typedef {{ step: number, loss: number | null, val_loss?: number | null, [more: string]: number | null | undefined }} Point
 * @typedef {{
 *   type: "scalars", session_id: string, generation: number, columns: string[], rows: (number | null)[][],
 * }} Scalars
 * @typedef {{
 *   type: "samples", samples: string[], temperature: number, num_samples: number, step: number, prompt: string, off: Unit[],
 * }} Samples
 * @typedef {{ id: number, text: string }} Shown
 * @typedef {{ token_id: number, token: string, prob: number }} Likely
 * @typedef {{ mean: number, std: number, min: number, max: number, norm: number }} Stats
 * @typedef {{
 *   id: number, name: string, op: string, layer: number | null, inputs: number[], shape: number[],
 *   forward: number | null, backward: number | null, value: Stats | null, gradient: Stats | null,
 * }} GraphNode
 * @typedef {{ node: number, name: string, index: number[], value: number, local: number, flow: number }} Operand
 * @typedef {{ shape: number[], data: Float32Array }} Tensor
 * @typedef {{ panel: string, step: number, data: any, tensors: Record<string, Tensor> }} Answer
 * @typedef {{ row: number, position: number, layer: number, head: number, temperature: number, topK: number, topP: number, log: boolean, text: string }} View
 * @typedef {{
 *   sessions: SessionRow[], sessionId: string | null, metadata: Metadata | null, running: boolean,
 *   link: "off" | "live" | "lost", points: Point[], newest: number, at: number | null, samples: Samples[],
 *   branches: { row: SessionRow, points: Point[] }[],
 *   notice: string, busy: string, dialog: string, view: View, off: Unit[], loaded: boolean, tour: boolean,
 *   options: { models: string[], embedded: string[], data: string[], tokenizers: string[], optimizers: string[] } | null,
 * }} State
 */

export {};

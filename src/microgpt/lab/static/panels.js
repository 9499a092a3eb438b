/** All panels, in the order of the page, with what each is for. */

import { AttentionPanel } from "./attention.js";
import { ComparePanel } from "./compare.js";
import { EmbeddingsPanel } from "./embeddings.js";
import { GraphPanel } from "./graph.js";
import { KnockoutPanel } from "./knockout.js";
import { LossPanel } from "./loss.js";
import { ParametersPanel } from "./parameters.js";
import { LensPanel, ProbabilityPanel } from "./probabilities.js";
import { SamplesPanel } from "./samples.js";
import { BatchPanel } from "./tokens.js";
import { TracePanel } from "./trace.js";

/** @type {{ id: string, title: string, span: number, body: any, recorded: boolean, what: string, why: string, how: string }[]} */
export const PANELS = [
  {
    id: "loss", title: "Loss", span: 8, body: LossPanel, recorded: true,
    what: "How surprised the model is by each next token, in nats, step by step.",
    why: "It is the one number that training lowers; all else follows from it.",
    how: "The faint line is each step, the strong one their average, the orange one texts that the model never learns from. The dashed line is pure guessing. Drag to zoom, double-click to go back; click to travel to a step.",
  },
  {
    id: "samples", title: "Samples over time", span: 4, body: SamplesPanel, recorded: true,
    what: "Texts that the model writes, newest first.",
    why: "Loss is abstract; here you read what has been learned.",
    how: "Compare early and late ones. A step's number takes all panels to it; the temperature slider of the probabilities counts here too.",
  },
  {
    id: "tokens", title: "Tokens of the batch", span: 12, body: BatchPanel, recorded: true,
    what: "The texts of the next update, each token coloured by how badly what follows it is guessed.",
    why: "A mean hides which guesses are hard: first letters are, endings often are not.",
    how: "Strong colour is a high loss. Choose a token for its story: what was expected, which inputs mattered, which matrices its gradient pulls on.",
  },
  {
    id: "attention", title: "Attention", span: 7, body: AttentionPanel, recorded: true,
    what: "For each token, how much of each earlier token it takes in: all layers and heads.",
    why: "Attention is the only way in which tokens hear of each other.",
    how: "A row looks at the columns; the darker, the more. The empty upper half is the future, which no token sees. Choose a head to enlarge it, a token to mark its row.",
  },
  {
    id: "probabilities", title: "Next token", span: 5, body: ProbabilityPanel, recorded: true,
    what: "The model's probabilities for what comes next.",
    why: "This is all a language model says; sampling draws from it.",
    how: "Low temperature sharpens, high flattens; top-k keeps the k likeliest, top-p the fewest that reach p together. The token in colour is what the data has.",
  },
  {
    id: "lens", title: "Logit lens", span: 12, body: LensPanel, recorded: true,
    what: "What the model would guess if it stopped after each layer.",
    why: "It shows where in the depth the answer appears.",
    how: "Read downwards: the share of the true next token should rise. Early rows are often odd, as only the last is trained to be read.",
  },
  {
    id: "graph", title: "Computation graph", span: 12, body: GraphPanel, recorded: true,
    what: "Every operation of one forward and backward pass, with its numbers.",
    why: "Learning is nothing but this: values flow right, gradients flow back left.",
    how: "Play shows the true order. Choose a node for its values and gradients, a number for what it is made of and each local derivative; follow them back as far as you like, and check any gradient against a finite difference.",
  },
  {
    id: "parameters", title: "Parameters", span: 12, body: ParametersPanel, recorded: true,
    what: "Every matrix of weights: how its numbers, their gradients and their relative changes are spread.",
    why: "Training is healthy when each update changes a weight by about a thousandth of itself; far more is wild, far less is asleep.",
    how: "Choose a matrix, then a weight: its gradient, the optimizer's moments, bias correction and decay are listed with the parts of its change, which add up to what was applied.",
  },
  {
    id: "embeddings", title: "Embeddings", span: 6, body: EmbeddingsPanel, recorded: true,
    what: "The vectors of all tokens, seen from where they differ most.",
    why: "Tokens that behave alike move together while the model learns: vowels, for example.",
    how: "Near means alike. The axes have no meaning of their own; they are turned to fit the step before, so that points glide as time goes.",
  },
  {
    id: "knockout", title: "Knock-out", span: 6, body: KnockoutPanel, recorded: true,
    what: "What the validation loss becomes when a head or neuron is silenced.",
    why: "It separates what a part seems to do from what it is good for.",
    how: "Orange parts hurt when they are off, green ones were in the way. Click to switch a part off and watch every other panel without it.",
  },
  {
    id: "compare", title: "Compare", span: 12, body: ComparePanel, recorded: false,
    what: "The shown step beside another step, branch or session, on the same text.",
    why: "What learning did, or what a changed setting did, is the difference of two states.",
    how: "Choose the other state and compare. Moving through time moves the first of the two.",
  },
  {
    id: "trace", title: "Keep and share", span: 12, body: TracePanel, recorded: false,
    what: "The session as a file: its whole history of numbers and its panels at up to 60 steps.",
    why: "To look at it again later, or to show it to someone who has nothing but a browser.",
    how: "A trace opens here again, in any lab. One page holds the trace and this whole laboratory: open it from disk, with no server and no network.",
  },
];

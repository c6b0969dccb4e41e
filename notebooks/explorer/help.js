// What one sees, for someone who has read the first lesson only; and the keys.
import { el, scrolled } from "./dom.js";
import { openDialog } from "./dialog.js";

const PARAGRAPHS = {
  "What this is": `A small Llama, and every number it computes for the text in the prompt. It runs in this page;
    nothing is sent anywhere. Change the text, and everything is computed again.`,
  "On the left": `The whole model, from the text (top) to the next token (bottom), and one of its layers. The long
    thick line is the residual stream: a row of numbers for each token. Attention, the upper half of a layer, lets
    tokens read from the tokens before them; the feed-forward step, its lower half, works on each token alone. Both add
    what they find to the stream. Each box is a tensor, a table of numbers; choose one. Dashed boxes are what it is
    computed from.`,
  "In the middle": `The tensor that you chose. A row is a token. Orange with a minus is negative, blue is positive; zero
    has the colour of the page. Zoom with the wheel or with + until you can read the numbers; drag to move. Behind a
    thick edge there is more. Click a number.`,
  "On the right": `That number: its formula, first in general, then with its own numbers; what was added up; and the
    lines of numpy_llama.py that compute it. Underlined numbers are links: follow them back, step by step, to the
    embedding.`,
  "At the bottom": `Next token: what the model expects after the chosen token. Click a bar to go on with it. Why this
    token: which heads and feed-forward steps speak for it, and what happens without them. Rotation, one neuron, tokens,
    cache: one step each, up close. Second prompt: put a tensor of another text into this one. Mistakes: what happens
    when a port gets a step wrong. Traces: compare another program.`,
  "What if": `The switches at the top turn a part of the chosen layer off. Each change becomes a chip; remove it there.
    From then on everything stands beside “as trained”: outlined bars, and Δ on each box, the size of its change as a
    share of its own size.`,
};
const KEYS = {
  "/": "to the prompt",
  w: "to the boxes; arrows move, Enter chooses",
  m: "to the matrix; arrows move, Shift moves by 8",
  n: "to the number; Tab leads to “← back”, then to its links",
  b: "to the tools at the bottom; arrows change the tool",
  "[ and ]": "one layer back, one on",
  "+ and −": "zoom, in the matrix",
  "PageUp, PageDown": "another head, in the matrix",
  t: "the row as a table, in the matrix",
  "arrows, Home, End": "in tables, boxes and tokens: the next one, the first, the last",
  "Alt + ←": "back to what was shown before",
  "?": "this explanation",
};

export function openHelp() {
  const parts = Object.entries(PARAGRAPHS).map(([title, text]) =>
    el("p", {}, el("b", { textContent: `${title}. ` }), text));
  const keys = Object.entries(KEYS).flatMap(([key, text]) =>
    [el("dt", {}, el("kbd", { textContent: key })), el("dd", { textContent: text })]);
  const all = scrolled("explanation", ...parts, el("h3", { textContent: "Keys" }),
    el("dl", { className: "keys-list" }, ...keys));
  all.classList.add("help");
  openDialog("What do I see?", all);
}

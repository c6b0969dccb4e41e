// How the text becomes tokens: merge by merge, and bytes for what the vocabulary lacks.
import { el, redraw, row } from "./dom.js";
import { spaced } from "./format.js";

const visibleText = text => spaced(text).replaceAll(" ", "·").replaceAll("\n", "⏎");

export function makeMerges(root, { pick }) {
  const slider = el("input", { type: "range", id: "merge", min: 0, step: 1 });
  const count = el("output", { for: "merge" });
  const parts = el("ol", { className: "parts-list", tabIndex: 0, "aria-label": "parts after this merge" });
  const words = el("p", { className: "sentence", "aria-live": "polite" });
  const ids = el("p", { className: "row ids" });
  let steps = [], text = null, now = null;
  root.append(row(el("label", { htmlFor: "merge", textContent: "merges done" }), slider, count), words, parts, ids);
  slider.oninput = () => drawStep();

  function drawStep() {
    const step = Number(slider.value), { parts: list, at } = steps[step];
    count.textContent = `${step} of ${steps.length - 1}`;
    words.textContent = stepWords(steps, step);
    parts.replaceChildren(...list.map((part, k) => el("li", { className: k === at ? "merged" : "" },
      el("span", { textContent: visibleText(part) }), el("small", { textContent: spelling(part) }))));
  }
  function spelling(part) {
    const { tokenizer } = now.model, spelled = tokenizer.spell(part);
    const isPiece = spelled.length === 1 && tokenizer.pieces[spelled[0]] === part;
    return isPiece ? `id ${spelled[0]}` : spelled.map(id => tokenizer.pieces[id]).join(" ");
  }
  function startOver() {
    text = now.state.text;
    steps = now.model.tokenizer.merges(text);
    slider.max = steps.length - 1;
    slider.value = steps.length - 1;
  }
  return function draw(view) {
    now = view;
    if (now.state.text !== text) startOver();
    drawStep();
    const buttons = now.run.tokens.map((id, t) => el("button", { textContent: id, key: `id ${t}`,
      title: `token ${t}: ${visibleText(now.model.tokenizer.pieces[id])}`, onclick: () => pick(t) }));
    redraw(ids, el("span", { textContent: "ids that the model gets:" }), ...buttons);
  };
}

function stepWords(steps, step) {
  const { parts, at, id } = steps[step], isLast = step === steps.length - 1;
  const joined = at === null ? "The text as single characters, · is a space; one space is put in front."
    : `“${visibleText(parts[at])}” (id ${id}) was joined: of all neighbours that make a piece of the vocabulary, ` +
      "these make the one that was learned first.";
  const end = "No two neighbours make a piece any more. What the vocabulary lacks is spelled in bytes, such as <0xC3>.";
  return isLast ? `${joined} ${end}` : joined;
}

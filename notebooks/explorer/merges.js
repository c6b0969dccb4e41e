// How the text becomes tokens: merge by merge, and bytes for what the vocabulary lacks.
import { el } from "./dom.js";
import { spaced } from "./format.js";

const visibleText = text => spaced(text).replaceAll(" ", "·").replaceAll("\n", "⏎");

export function makeMerges(root, { pick }) {
  const slider = el("input", { type: "range", id: "merge", min: 0, step: 1 }), output = el("output", { for: "merge" });
  const parts = el("ol", { className: "parts-list", tabIndex: 0, "aria-label": "parts after this merge" });
  const words = el("p", { className: "sentence", "aria-live": "polite" }), ids = el("p", { className: "row ids" });
  let steps = [], text = null, now = null;
  root.append(el("div", { className: "row" }, el("label", { htmlFor: "merge", textContent: "merges done" }), slider, output), words, parts,
    ids);
  slider.oninput = () => drawStep();

  function drawStep() {
    const step = Number(slider.value), { parts: list, at } = steps[step];
    output.textContent = `${step} of ${steps.length - 1}`;
    const part = (word, k) => el("li", { className: k === at ? "merged" : "" }, el("span", { textContent: visibleText(word) }),
      el("small", { textContent: spellWords(word) }));
    parts.replaceChildren(...list.map(part));
    parts.children[at ?? 0]?.scrollIntoView?.({ block: "nearest", inline: "nearest" });
    words.textContent = stepWords(steps, step);
  }
  function spellWords(word) {
    const { tokenizer } = now.model, spelled = tokenizer.spell(word);
    return spelled.length === 1 && tokenizer.pieces[spelled[0]] === word ? `id ${spelled[0]}`
      : spelled.map(id => tokenizer.pieces[id]).join(" ");
  }
  return function draw(view) {
    now = view;
    const fresh = now.state.text !== text;
    if (fresh) {
      text = now.state.text;
      steps = now.model.tokenizer.merges(text);
      slider.max = steps.length - 1;
      slider.value = steps.length - 1;
    }
    drawStep();
    const pieces = now.run.tokens.map((id, t) => el("button", { textContent: `${id}`, key: `id ${t}`,
      title: `token ${t}: ${visibleText(now.model.tokenizer.pieces[id])}`, onclick: () => pick(t) }));
    ids.replaceChildren(el("span", { textContent: "ids that the model gets:" }), ...pieces);
  };
}

function stepWords(steps, step) {
  const { parts, at, id } = steps[step], isLast = step === steps.length - 1;
  const bytes = "What is left and not in the vocabulary is spelled in bytes, such as <0xC3>.";
  if (at === null) return "The text as single characters, · is a space; one space is put in front. " + (isLast ? bytes : "");
  return `“${visibleText(parts[at])}” was joined: of all neighbours whose union is a piece of the vocabulary, this one (id ${id}) ` +
    `was learned first. ${isLast ? "No two neighbours make a piece any more. " + bytes : ""}`;
}

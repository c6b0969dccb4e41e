// A tensor of a second prompt, put into this run.
import { el, field, redraw } from "./dom.js";
import { percent, shown } from "./format.js";
import { likeliest } from "./sampling.js";
import { probsAt } from "./next.js";

const TOP = 5;

export function makePatch(root, { change, setState, runText }) {
  const input = el("input", { id: "second", spellcheck: "false", autocomplete: "off" });
  const buttons = el("div", { className: "row" }), words = el("div");
  root.append(el("div", { className: "row" }, el("label", { htmlFor: "second", textContent: "second prompt" }), input), buttons, words);
  input.onchange = () => setState({ second: input.value });

  const answer = (now, run, title, position) => {
    const probs = probsAt(run, position), best = likeliest(probs).slice(0, TOP);
    const list = best.map(id => `${shown(now.model.tokenizer, id)} ${percent(probs[id])} %`).join(", ");
    return el("p", { className: "sentence" }, el("b", { textContent: `${title}: ` }), list);
  };
  return function draw(now) {
    if (document.activeElement !== input) input.value = now.state.second;
    const second = runText(now.state.second);
    if (second.problem) {
      words.replaceChildren(el("p", { className: "sentence", textContent: second.problem }));
      buttons.replaceChildren();
      return;
    }
    const { run } = second, shared = Math.min(run.tokens.length, now.run.tokens.length);
    const put = el("button", { key: "put", textContent: `put its ${now.name} into this run`,
      onclick: () => change({ kind: "patch", name: now.name, text: now.state.second }) });
    redraw(buttons, put, el("span", { textContent: `at positions 0 to ${shared - 1}, which both have; choose the tensor on the left` }));
    const tokens = run.tokens.map((id, t) => `${t} ${shown(now.model.tokenizer, id)}`).join(" · ");
    words.replaceChildren(el("p", { className: "sentence", textContent: `Its tokens: ${tokens}` }),
      answer(now, run, "second prompt, after its last token", run.tokens.length - 1),
      answer(now, now.base, "this prompt as trained", Math.min(now.position, now.base.tokens.length - 1)),
      ...(now.isChanged ? [answer(now, now.run, "this run", now.position)] : []));
  };
}

// A tensor of a second prompt, put into this run.
import { el, para, redraw, row } from "./dom.js";
import { positionsIn } from "./differ.js";
import { percent, shown } from "./format.js";
import { likeliest } from "./sampling.js";
import { probsAt } from "./logits.js";

const TOP = 5;

export function makePatch(root, { change, setState, runText }) {
  const input = el("input", { id: "second", spellcheck: "false", autocomplete: "off" });
  const buttons = row(), words = el("div");
  root.append(row(el("label", { htmlFor: "second", textContent: "second prompt" }), input), buttons, words);
  input.onchange = () => setState({ second: input.value });

  function drawButtons(now, run) {
    const shared = Math.min(run.tokens.length, now.run.tokens.length);
    const put = el("button", { key: "put", textContent: `put its ${now.name} into this run`,
      onclick: () => change({ kind: "patch", name: now.name, text: now.state.second }) });
    const where = `at positions 0 to ${shared - 1}, which both have; choose the tensor on the left`;
    redraw(buttons, put, el("span", { textContent: where }));
  }
  return function draw(now) {
    if (document.activeElement !== input) input.value = now.state.second;
    const { run, problem } = runText(now.state.second);
    if (problem) {
      words.replaceChildren(para(problem));
      buttons.replaceChildren();
      return;
    }
    drawButtons(now, run);
    words.replaceChildren(...answers(now, run));
  };
}

function answers(now, second) {
  const { tokenizer } = now.model, name = id => shown(tokenizer, id);
  const answer = (title, run, position) => {
    const probs = probsAt(run, position);
    const list = likeliest(probs).slice(0, TOP).map(id => `${name(id)} ${percent(probs[id])} %`).join(", ");
    return para(el("b", { textContent: `${title}: ` }), list);
  };
  const lines = [para("Its tokens: " + second.tokens.map((id, t) => `${t} ${name(id)}`).join(" · ")),
    answer("second prompt, after its last token", second, second.tokens.length - 1)];
  const at = positionsIn(now.base, now.run)[now.position];
  if (at !== null) lines.push(answer("this prompt as trained", now.base, at));
  return now.isChanged ? [...lines, answer("this run", now.run, now.position)] : lines;
}

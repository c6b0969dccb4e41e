// Bug mode: the classic mistakes as switches; the first tensor that is wrong, and the text that comes out.
import { differences } from "./differ.js";
import { el, link, para, redraw } from "./dom.js";
import { firstWrong } from "./traces.js";

const NEW_TOKENS = 20;
const NOTHING = "Each switch is a mistake that ports of Llama are known for. Turn one on: the page names the first " +
  "tensor that it makes wrong, and what the model writes then, always taking the likeliest token.";

export function makeMistakes(root, { change, undo, go, withoutMistakes, continuation }) {
  const list = el("div", { className: "bugs scroll", role: "group", "aria-label": "Mistakes" });
  const report = el("div", { className: "report" });
  let seen = "";
  root.append(list, report);

  function bugSwitch(bug, isOn) {
    const part = { kind: "bug", bug: bug.name };
    return el("button", { className: "bug", textContent: bug.what, key: bug.name, title: bug.name, "aria-pressed": isOn,
      onclick: () => isOn ? undo(part) : change(part) });
  }
  function describe(now, active) {
    const bugs = active.flatMap(({ what, symptom, fix }) =>
      [el("h2", { textContent: what }), para(`Symptom: ${symptom}.`), para(`To mend it: ${fix}.`)]);
    return [...bugs, para(...firstWords(now)), ...written(continuation(now, NEW_TOKENS))];
  }
  function firstWords(now) {
    const wrong = firstWrong(differences(now.run.trace, withoutMistakes(now).trace), now.run.trace);
    if (!wrong) return ["No number of this run is wrong: this text does not show the mistake."];
    const toIt = link(wrong.name, "first", "go to the number that is farthest off", () => go(wrong.name, wrong.index));
    return ["The first wrong tensor is ", toIt, "."];
  }
  function scrollToActive(names) {                        // when another one was turned on, from a link for example
    if (names === seen) return;
    seen = names;
    const first = list.querySelector("[aria-pressed=true]");
    if (first) list.scrollTop = first.offsetTop - list.offsetTop;
  }
  return function draw(now) {
    const on = new Set(now.state.changes.filter(c => c.kind === "bug").map(c => c.bug));
    const active = now.model.bugs.filter(bug => on.has(bug.name));
    redraw(list, ...now.model.bugs.map(bug => bugSwitch(bug, on.has(bug.name))));
    if (!list.contains(document.activeElement)) scrollToActive([...on].join());
    redraw(report, ...(active.length ? describe(now, active) : [para(NOTHING)]));
  };
}

function written(texts) {
  const text = (title, words) => para(el("b", { textContent: `${title}: ` }), words);
  return texts ? [text("It writes", texts.now), text("as trained", texts.trained)] : [text("It writes", "…")];
}

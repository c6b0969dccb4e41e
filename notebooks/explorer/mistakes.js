// Bug mode: the classic mistakes as switches; the first tensor that is wrong, and the text that comes out.
import { differences } from "./differ.js";
import { el, redraw } from "./dom.js";
import { firstWrong } from "./traces.js";

const NEW_TOKENS = 20;

export function makeMistakes(root, { change, undo, go, continuation }) {
  const list = el("div", { className: "bugs scroll", role: "group", "aria-label": "Mistakes" }), report = el("div", { className: "report" });
  root.append(list, report);

  function bugSwitch(now, bug) {
    const part = { kind: "bug", bug: bug.name }, isOn = now.state.changes.some(c => c.kind === "bug" && c.bug === bug.name);
    return el("button", { textContent: bug.what, key: bug.name, title: bug.name, "aria-pressed": isOn, className: "bug",
      onclick: () => isOn ? undo(part) : change(part) });
  }
  function describe(now, active) {
    const wrong = firstWrong(differences(now.run.trace, now.base.trace), now.run.trace);
    const link = wrong && el("button", { className: "link", textContent: wrong.name, key: "first", onclick: () => go(wrong.name, wrong.index) });
    const first = wrong ? ["The first wrong tensor is ", link, "."] : ["No number of this run is wrong: the prompt does not show it."];
    const bugs = active.flatMap(bug => [el("h2", { textContent: bug.what }), el("p", { className: "sentence", textContent: `Symptom: ${bug.symptom}.` }),
      el("p", { className: "sentence", textContent: `Mended: ${bug.fix}.` })]);
    const texts = continuation(now, NEW_TOKENS);
    const written = texts ? [text("It writes", texts.now), text("as trained", texts.trained)] : [text("It writes", "…")];
    return [...bugs, el("p", { className: "sentence" }, ...first), ...written];
  }
  const text = (label, words) => el("p", { className: "sentence" }, el("b", { textContent: `${label}: ` }), words);

  return function draw(now) {
    const on = new Set(now.state.changes.filter(c => c.kind === "bug").map(c => c.bug));
    const active = now.model.bugs.filter(bug => on.has(bug.name));
    redraw(list, ...now.model.bugs.map(bug => bugSwitch(now, bug)));
    const nothing = [el("p", { className: "sentence", textContent: "Each switch is a mistake that ports of Llama are known for. Turn one " +
      "on: the page names the first tensor that it makes wrong, and what the model writes then, always taking the likeliest token." })];
    redraw(report, ...(active.length ? describe(now, active) : nothing));
  };
}

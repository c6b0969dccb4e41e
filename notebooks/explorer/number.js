// Right: one number. In words, its formula, what was added up, the steps after that, where it stands in paper and code.
import { explain } from "./explain.js";
import { el, field, redraw } from "./dom.js";
import { num, placeWords, shown, valueAt } from "./format.js";
import { drawStanding } from "./standing.js";
import { drawGroups, drawTerms } from "./terms.js";
import { drawPicture } from "./picture.js";

const ROUNDING = 1e-4;                                    // what is farther than that is no rounding
const SUPERSCRIPT = "⁰¹²³⁴⁵⁶⁷⁸⁹";

const power = x => x.toExponential(0).replace(/e-(\d+)/, (_, n) => ` × 10⁻${[...n].map(d => SUPERSCRIPT[d]).join("")}`)
  .replace("e+0", "");

export function makeNumber(root, { go, setState, setNumber, back }) {
  const made = el("div"), checks = el("div"), standing = el("div");
  const input = el("input", { type: "number", step: "any" });
  const form = el("form", { className: "edit" }, field("set it to", input),
    el("button", { type: "submit", textContent: "run with it" }));
  let standsFor = "", seen = "";
  root.append(made, el("div", {}, checks, form, standing));
  const link = ref => ref.name ? el("button", { className: "link", textContent: num(ref.value, 4),
    key: `to ${ref.name} ${ref.index}`, title: `go to ${ref.name}[${ref.index.join(", ")}]`,
    onclick: () => go(ref.name, ref.index) }) : el("span", { textContent: num(ref.value, 4) });

  function heading(now) {
    const place = `${now.name}[${now.index.join(", ")}]`, value = valueAt(now.x, now.index);
    const trained = now.base.trace.get(now.name), file = now.comparison?.tensors.get(now.name);
    const big = el("p", { className: "big" }, el("output", { textContent: num(value, 6) }));
    const beside = (text, x) => {
      const other = x && x.shape.join() === now.x.shape.join() ? valueAt(x, now.index) : value;
      if (other !== value) big.append(el("span", { className: "was", textContent: `${text}: ${num(other, 6)}` }));
    };
    if (now.isChanged) beside("as trained", trained);
    beside("in the file", file);
    const backButton = el("button", { className: "back", textContent: "← back", key: "back",
      title: "to what was shown before (Alt + ←)", onclick: back });
    return [...(now.canGoBack ? [backButton] : []), el("h2", {}, el("code", { textContent: place })),
      el("p", { className: "words", textContent: placeWords(now, now.name, now.index) }), big];
  }
  function whyButton({ index }) {                         // from a logit to the parts of the model that made it
    const toParts = () => setState({ tab: "logit", token: index[1], mode: "adds" });
    return el("p", { className: "why" }, el("button", { textContent: "which parts of the model made it?", key: "why",
      title: "opens “Why this token” below", onclick: toParts }));
  }
  function formula(explained) {
    const bracket = v => v < 0 ? `(${num(v, 3)})` : num(v, 3);
    const parts = [el("p", { className: "formula", innerHTML: explained.formula })];
    if (explained.filled) parts.push(el("p", { className: "filled", textContent: "= " + explained.filled(bracket) }));
    return parts;
  }
  function steps(explained) {
    if (explained.products && !explained.steps.length) return [];
    const line = (text, value, ref) =>
      [el("dt", { textContent: text }), el("dd", {}, ref?.name ? link(ref) : num(value, 6))];
    return [el("dl", { className: "steps" }, ...explained.steps.flatMap(step => line(...step)),
      el("dt", { className: "total", textContent: "result" }),
      el("dd", { className: "total", textContent: num(explained.result, 6) }))];
  }
  function check(explained, value) {
    const distance = explained.result === value ? 0 : Math.abs(explained.result - value);
    const same = !(distance > ROUNDING * Math.max(1e-3, Math.abs(value)));
    const text = !same ? "The run holds another number: a change stands between."
      : distance ? `Computed again in float64 just now; the run, stored in float32, is ${power(distance)} away.`
        : "Computed again just now: the same number.";
    const note = explained.note ? [el("p", { className: "note", textContent: explained.note })] : [];
    if (explained.note && same) return note;              // the formula gives what was replaced
    return [...note, el("p", { className: same ? "check" : "check other", textContent: text })];
  }
  function drawForm({ name, x, index }, place) {                 // a number that somebody is typing stays
    const value = valueAt(x, index), start = Number.isFinite(value) ? Number(value.toPrecision(6)) : 0;
    if (document.activeElement !== input || place !== seen) input.value = start;
    form.onsubmit = event => {
      event.preventDefault();
      if (input.value !== "") setNumber(name, [...index], Number(input.value));
    };
  }
  function startAtTop(place) {                            // another number is read from its beginning
    if (place !== seen) root.scrollTop = 0;
    seen = place;
  }
  return function draw(now) {
    const explained = explain(now.name, now.index, now.run), value = valueAt(now.x, now.index);
    const place = [now.name, ...now.index].join();
    const token = t => `${t} “${shown(now.model.tokenizer, now.run.tokens[t])}”`;
    redraw(made, ...heading(now), ...(now.short === "logits" ? [whyButton(now)] : []), ...formula(explained),
      ...(explained.products ? drawTerms(explained, { token, link, go, ramps: now.ramps }) : []),
      ...(explained.groups ? [drawGroups(explained.groups)] : []),
      ...(explained.picture ? [drawPicture(explained.picture)] : []),
      ...steps(explained));
    redraw(checks, ...check(explained, value));
    drawForm(now, place);
    startAtTop(place);
    if (standsFor === now.short) return;
    standsFor = now.short;
    standing.replaceChildren(...drawStanding(now.model.reference[now.short]));
    scrollToLine(standing);
  };
}

function scrollToLine(root) {
  for (const code of root.querySelectorAll("pre")) {
    const line = code.querySelector(".hit");
    if (line) code.scrollTop = line.offsetTop - code.offsetTop - 40;
  }
}

// Top: every change as a chip that can be removed.
import { byId, el, redraw } from "./dom.js";
import { sentence } from "./changes.js";

export function makeChips({ undo, reset }) {
  const root = byId("chips");
  const chip = (text, key, title, onclick) =>
    el("li", {}, el("button", { className: "undo", textContent: text, key, title, onclick }));
  return function draw(now) {
    const chips = now.state.changes.map((change, k) => chip(`${sentence(change, now.model.config)} ✕`, `change ${k}`,
      "undo this change", () => undo(change)));
    if (chips.length) chips.push(chip("all as trained", "reset", "undo all changes", reset));
    redraw(root, ...chips);
  };
}

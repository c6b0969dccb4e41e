// Bottom: the tools, one at a time. Only the one that is seen is drawn.
import { el } from "./dom.js";
import { oneStop, rovingKeys } from "./roving.js";

// tabs: [{id, label, make(panel) -> draw(now)}, ...]
export function makeTabs(root, tabs, choose) {
  const list = el("div", { role: "tablist", className: "tabs", "aria-label": "Tools", "data-follow": true });
  const panels = new Map();
  for (const { id, label, make } of tabs) {
    const button = el("button", { role: "tab", id: `tab-${id}`, textContent: label, "aria-controls": `panel-${id}`,
      onclick: () => choose(id) });
    const panel = el("div", { role: "tabpanel", id: `panel-${id}`, "aria-labelledby": `tab-${id}`, tabIndex: 0,
      className: `panel ${id}` });
    list.append(button);
    panels.set(id, { button, panel, draw: make(panel) });
  }
  rovingKeys(list);
  const problem = el("p", { className: "sentence", hidden: true });
  root.append(list, problem, ...[...panels.values()].map(({ panel }) => panel));

  function drawPanel({ panel, draw }, now) {              // a run without an answer (not finite) still has a matrix
    problem.hidden = true;
    try {
      draw(now);
    } catch (error) {
      panel.hidden = true;
      problem.hidden = false;
      problem.textContent = `Nothing can be shown here: ${error.message}.`;
    }
  }

  return function draw(now) {
    const chosen = now.state.tab;
    for (const [id, { button, panel }] of panels) {
      button.setAttribute("aria-selected", id === chosen);
      panel.hidden = id !== chosen;
    }
    oneStop(list, panels.get(chosen).button);
    drawPanel(panels.get(chosen), now);
  };
}

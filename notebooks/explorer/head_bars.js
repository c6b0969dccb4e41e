// Above each small map: the head's name, which shows it alone, and its switch.
import { el, redraw } from "./dom.js";

const ROOM_FOR_GROUP = 155;                               // pixels that "head 3 · K/V head 0" and the switch need

export function makeHeadBars(root, { showHead, toggleHead }) {
  let drawn = "";
  const name = ({ head, w }, spec) => el("button", { key: `head ${head}`, title: "show this head alone",
    textContent: w < ROOM_FOR_GROUP ? `head ${head}` : spec.headLabel(head), onclick: () => showHead(head) });
  const onOff = (panel, spec) => el("label", { title: "switch the head on or off" },
    el("input", { type: "checkbox", checked: !spec.off.has(panel.head), key: `on ${panel.head}`,
      onchange: () => toggleHead(panel.head), "aria-label": `on: head ${panel.head}` }), "on");
  const bar = (panel, spec) => el("div", { className: "head-bar",
    style: `left:${panel.x}px;top:${panel.y - 22}px;width:${panel.w}px` },
  name(panel, spec), ...(spec.off ? [onOff(panel, spec)] : []));

  return function draw(panels, spec) {
    const now = JSON.stringify([panels.map(p => [p.head, p.x, p.y, p.w]), [...(spec.off ?? [])], spec.name]);
    if (now === drawn) return;
    drawn = now;
    redraw(root, ...panels.map(panel => bar(panel, spec)));
  };
}

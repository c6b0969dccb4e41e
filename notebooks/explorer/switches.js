// Top: the parts of the chosen layer as switches. A switch turns its part off, or scales it by the factor beside it.
import { byId, el, field, redraw } from "./dom.js";
import { same } from "./changes.js";
import { num } from "./format.js";

export function makeSwitches({ change }) {
  const root = byId("switches"), row = el("div", { className: "row" });
  const factor = el("input", { type: "number", step: 0.25, value: 0, title: "0 is off, 1 as trained" });
  const scale = field("switched-off parts are multiplied by", factor);
  root.append(row, scale);

  function toggle(now, part) {
    const was = now.state.changes.find(c => same(c, part));
    change({ ...part, scale: was ? 1 : Number(factor.value) });
  }
  function partSwitch(now, text, part, name = text) {
    const was = now.state.changes.find(c => same(c, part)), isOn = !was;
    const shown = was && was.scale !== 0 ? `${text} ×${num(was.scale, 2)}` : text;
    const label = shown.replace(text, name);
    const state = isOn ? "" : was.scale === 0 ? "off" : "scaled";
    return el("button", { className: `switch ${state}`, textContent: shown,
      key: name, "aria-pressed": isOn, "aria-label": label, title: isOn ? `${name}: as trained` : `${name}: changed`,
      onclick: () => toggle(now, part) });
  }
  function layerSwitches(now, layer) {
    const heads = Array.from({ length: now.model.config.n_heads }, (_, head) =>
      partSwitch(now, String(head), { kind: "head", layer, head, scale: 0 }, `head ${head}`));
    return [el("b", { textContent: `layer ${layer}` }),
      partSwitch(now, "attention", { kind: "part", layer, part: "attn", scale: 0 }),
      partSwitch(now, "feed-forward", { kind: "part", layer, part: "ffn", scale: 0 }),
      partSwitch(now, "attn_norm", { kind: "norm", layer, norm: "attn_norm", scale: 0 }),
      partSwitch(now, "ffn_norm", { kind: "norm", layer, norm: "ffn_norm", scale: 0 }),
      el("span", { textContent: "heads" }), ...heads];
  }
  return function draw(now) {
    const isFinal = now.name === "norm" || now.name === "logits";
    const final = [el("b", { textContent: "after the last layer" }),
      partSwitch(now, "norm", { kind: "norm", layer: null, norm: "norm", scale: 0 })];
    redraw(row, ...(isFinal ? final : layerSwitches(now, now.openLayer)));
  };
}

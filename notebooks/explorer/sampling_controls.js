// Temperature, top-k, top-p and seed; buttons that draw tokens. The controls stay in place while they are dragged.
import { el } from "./dom.js";
import { MAX_SEED } from "./state.js";

const SLIDERS = [                                         // id, label, from, to, step
  ["temperature", "temperature", 0, 2, 0.05], ["top_k", "top-k", 0, 50, 1], ["top_p", "top-p", 0.05, 1, 0.05],
];

export function makeSampling(root, { setSampling, setSeed, drawTokens, onlyPrompt }) {
  const controls = new Map();
  root.append(el("h2", { textContent: "Draw on" }));
  for (const [key, text, min, max, step] of SLIDERS) {
    const slider = el("input", { type: "range", id: key, min, max, step }), output = el("output", { for: key });
    slider.oninput = () => setSampling({ [key]: Number(slider.value) });
    controls.set(key, { slider, output });
    root.append(el("label", { for: key, textContent: text }), slider, output);
  }
  const seed = el("input", { type: "number", id: "seed", min: 0, step: 1 });
  seed.title = "the same seed draws the same tokens";
  seed.onchange = () => setSeed(Math.max(0, Math.min(MAX_SEED, Math.floor(Number(seed.value)))));
  const button = (text, title, onclick) => el("button", { textContent: text, title, onclick });
  const effect = el("p", { className: "effect" });
  root.append(el("label", { for: "seed", textContent: "seed" }), seed, el("span"),
    el("div", { className: "buttons" }, button("likeliest", "add the likeliest token", () => drawTokens(1, true)),
      button("draw 1", "draw one token", () => drawTokens(1)),
      button("draw 20", "draw twenty tokens", () => drawTokens(20)),
      button("only the prompt", "drop the tokens behind the prompt", onlyPrompt)), effect);

  function words(key, value) {
    const isOff = (key === "top_k" && value === 0) || (key === "top_p" && value === 1);
    if (isOff) return "off";
    return key === "temperature" && value === 0 ? "0: likeliest" : String(value);
  }
  return function draw(now, sentence) {
    for (const [key, { slider, output }] of controls) {
      slider.value = now.state.sampling[key];
      output.textContent = words(key, now.state.sampling[key]);
    }
    if (document.activeElement !== seed) seed.value = now.state.seed;
    effect.textContent = sentence;
  };
}

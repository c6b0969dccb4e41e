// All that a view may need to know: what was chosen, brought into the bounds of the run, and the runs themselves.
import { sameShape } from "./differ.js";
import { namesOf, split } from "./names.js";
import { compareWithFile } from "./traces.js";

// made: {run, base (as trained), tokens (without what a mistake does to them), promptLength};
// chosen: {model, state, file (a dropped trace, or null), ramps}
export function lookAt(made, chosen) {
  const { run, base } = made, { model, state, file } = chosen;
  const name = namesOf(model.config.n_layers).includes(state.selected) ? state.selected : "logits";
  const x = run.trace.get(name), { layer, short } = split(name), openLayer = layer ?? state.openLayer;
  const index = clampIndex(state.index, x.shape);
  const isAlone = x.shape.length === 3 && state.head !== null;
  const comparison = file && compareWithFile(run, file, model.aliases);
  return {
    ...made, ...chosen, name, x, layer, short, openLayer, index, comparison,
    state: { ...state, selected: name, openLayer, index, head: isAlone ? index[0] : null },
    position: index.at(-2),
    isChanged: run !== base,
    inFile: comparison?.byName,
    other: otherTrace(name, x, { trained: base.trace, file: comparison?.tensors }[state.show]),
    live: null,                                           // the cache, while tokens are drawn
  };
}

// The trace that is subtracted from what is shown, if there is one and it has this tensor.
const otherTrace = (name, x, trace) => trace?.has(name) && sameShape(trace.get(name), x) ? trace : null;

function clampIndex(index, shape) {                       // an index of another tensor keeps its position, if it can
  const head = shape.length === 3 ? [0] : [], lastTwo = [index.at(-2) ?? Infinity, index.at(-1) ?? 0];
  const whole = shape.length === index.length ? index : [...head, ...lastTwo];
  return whole.map((i, axis) => Math.max(0, Math.min(shape[axis] - 1, Math.floor(i) || 0)));
}

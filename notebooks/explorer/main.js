// The page: what was chosen, the run that belongs to it, and the views that draw it.
import { unpackWeights } from "./weights.js";
import { makeTokenizer } from "./tokenizer.js";
import { randomFrom } from "./random.js";
import { toText, withChange, same } from "./changes.js";
import { moved, sameShape } from "./differ.js";
import { join, namesOf, split } from "./names.js";
import { byId, nextPaint } from "./dom.js";
import { num, placeWords, valueAt } from "./format.js";
import { END, MAX_TOKENS, freshState, fromHash, toHash } from "./state.js";
import { everyPart, makeRuns } from "./runs.js";
import { makeBackground } from "./background.js";
import { makeTheme } from "./theme.js";
import { listenToKeys } from "./keys.js";
import { openHelp } from "./help.js";
import { makePrompt } from "./prompt.js";
import { makeChips } from "./chips.js";
import { makeSwitches } from "./switches.js";
import { makeWiring } from "./wiring.js";
import { makeTensor } from "./tensor.js";
import { makeNumber } from "./number.js";
import { makeTabs } from "./tabs.js";
import { makeNext } from "./next.js";
import { makeLogit } from "./logit.js";
import { makeRotation } from "./rotation.js";
import { makeNeuron } from "./neuron.js";
import { makeMerges } from "./merges.js";
import { makeCacheView } from "./cache_view.js";
import { makePatch } from "./patch.js";
import { makeMistakes } from "./mistakes.js";
import { compareWithFile, makeTraces } from "./traces.js";

const LONG = 100;                                         // milliseconds, after which the page says what it is doing
const times = { opened: performance.now() };

// ---- What is chosen, and what belongs to it ------------------------------------------------------------------

const model = readModel();
let state = freshState(), runs = null, made = null, now = null, file = null, depth = 0, lastLayer = 3;
let notice = "";                                          // a sentence that stays until something else is chosen
let isWaiting = false, isRendering = false, wantsPush = false, isDragging = false;

function readModel() {
  const { model: name, config, tokenizer, reference, bugs, aliases } = JSON.parse(byId("data").textContent);
  return { name, config, reference, bugs, aliases, tokenizer: makeTokenizer(tokenizer, config), weights: null };
}

function promptTokens() {
  const tokens = runs.encode(state.text);
  return state.keep === null ? tokens : tokens.slice(0, state.keep);
}

function allTokens() {                                    // of the prompt and of what was added; throws a sentence
  const tokens = [...promptTokens(), ...state.extra];
  const many = `This is ${tokens.length} tokens, and the page shows up to ${MAX_TOKENS}.`;
  if (tokens.length > MAX_TOKENS) throw Error(many);
  return tokens;
}

function lookAt({ run, base, tokens, promptLength }) {        // all that a view may need to know
  const names = namesOf(model.config.n_layers);
  if (!names.includes(state.selected)) state.selected = "logits";
  const name = state.selected, x = run.trace.get(name), { layer, short } = split(name);
  state.index = clampIndex(state.index, x.shape);
  if (x.shape.length < 3) state.head = null;
  else if (state.head !== null) state.head = state.index[0];
  lastLayer = Math.min(layer ?? lastLayer, model.config.n_layers - 1);
  const comparison = file && compareWithFile(run, file, model.aliases);
  return {
    model, state, run, base, tokens, promptLength, file, comparison, name, x, layer, short,
    index: state.index, position: state.index.at(-2), openLayer: lastLayer, lastLayer,
    isChanged: run !== base, moved: run === base ? new Map() : moved(run, base),
    inFile: comparison?.byName, other: otherTrace(name, x, base, comparison), ramps: ramps(),
    canGoBack: false, live: null,
  };
}

// The trace that is subtracted from what is shown, if any.
function otherTrace(name, x, base, comparison) {
  const trace = { trained: base.trace, file: comparison?.tensors }[state.show];
  return trace?.has(name) && sameShape(trace.get(name), x) ? trace : null;
}

function clampIndex(index, shape) {                       // an index of another tensor keeps its position, if it can
  const head = shape.length === 3 ? [0] : [], lastTwo = [index.at(-2) ?? END, index.at(-1) ?? 0];
  const whole = shape.length === index.length ? index : [...head, ...lastTwo];
  return whole.map((i, axis) => Math.max(0, Math.min(shape[axis] - 1, Math.floor(i) || 0)));
}

// ---- Drawing -------------------------------------------------------------------------------------------------

function update({ push = false } = {}) {
  wantsPush ||= push;
  if (isWaiting || !runs) return;
  isWaiting = true;
  requestAnimationFrame(render);
}

async function render() {
  if (isRendering) {
    requestAnimationFrame(render);
    return;
  }
  isWaiting = false;
  isRendering = true;
  const push = wantsPush;
  wantsPush = false;
  try {
    await compute();
    showProblem(notice);
  } catch (error) {
    showProblem(error.message);
    if (!made) await computeAnyway(error.message);
  }
  drawAll(push);
  isRendering = false;
}

async function computeAnyway(problem) {                   // the link that opened the page cannot be shown
  notice = problem;
  state = freshState();
  await compute();
}

async function compute() {
  const tokens = allTokens(), { changes } = state;
  if (runs.expected(tokens, changes) > LONG) {
    say(`computing ${tokens.length} tokens …`);
    await nextPaint();
  }
  const began = performance.now();
  const base = runs.run(tokens, []), run = changes.length ? runs.run(tokens, changes) : base;
  if (run !== made?.run) for (const jobs of [sweeps, texts, trials]) jobs.stop();
  made = { run, base, tokens, promptLength: promptTokens().length };
  times.compute = performance.now() - began;
}

function drawAll(push) {
  const began = performance.now(), { run } = made;
  now = lookAt(made);
  writeHash(push);
  now.canGoBack = depth > 0;
  for (const draw of views) draw(now);
  say(`${run.tokens.length} tokens in ${run.ms.toFixed(0)} ms`);
  byId("say").textContent = `${now.name}, ${placeWords(now, now.name, now.index)}: ${num(valueAt(now.x, now.index))}`;
  times.draw = performance.now() - began;
  times.first ??= performance.now();
  times.drawn = (times.drawn ?? 0) + 1;
}

const say = text => { byId("status").textContent = text; };

function showProblem(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = text === "";
}

function writeHash(push) {
  const hash = toHash(state);
  if (hash === location.hash) return;
  if (push) depth += 1;
  history[push ? "pushState" : "replaceState"]({ depth }, "", hash);
}

function readHash() {
  depth = history.state?.depth ?? 0;
  notice = "";
  try {
    state = location.hash.length > 1 ? fromHash(location.hash, model.config) : freshState();
  } catch (error) {
    state = freshState();
    notice = `This link cannot be read: ${error.message}.`;
  }
}

// ---- What a person can do ------------------------------------------------------------------------------------

function setState(patch, { push = true } = {}) {
  state = { ...state, ...patch };
  notice = "";
  update({ push });
}

function go(name, index, { stay = false } = {}) {         // to a tensor, and a number in it
  const head = stay ? state.head : null;
  setState({ selected: name, index: index ? [...index] : state.index, head });
}

function setPosition(position) {
  setState({ index: [...state.index.slice(0, -2), position, state.index.at(-1)] });
}

const atEnd = () => [...state.index.slice(0, -2), END, state.index.at(-1)];

const change = (one, options) => setState({ changes: withChange(state.changes, one, model.config) }, options);

function changeWhileDragging(one) {                       // one step back undoes the whole drag
  change(one, { push: !isDragging });
  isDragging = true;
}

const actions = {
  go, setState, changeWhileDragging,
  change: one => {
    isDragging = false;
    change(one);
  },
  undo: one => setState({ changes: state.changes.filter(c => !same(c, one)) }),
  reset: () => setState({ changes: [] }),
  back: () => history.back(),
  pick: setPosition,
  setText: text => setState({ text, keep: null, extra: [], index: atEnd() }),
  setShow: show => setState({ show }),
  setNumber: (name, index, value) => change({ kind: "set", name, index, value }),
  showHead: head => setState({ head, index: head === null ? state.index : [head, ...state.index.slice(1)] }),
  toggleHead: head => {
    const part = { kind: "head", layer: now.layer, head, scale: 0 }, isOff = state.changes.some(c => same(c, part));
    change({ ...part, scale: isOff ? 1 : 0 });
  },
  setSampling: patch => setState({ sampling: { ...state.sampling, ...patch } }, { push: false }),
  setSeed: seed => setState({ seed }),
  onlyPrompt: () => setState({ keep: null, extra: [], index: atEnd() }),
  branch, drawTokens, runText, sweep, continuation, tryMistakes, openFile,
  closeFile: () => {
    file = null;
    setState({ show: state.show === "file" ? "run" : state.show });
  },
};

function branch(id) {                                     // go on with a token after the chosen position
  const { promptLength } = now, kept = now.position + 1, isInPrompt = kept < promptLength;
  const keep = isInPrompt ? kept : state.keep, before = isInPrompt ? [] : state.extra.slice(0, kept - promptLength);
  setState({ keep, extra: [...before, id], index: atEnd() });
}

async function drawTokens(count, isGreedy = false) {      // number k of the seed's random numbers draws token k
  const { tokens } = now, room = MAX_TOKENS - tokens.length, random = randomFrom(state.seed);
  state.extra.forEach(random);
  const options = { ...state.sampling, count: Math.min(count, room), random, stop: [model.tokenizer.eos] };
  if (isGreedy) options.temperature = 0;
  const extra = [...state.extra], began = performance.now();
  for (const { id, cache } of runs.draw(tokens, state.changes, options)) {
    if (id === model.tokenizer.eos) break;
    extra.push(id);
    showDrawing([...tokens, ...extra.slice(state.extra.length)], cache);
    await nextPaint();
  }
  times.drawing = { tokens: extra.length - state.extra.length, ms: performance.now() - began };
  setState({ extra, index: atEnd() });
  if (count > room) notice = `The page shows up to ${MAX_TOKENS} tokens: drop some to draw on.`;
}

function showDrawing(tokens, cache) {                     // while tokens are drawn: the text, and the cache that fills
  say(`drawing: ${tokens.length} tokens …`);
  drawPrompt({ ...now, run: { ...now.run, tokens } });
  if (state.tab === "cache") drawTabs({ ...now, live: cache });
}

function runText(text) {                                  // {run} of another prompt as trained, or {problem}
  try {
    return { run: runs.run(runs.encode(text), []) };
  } catch (error) {
    return { problem: error.message };
  }
}

async function openFile(chosen) {
  try {
    file = { name: chosen.name, buffer: await chosen.arrayBuffer() };
    setState({ tab: "traces" });
  } catch (error) {
    notice = `${chosen.name}: ${error.message}`;
    update();
  }
}

// ---- Many runs in a row --------------------------------------------------------------------------------------

const [sweeps, texts, trials] = [0, 1, 2].map(() => makeBackground(say, update));

function sweep({ run, tokens, position }) {               // Map(part -> probabilities without it), or null: not yet
  const parts = new Map(everyPart(model.config));
  const work = key => runs.probsWithout(tokens, run.changes, parts.get(key), position);
  return sweeps.results(`${run.id} ${position}`, [...parts.keys()], work, "running without each part");
}

function continuation({ run, base, tokens }, count) {     // {now, trained}: texts, or null: not yet
  const work = which => runs.likeliestText(tokens, which === "now" ? run.changes : [], count);
  const found = texts.results(`${run.id} ${base.id}`, ["now", "trained"], work, "writing");
  return found && Object.fromEntries(found);
}

// {bug}: the mistake that gives a file's numbers, null if none does; or null: not yet.
function tryMistakes({ base, tokens, file: theirs }) {
  const work = bug => runs.agreeing(tokens, bug, theirs);
  const found = trials.results(`${theirs.name} ${base.id}`, model.bugs, work, "trying each mistake");
  if (!found) return null;
  const [best, count] = [...found].sort((a, b) => b[1] - a[1])[0];
  return { bug: count > 0 ? best : null };
}

// ---- Start ---------------------------------------------------------------------------------------------------

const TABS = [
  { id: "next", label: "Next token", make: panel => makeNext(panel, actions) },
  { id: "logit", label: "One logit", make: panel => makeLogit(panel, actions) },
  { id: "rotation", label: "Rotation", make: panel => makeRotation(panel, actions) },
  { id: "neuron", label: "One neuron", make: panel => makeNeuron(panel, actions) },
  { id: "tokens", label: "Tokens", make: panel => makeMerges(panel, actions) },
  { id: "cache", label: "Cache", make: panel => makeCacheView(panel, actions) },
  { id: "patch", label: "Second prompt", make: panel => makePatch(panel, actions) },
  { id: "mistakes", label: "Mistakes", make: panel => makeMistakes(panel, actions) },
  { id: "traces", label: "Traces", make: panel => makeTraces(panel, actions) },
];
const ramps = makeTheme(update), tensorView = makeTensor(byId("tensor"), actions);
const drawPrompt = makePrompt(actions), drawTabs = makeTabs(byId("dock"), TABS, tab => setState({ tab }));
const views = [drawPrompt, makeChips(actions), makeSwitches(actions), makeWiring(byId("wiring"), actions),
  tensorView.draw, makeNumber(byId("number"), actions), drawTabs];

function listen() {
  listenToKeys({ openHelp, stepLayer });
  byId("help").onclick = openHelp;
  byId("anyway").onclick = () => document.documentElement.classList.add("anyway");
  addEventListener("popstate", () => {
    readHash();
    update();
  });
  addEventListener("dragover", event => event.preventDefault());
  addEventListener("drop", event => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) openFile(event.dataTransfer.files[0]);
  });
}

function stepLayer(step) {
  const { layer, short } = split(state.selected), to = layer + step;
  if (layer !== null && to >= 0 && to < model.config.n_layers) go(join(to, short));
}

async function start() {
  readHash();
  listen();
  await nextPaint();                                      // the empty page is seen first
  const node = byId("weights"), { weights } = JSON.parse(byId("data").textContent);
  model.weights = await unpackWeights(node.textContent, weights, model.config);
  node.remove();
  times.weights = performance.now();
  runs = makeRuns(model);
  window.explorer = { times, matrix: tensorView.matrix, get now() { return now; } };      // for tests and measure.py
  update();
}

start().catch(error => {
  say("");
  showProblem(`This page cannot be read: ${error.message}.`);
  throw error;
});

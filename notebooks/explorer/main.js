// The page: what was chosen, the run that belongs to it, and the views that draw it.
import { unpackWeights } from "./weights.js";
import { makeTokenizer } from "./tokenizer.js";
import { randomFrom } from "./random.js";
import { same, withChange } from "./changes.js";
import { join, split } from "./names.js";
import { byId, nextPaint } from "./dom.js";
import { num, placeWords, valueAt } from "./format.js";
import { END, TOOLS, freshState, fromHash, toHash } from "./state.js";
import { everyPart, makeRuns } from "./runs.js";
import { lookAt } from "./look.js";
import { makeBackground } from "./background.js";
import { makeTheme } from "./theme.js";
import { listenToKeys } from "./keys.js";
import { markMore, watchMore } from "./more.js";
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
import { makeTraces } from "./traces.js";

const LONG = 100;                                         // milliseconds, after which the page says what it is doing
const times = { opened: performance.now() };

// ---- What is chosen, and what belongs to it ------------------------------------------------------------------

const model = readModel();
let state = fresh();
let runs = null;                                          // makes runs, once the weights are there
let made = null;                                          // the last run, and the same as trained
let now = null;                                           // what the views have drawn
let file = null;                                          // a trace that was dropped: {name, buffer, opened}
let depth = 0;                                            // how many steps back there are within this page
let notice = "";                                          // a sentence that stays until something else is chosen
let isWaiting = false, isRendering = false;               // an update that is to come, one that is under way
let wantsPush = false;                                    // whether it becomes a step of the history
let isDragging = false;
let choices = 0;                                          // how often something was chosen

function readModel() {
  const { tokenizer, weights, ...data } = JSON.parse(byId("data").textContent);
  return { ...data, tokenizer: makeTokenizer(tokenizer, data.config), layout: weights, weights: null };
}

function fresh() {                                        // a model without a tokenizer takes ids for a text
  return model.tokenizer.bos === null ? { ...freshState(), text: "0 1 2 3" } : freshState();
}

function promptTokens() {
  const tokens = runs.encode(state.text);
  return state.keep === null ? tokens : tokens.slice(0, state.keep);
}

function allTokens() {                                    // of the prompt and of what was added; throws a sentence
  const tokens = [...promptTokens(), ...state.extra];
  const many = `This is ${tokens.length} tokens, and the page shows up to ${runs.mostTokens}.`;
  if (tokens.length > runs.mostTokens) throw Error(many);
  return tokens;
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
    await tryToCompute();
    if (isWaiting) wantsPush ||= push;                    // meanwhile something else was chosen: that is drawn
    else drawAll(push);
  } finally {
    isRendering = false;
  }
}

async function tryToCompute() {                           // where it cannot be done, the last run stays
  try {
    await compute();
    showProblem(notice);
  } catch (error) {
    showProblem(error.message);
    if (!made) await computeAnyway(error.message);
  }
}

async function computeAnyway(problem) {                   // the link that opened the page cannot be shown
  notice = problem;
  state = fresh();
  await compute();
}

async function compute() {
  const tokens = allTokens(), promptLength = promptTokens().length, { changes } = state;
  if (runs.expected(tokens, changes) > LONG && !isDragging) {                 // a drag says it once
    say(`computing ${tokens.length} tokens …`);
    await nextPaint();
  }
  const began = performance.now();
  const base = runs.run(tokens, []), run = changes.length ? runs.run(tokens, changes) : base;
  if (run !== made?.run) for (const jobs of [sweeps, singles, texts, trials]) jobs.stop();
  made = { run, base, tokens, promptLength };
  times.compute = performance.now() - began;
}

function drawAll(push) {
  const began = performance.now(), { run } = made;
  now = lookAt(made, { model, state, file, ramps: ramps() });
  state = now.state;
  writeHash(push);
  now.canGoBack = depth > 0;
  for (const draw of views) draw(now);
  markMore();
  say(`${run.tokens.length} token${run.tokens.length === 1 ? "" : "s"} in ${run.ms.toFixed(0)} ms`);
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
  if (isDragging && !push) return;                        // once, when the drag has ended: browsers are slow at it
  const hash = toHash(state);
  if (hash === location.hash) return;
  if (push) depth += 1;
  history[push ? "pushState" : "replaceState"]({ depth }, "", hash);
}

function readHash() {
  choices += 1;
  depth = history.state?.depth ?? 0;
  notice = "";
  try {
    const hash = location.hash.length > 1 ? location.hash : model.start;
    state = hash ? fromHash(hash, model.config, fresh()) : fresh();
  } catch (error) {
    state = fresh();
    notice = `This link cannot be read: ${error.message}.`;
  }
}

// ---- What a person can do ------------------------------------------------------------------------------------

function setState(patch, { push = true } = {}) {
  choices += 1;
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
    const push = !isDragging;                             // the drag itself was a step already
    isDragging = false;
    change(one, { push });
  },
  undo: one => setState({ changes: state.changes.filter(c => !same(c, one)) }),
  reset: () => setState({ changes: [] }),
  back: () => history.back(),
  pick: setPosition,
  setText: text => text !== state.text && setState({ text, keep: null, extra: [], index: atEnd() }),
  setShow: show => setState({ show }),
  setNumber: (name, index, value) => change({ kind: "set", name, index, value }),
  showHead: head => setState({ head, index: head === null ? state.index : [head, ...state.index.slice(1)] }),
  toggleHead: head => {
    const part = { kind: "head", layer: now.layer, head, scale: 0 };
    const isOff = state.changes.some(c => same(c, part) && c.scale === 0);
    change({ ...part, scale: isOff ? 1 : 0 });
  },
  setSampling: patch => setState({ sampling: { ...state.sampling, ...patch } }, { push: false }),
  setSeed: seed => setState({ seed }),
  onlyPrompt: () => setState({ keep: null, extra: [], index: atEnd() }),
  branch, drawTokens, runText, withoutMistakes, sweep, withoutOne, continuation, tryMistakes, openFile,
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
  const { tokens } = now, room = runs.mostTokens - tokens.length, chosen = choices, began = performance.now();
  const extra = [...state.extra];
  try {
    const random = randomFrom(state.seed);
    extra.forEach(random);
    const options = { ...state.sampling, count: Math.min(count, room), random, stop: [model.tokenizer.eos] };
    if (isGreedy) options.temperature = 0;
    for (const { id, cache } of runs.draw(tokens, state.changes, options)) {
      if (id === model.tokenizer.eos) break;
      extra.push(id);
      showDrawing([...tokens, ...extra.slice(state.extra.length)], cache);
      await nextPaint();
      if (choices !== chosen) return;                     // something else was chosen: what was drawn is dropped
    }
  } catch (error) {
    notice = `No token can be drawn: ${error.message}.`;
    update();
    return;
  }
  times.drawing = { tokens: extra.length - state.extra.length, ms: performance.now() - began };
  setState({ extra, index: atEnd() });
  if (count > room) notice = `The page shows up to ${runs.mostTokens} tokens: drop some to draw on.`;
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

function withoutMistakes({ run, tokens }) {               // the same run, with its other changes alone
  return runs.run(tokens, run.changes.filter(c => c.kind !== "bug"));
}

async function openFile(chosen) {
  try {
    file = { name: chosen.name, buffer: await chosen.arrayBuffer(), opened: performance.now() };
    setState({ tab: "traces" });
  } catch (error) {
    notice = `${chosen.name}: ${error.message}`;
    update();
  }
}

// ---- Many runs in a row --------------------------------------------------------------------------------------

const [sweeps, singles, texts, trials] = [0, 1, 2, 3].map(() => makeBackground(say, update));

function sweep({ run, tokens, position }) {               // Map(part -> probabilities without it), or null: not yet
  const parts = new Map(everyPart(model.config));
  const work = key => runs.probsWithout(tokens, run.changes, parts.get(key), position);
  return sweeps.results(`${run.id} ${position}`, [...parts.keys()], work, "running without each part");
}

function withoutOne({ run, tokens, position }, key) {      // probabilities without one of these parts, or null: not yet
  const part = new Map(everyPart(model.config)).get(key);
  const work = () => runs.probsWithout(tokens, run.changes, part, position);
  return singles.results(`${run.id} ${position} ${key}`, [key], work, "running without a head")?.get(key) ?? null;
}

function continuation({ run, base, tokens }, count) {     // {now, trained}: texts, or null: not yet
  const work = which => runs.likeliestText(tokens, which === "now" ? run.changes : [], count);
  const found = texts.results(`${run.id} ${base.id}`, ["now", "trained"], work, "writing");
  return found && Object.fromEntries(found);
}

// {isTrained}: whether a file holds the numbers as trained. {bug}: the mistake that gives them, null if none does. Or
// null: not yet.
function tryMistakes({ base, tokens, file: theirs }) {
  if (runs.agreeing(base, theirs) > 0) return { isTrained: true, bug: null };
  const work = bug => runs.agreeing(runs.withMistake(tokens, bug), theirs);
  const found = trials.results(`${theirs.opened} ${base.id}`, model.bugs, work, "trying each mistake");
  if (!found) return null;
  const [best, count] = [...found].sort((a, b) => b[1] - a[1])[0];
  return { isTrained: false, bug: count > 0 ? best : null };
}

// ---- Start ---------------------------------------------------------------------------------------------------

const MAKERS = { next: makeNext, logit: makeLogit, rotation: makeRotation, neuron: makeNeuron, tokens: makeMerges,
  cache: makeCacheView, patch: makePatch, mistakes: makeMistakes, traces: makeTraces };
const tabs = Object.entries(TOOLS).map(([id, label]) => ({ id, label, make: panel => MAKERS[id](panel, actions) }));
const ramps = makeTheme(update), tensorView = makeTensor(byId("tensor"), actions);
const drawPrompt = makePrompt(actions), drawTabs = makeTabs(byId("dock"), tabs, tab => setState({ tab }));
const views = [drawPrompt, makeChips(actions), makeSwitches(actions), makeWiring(byId("wiring"), actions),
  makeNumber(byId("number"), actions), drawTabs, tensorView.draw];
// The tensor comes last: it asks for its size, and the browser lays out all that was drawn before it.

function listen() {
  listenToKeys({ openHelp, stepLayer });
  watchMore();
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
  const node = byId("weights");
  model.weights = await unpackWeights(node.textContent, model.layout, model.config);
  node.remove();
  times.weights = performance.now();
  runs = makeRuns(model);
  window.explorer = {                                     // for tests and measure.py
    times, matrix: tensorView.matrix, get now() { return now; }, get isBusy() { return isWaiting || isRendering; },
  };
  update();
}

start().catch(error => {
  say("");
  showProblem(`This page cannot be read: ${error.message.replace(/\.$/, "")}.`);
  throw error;
});

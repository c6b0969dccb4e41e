// Somebody else's trace: dropped onto the page and compared with this run. And this run, saved in the same format.
import { ALLOWED, differences } from "./differ.js";
import { promptInFile, readTrace, writeTrace } from "./trace_file.js";
import { columnHead, el, link, para, redraw, row, scrolled, tableOf } from "./dom.js";
import { num, placeWords } from "./format.js";

export function indexOf(shape, at) {                      // a flat index as one for each axis
  const index = [];
  for (const size of [...shape].reverse()) {
    index.unshift(at % size);
    at = Math.floor(at / size);
  }
  return index;
}

export function firstWrong(table, trace) {                // {name, index} of the first tensor that differs, or null
  const wrong = table.find(row => row.differs);
  if (!wrong) return null;
  return { name: wrong.name, index: wrong.at === null ? undefined : indexOf(trace.get(wrong.name).shape, wrong.at) };
}

const compared = new WeakMap();                           // run -> {file, comparison}: made once for all that is drawn

// How a file differs from a run: {tensors, table, byName, ignored, problem}; tensors are those that fit the run.
export function compareWithFile(run, file, aliases) {
  if (compared.get(run)?.file !== file) compared.set(run, { file, comparison: compare(run, file, aliases) });
  return compared.get(run).comparison;
}

function compare(run, file, aliases) {
  const read = readLike(run, file, aliases);
  const table = read.problem ? [] : differences(run.trace, read.tensors, ALLOWED[read.dtype]);
  return { ...read, table, byName: new Map(table.map(line => [line.name, line])) };
}

function readLike(run, { buffer }, aliases) {
  try {
    return readTrace(buffer, run.trace, aliases);
  } catch (error) {
    return { tensors: new Map(), ignored: [], problem: error.message };
  }
}

function saveRun(run) {
  const url = URL.createObjectURL(new Blob([writeTrace(run.trace)]));
  const link = el("a", { href: url, download: "run.safetensors" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url));
}

const NO_FILE = "Drop the trace of another program anywhere on this page: intermediate values of this text under the " +
  "names of the boxes on the left. The first that differs is named, and every difference drawn.";
const SAVED = "as run.safetensors, which tests/compare.py reads";

const prompts = new WeakMap();                            // file -> what it says of its prompt: found once

// {count, text} of a file's prompt; text is null where the page cannot tell it. null: the file cannot be read.
function promptOf(now) {
  if (!prompts.has(now.file)) prompts.set(now.file, findPrompt(now));
  return prompts.get(now.file);
}

function findPrompt({ file, run, model }) {
  try {
    const found = promptInFile(file.buffer, run.trace, model.weights.embedding, model.aliases);
    return found && { count: found.count, text: found.ids && textOf(found.ids, model.tokenizer) };
  } catch {
    return null;
  }
}

function textOf(ids, tokenizer) {                         // null where no text gives these tokens
  const text = tokenizer.decode(ids);
  return tokenizer.encode(text).join() === ids.join() ? text : null;
}

export function makeTraces(root, { openFile, closeFile, setState, setText, onlyPrompt, tryMistakes }) {
  const input = el("input", { type: "file", id: "file", accept: ".safetensors" });
  const save = el("button", { textContent: "save this run", title: SAVED, onclick: () => saveRun(now.run) });
  const report = el("div", { className: "report" });
  let now = null;
  const name = el("label", { htmlFor: "file", textContent: "a trace to compare (.safetensors)" });
  root.append(row(name, input, save), report);
  input.onchange = () => {
    if (input.files[0]) openFile(input.files[0]);
    input.value = "";                                     // so that the same file can be chosen again
  };
  // To the number that is farthest off, drawn as the difference from the file.
  function toDifference({ name, at }) {
    const index = at === null ? now.index : indexOf(now.run.trace.get(name).shape, at);
    setState({ selected: name, index, head: null, show: "file" });
  }
  function nothingCompared(problem) {
    const theirs = promptOf(now), ours = now.run.tokens.length;
    if (!theirs || theirs.count === ours) return [para(problem)];
    const counts = `The file has ${theirs.count} tokens, this run ${ours}: nothing was compared. `;
    const use = el("button", { textContent: "use the file’s prompt", key: "prompt",
      onclick: () => {
        setText(theirs.text);
        onlyPrompt();                                     // tokens were added, perhaps, to this very text
      } });
    const todo = theirs.text === null ? ["Type the file’s prompt at the top."] : [use, ` “${theirs.text}”`];
    const found = tryMistakes(now);                       // some mistakes drop a token
    return [para(counts, ...todo), ...(found?.bug ? [para(whyWords(found))] : [])];
  }
  function verdict({ table, problem, ignored }) {
    if (problem) return nothingCompared(problem);
    const wrong = table.find(line => line.differs), left = ignored.map(text => para(text));
    if (!wrong) return [para(`All ${table.length} tensors agree with this run.`), ...left];
    const toIt = link(wrong.name, "first", "go to the number that is farthest off", () => toDifference(wrong));
    const differ = table.filter(line => line.differs).length, right = table.indexOf(wrong);
    const before = right === 0 ? "" : ` What comes before it agrees (${right} tensors).`;
    return [para("The first tensor that differs is ", toIt, `; ${differ} of ${table.length} differ.`, before),
      para(whyWords(tryMistakes(now))), ...left, differencesTable(now, table.slice(right), toDifference)];
  }
  return function draw(view) {
    now = view;
    if (!now.file) return redraw(report, para(NO_FILE));
    const close = el("button", { textContent: "close it", key: "close", onclick: closeFile });
    return redraw(report, para(el("b", { textContent: now.file.name }), " ", close), ...verdict(now.comparison));
  };
}

function whyWords(found) {
  if (!found) return "Trying which mistake gives these numbers …";
  if (found.isTrained) return "It holds what the model computes as trained: what differs is your own change.";
  if (!found.bug) return "None of the mistakes of this page gives these numbers.";
  return `It is what one gets when ${found.bug.what}. To mend it: ${found.bug.fix}.`;
}

function differencesTable(now, table, toDifference) {
  const cell = text => el("td", { textContent: text });
  const where = ({ name, at, largest }) => largest === 0 || at === null ? ""
    : placeWords(now, name, indexOf(now.run.trace.get(name).shape, at));
  const toIt = line => link(line.name, `to ${line.name}`, "go to the largest difference", () => toDifference(line));
  const head = line => el("th", { scope: "row" }, toIt(line));
  const lines = table.map(line =>
    [head(line), cell(line.differs ? "differs" : "ok"), cell(num(line.largest, 6)), cell(where(line))]);
  const heads = ["tensor", "verdict", "largest difference", "where"].map(columnHead);
  return scrolled("differences", tableOf("", heads, lines));
}

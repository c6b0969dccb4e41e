// Somebody else's trace: dropped onto the page and compared with this run. And this run, saved in the same format.
import { ALLOWED, differences } from "./differ.js";
import { readTrace, writeTrace } from "./trace_file.js";
import { columnHead, el, link, para, redraw, row, rowHead, scrolled, tableOf } from "./dom.js";
import { num } from "./format.js";

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

// How a file differs from a run: {tensors, table, byName, ignored, problem}; tensors are those that fit the run.
export function compareWithFile(run, file, aliases) {
  const read = readLike(run, file, aliases);
  const table = read.problem ? [] : differences(run.trace, read.tensors, ALLOWED[read.dtype]);
  return { ...read, table, byName: new Map(table.map(row => [row.name, row])) };
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

export function makeTraces(root, { openFile, closeFile, go, tryMistakes }) {
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
  function verdict({ table, problem, ignored }) {
    if (problem) return [para(problem), para(whyWords(tryMistakes(now)))];
    const wrong = firstWrong(table, now.run.trace), left = ignored.map(text => para(text));
    if (!wrong) return [para(`All ${table.length} tensors agree with this run.`), ...left];
    const toIt = link(wrong.name, "first", "go to the number that is farthest off", () => go(wrong.name, wrong.index));
    const differ = table.filter(line => line.differs).length;
    return [para("The first tensor that differs is ", toIt, `; ${differ} of ${table.length} differ.`),
      para(whyWords(tryMistakes(now))), ...left, differencesTable(table)];
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
  if (!found.bug) return "None of the mistakes of this page gives these numbers.";
  return `It is what one gets when ${found.bug.what}. Mended: ${found.bug.fix}.`;
}

function differencesTable(table) {
  const cell = text => el("td", { textContent: text });
  const lines = table.map(({ name, largest, differs }) =>
    [rowHead(name), cell(num(largest, 6)), cell(differs ? "differs" : "ok")]);
  const heads = ["tensor", "largest difference", "verdict"].map(columnHead);
  return scrolled("differences", tableOf("", heads, lines));
}

// Somebody else's trace: dropped onto the page and compared with this run. And this run, saved in the same format.
import { ALLOWED, differences } from "./differ.js";
import { readTrace, writeTrace } from "./trace_file.js";
import { el, redraw } from "./dom.js";
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

const sentenceOf = text => el("p", { className: "sentence", textContent: text });

export function makeTraces(root, { openFile, closeFile, go, tryMistakes }) {
  const input = el("input", { type: "file", id: "file", accept: ".safetensors" }), report = el("div", { className: "report" });
  let now = null;
  input.onchange = () => {
    if (input.files[0]) openFile(input.files[0]);
    input.value = "";
  };
  root.append(el("div", { className: "row" }, el("label", { htmlFor: "file", textContent: "a trace to compare (.safetensors)" }), input,
    el("button", { textContent: "save this run", title: "as run.safetensors, which tests/compare.py reads", onclick: () => saveRun(now.run) })),
  report);

  function verdict({ table, problem, ignored }) {
    const why = el("p", { className: "sentence", textContent: whyWords(tryMistakes(now)) });
    if (problem) return [sentenceOf(problem), why];
    const wrong = firstWrong(table, now.run.trace), differ = table.filter(row => row.differs).length;
    const left = ignored.map(sentenceOf);
    if (!wrong) return [sentenceOf(`All ${table.length} tensors agree with this run.`), ...left];
    const link = el("button", { className: "link", textContent: wrong.name, key: "first", onclick: () => go(wrong.name, wrong.index) });
    return [el("p", { className: "sentence" }, "The first tensor that differs is ", link, `; ${differ} of ${table.length} differ.`),
    why, ...left, differencesTable(table)];
  }
  function whyWords(found) {
    if (!found) return "Trying which mistake gives these numbers …";
    if (!found.bug) return "None of the mistakes of this page gives these numbers.";
    return `It is what one gets when ${found.bug.what}. Mended: ${found.bug.fix}.`;
  }
  const differencesTable = table => el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "differences" },
    el("table", {}, el("thead", {}, el("tr", {}, ...["tensor", "largest difference", ""].map(textContent => el("th", { scope: "col", textContent })))),
      el("tbody", {}, ...table.map(row => el("tr", {}, el("th", { scope: "row", textContent: row.name }),
        el("td", { textContent: num(row.largest, 6) }), el("td", { textContent: row.differs ? "differs" : "ok" }))))));

  return function draw(view) {
    now = view;
    if (!now.file) {
      redraw(report, el("p", { className: "sentence", textContent: "Drop the trace of another program anywhere on this page: intermediate " +
        "values of this text under the names of the boxes on the left. The first that differs is named, and every difference drawn." }));
      return;
    }
    redraw(report, el("p", { className: "sentence" }, el("b", { textContent: now.file.name }), " ",
      el("button", { textContent: "close it", key: "close", onclick: closeFile })), ...verdict(now.comparison));
  };
}

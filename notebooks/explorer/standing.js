// Where a number stands: the section of the paper, and the lines of numpy_llama.py that compute it.
import { el } from "./dom.js";

export function drawStanding({ where, what, line, code }) {
  const paper = ({ text, url }) => url ? el("a", { href: url, target: "_blank", textContent: text }) : text;
  const papers = where.flatMap(one => [paper(one), " "]);
  return [el("h3", { textContent: "Where it stands" }), el("p", { className: "where" }, `${what}: `, ...papers),
    ...code.map((part, k) => el("details", { open: k === 0 },
      el("summary", { textContent: `numpy_llama.py, line ${part.line}: ${part.name}` }), codeLines(part, line)))];
}

function codeLines(part, hit) {
  const lines = part.text.split("\n").map((text, i) => el("span", { className: part.line + i === hit ? "hit" : "",
    textContent: `${String(part.line + i).padStart(3)}  ${text}\n` }));
  return el("pre", { tabIndex: 0, role: "region", "aria-label": `${part.name} in numpy_llama.py` }, ...lines);
}

// The chosen row of the matrix as a table, for screen readers and for whoever wants to copy numbers.
import { el } from "./dom.js";
import { num, placeWords } from "./format.js";
import { openDialog } from "./dialog.js";

export function openRowTable(now, spec, { go }) {
  const [head, row] = spec.at;
  const rowName = placeWords(now, now.name, now.index.slice(0, -1));
  const caption = `${now.name}: ${rowName}, ${spec.columns} numbers`;
  const label = column => spec.columnLabels ? `${column} “${spec.columnLabels[column]}”` : String(column);
  const line = column => el("tr", {}, el("th", { scope: "row", textContent: label(column) }),
    el("td", {}, el("button", { className: "link", textContent: num(spec.value(head, row, column), 6),
      onclick: () => leaveTo(column) })));
  const leaveTo = column => {
    dialog.close();
    go(now.name, spec.place(head, row, column));
  };
  const table = el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col", textContent: "column" }),
    el("th", { scope: "col", textContent: "value" }))), el("tbody", {},
    ...Array.from({ length: spec.columns }, (_, column) => line(column))));
  const dialog = openDialog(caption, el("div", { className: "scroll", tabIndex: 0, role: "region",
    "aria-label": "the row" }, table));
}

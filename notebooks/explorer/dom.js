// Elements of the page, without a framework.

const PROPERTIES = new Set(["textContent", "innerHTML", "className", "type", "value", "checked", "hidden",
  "open", "title", "tabIndex", "min", "max", "step", "href", "target", "selected", "colSpan", "scope",
  "accept", "htmlFor", "style", "size", "id"]);

// el("button", {textContent: "draw", onclick: f, "aria-pressed": true, key: "draw"}, child, ...)
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  if (tag === "button") element.type = "button";
  for (const [name, value] of Object.entries(properties)) {
    if (name === "key") element.dataset.key = value;
    else if (name.startsWith("on")) element[name] = value;
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const byId = id => document.getElementById(id);

// Replace what root holds. The focus stays on the element with the same key; where there is none any more, it goes to
// what is around it.
export function redraw(root, ...children) {
  const had = root.contains(document.activeElement) && document.activeElement !== root;
  const key = had && document.activeElement.dataset.key;
  root.replaceChildren(...children);
  if (!had) return;
  const again = key && root.querySelector(`[data-key="${CSS.escape(key)}"]`);
  (again || root.closest("[tabindex]"))?.focus({ preventScroll: true });
}

export function setText(element, text) {                  // what is not touched need not be laid out again
  if (element.textContent !== text) element.textContent = text;
}

export const isForBrowser = event => event.altKey || event.ctrlKey || event.metaKey;      // a key of its own, as Alt + ←

export const nextPaint = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));

// A label and a control that belong together.
export const field = (text, control) =>
  el("label", { className: "field" }, el("span", { textContent: text }), control);

export const row = (...children) => el("div", { className: "row" }, ...children);

export const para = (...children) => el("p", { className: "sentence" }, ...children);

// What may be larger than its place; it can be scrolled with the keyboard.
export const scrolled = (name, ...children) =>
  el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": name }, ...children);

export const columnHead = text => el("th", { scope: "col", textContent: text });

export const rowHead = text => el("th", { scope: "row", textContent: text });

// A table of a row of heads (elements) and rows (lists of cells).
export const tableOf = (className, heads, rows) => el("table", { className },
  el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows.map(cells => el("tr", {}, ...cells))));

export const link = (text, key, title, onclick) =>
  el("button", { className: "link", textContent: text, key, title, onclick });

export function choice(options, chosen, properties) {     // options: [[value, text], ...]
  return el("select", properties, ...options.map(([value, text]) =>
    el("option", { value, textContent: text, selected: String(value) === String(chosen) })));
}

// The one dialog of the page: a title, what it shows, a button that closes it. Escape closes it too.
import { byId, el } from "./dom.js";

export function openDialog(title, ...children) {
  const dialog = byId("dialog");
  const close = el("button", { textContent: "close", onclick: () => dialog.close() });
  const heading = el("h2", { id: "dialog-title", textContent: title });
  dialog.replaceChildren(el("div", { className: "dialog-bar" }, heading, close), ...children);
  dialog.showModal();
  return dialog;
}

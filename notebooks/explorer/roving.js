// A group of buttons that is one stop for Tab; arrows, Home and End move within it. In a table (data-columns), up and
// down move by a row; where data-follow is set, a button is also pressed when it is reached.

import { isForBrowser } from "./dom.js";

export function rovingKeys(root) {
  root.addEventListener("keydown", event => {
    const buttons = [...root.querySelectorAll("button")], at = buttons.indexOf(document.activeElement);
    const line = Number(root.dataset.columns ?? 1), last = buttons.length - 1;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + line, ArrowUp: at - line, Home: 0, End: last };
    if (!Object.hasOwn(to, event.key) || at < 0 || isForBrowser(event)) return;
    event.preventDefault();
    const next = buttons[to[event.key]];
    next?.focus();
    if (root.dataset.follow) next?.click();
  });
}

export function oneStop(root, chosen) {
  const buttons = [...root.querySelectorAll("button")], stop = buttons.includes(chosen) ? chosen : buttons[0];
  for (const button of buttons) button.tabIndex = button === stop ? 0 : -1;
}

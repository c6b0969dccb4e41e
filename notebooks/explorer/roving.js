// A row of buttons that is one stop for Tab; arrows, Home and End move within it.

export function rovingKeys(root) {
  root.addEventListener("keydown", event => {
    const buttons = [...root.querySelectorAll("button")], at = buttons.indexOf(document.activeElement);
    const last = buttons.length - 1, on = at + 1, back = at - 1;
    const to = { ArrowRight: on, ArrowDown: on, ArrowLeft: back, ArrowUp: back, Home: 0, End: last }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    const next = buttons[Math.max(0, Math.min(last, to))];
    next.focus();
    if (root.dataset.follow) next.click();
  });
}

export function oneStop(root, chosen) {
  const buttons = [...root.querySelectorAll("button")], stop = buttons.includes(chosen) ? chosen : buttons[0];
  for (const button of buttons) button.tabIndex = button === stop ? 0 : -1;
}

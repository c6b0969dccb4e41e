// Keys that work everywhere but in a field where one types.
import { byId, isForBrowser } from "./dom.js";

export function listenToKeys({ stepLayer, openHelp }) {
  const focus = selector => document.querySelector(selector)?.focus();
  const actions = {
    "/": () => byId("prompt").focus(),
    w: () => focus('#wiring button[tabindex="0"]'),
    m: () => focus("#matrix canvas"),
    n: () => byId("number").focus(),
    b: () => focus('#dock [role="tab"][aria-selected="true"]'),
    "[": () => stepLayer(-1),
    "]": () => stepLayer(1),
    "?": openHelp,
  };
  addEventListener("keydown", event => {
    const isTyping = event.target.matches("input:not([type=range]):not([type=checkbox]), select, dialog *");
    const action = actions[event.key];
    if (!action || isTyping || isForBrowser(event)) return;
    event.preventDefault();
    action();
  });
}

// Top: the text, its tokens, and what is done when the text is too long.
import { byId, el, redraw } from "./dom.js";
import { oneStop, rovingKeys } from "./roving.js";
import { spaced } from "./format.js";

const TYPING = 150;                                       // milliseconds without a key, after which the text is run

const tokenText = piece => piece === "<0x0A>" ? "⏎" : spaced(piece).replaceAll(" ", "·");

export function makePrompt({ setText, pick }) {
  const input = byId("prompt"), list = byId("tokens");
  let timer = 0, drawn = "", written = null;               // written: the text that this field holds, or held last
  const submit = () => {
    clearTimeout(timer);
    written = input.value;
    setText(written);
  };
  input.oninput = () => {
    clearTimeout(timer);
    timer = setTimeout(submit, TYPING);
  };
  input.onkeydown = event => {
    if (event.key === "Enter") submit();
  };
  rovingKeys(list);

  function chip(now, id, t) {
    const { tokenizer } = now.model, isDrawn = t >= now.promptLength, added = isDrawn ? ", added after the prompt" : "";
    const button = el("button", { className: isDrawn ? "chip drawn" : "chip", key: `token ${t}`,
      title: `token ${t}, id ${id}${added}`, "aria-pressed": t === now.position, onclick: () => pick(t) },
    el("span", { textContent: tokenText(tokenizer.pieces[id]) }), el("small", { textContent: t }));
    return el("li", {}, button);
  }
  return function draw(now) {
    if (now.state.text !== written) input.value = written = now.state.text;       // not while somebody types on
    const key = [now.run.tokens, now.promptLength, now.position].join(" ");
    if (key === drawn) return;
    drawn = key;
    redraw(list, ...now.run.tokens.map((id, t) => chip(now, id, t)));
    const chosen = list.children[now.position];
    oneStop(list, chosen?.firstChild);
    if (chosen) list.scrollLeft = chosen.offsetLeft - list.offsetLeft - list.clientWidth / 2;
  };
}

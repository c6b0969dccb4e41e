// Light or dark: what the machine prefers, until the button is used.
import { RAMPS } from "./colours.js";
import { byId } from "./dom.js";

export function makeTheme(changed) {
  const machine = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const name = () => chosen ?? (machine.matches ? "dark" : "light");
  function apply() {
    document.documentElement.dataset.theme = name();
    changed();
  }
  machine.addEventListener("change", apply);
  byId("theme").onclick = () => {
    chosen = name() === "dark" ? "light" : "dark";
    apply();
  };
  document.documentElement.dataset.theme = name();
  return () => RAMPS[name()];
}

// A line at the lower edge of what can be scrolled further down.
const SLACK = 4;                                          // pixels that are no line of text

export function markMore() {
  for (const place of document.querySelectorAll("#number, .bugs, .report, .panel:not([hidden])")) {
    place.classList.toggle("more", place.scrollHeight - place.clientHeight - place.scrollTop > SLACK);
  }
}

export function watchMore() {
  addEventListener("scroll", markMore, { capture: true, passive: true });
  addEventListener("resize", markMore);
}

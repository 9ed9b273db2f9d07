// Keys: / search, arrows among the hits, Enter opens, s similar, - unlike, x selects, ? this list.
//
// Markup: form#search [name=q]; ol#hits > li.hit[data-id] > a.hit-link, in it also a.similar and
//   a.unlike, input.hit-select; dialog#help, with a form[method=dialog] that closes it, and
//   button[data-help][hidden] anywhere, which opens it.
// With the focus nowhere, the right arrow goes to the first hit in the window.
// The list is one stop of the Tab key, whose place the arrows move (roving tabindex).  Letters work
// while a hit has the focus, so that they take nothing from those who dictate.
const hits = document.getElementById("hits");
const help = document.getElementById("help");
const all = () => [...hits.querySelectorAll(":scope > .hit")];
const link = (hit) => hit?.querySelector("a.hit-link");

function rove(current) {
  for (const hit of all()) {
    for (const each of hit.querySelectorAll("a, button, input")) {
      each.tabIndex = hit === current ? 0 : -1;
    }
  }
}

// The hit above or below: the nearest one of the next line.
function beside(hit, down) {
  const place = hit.getBoundingClientRect();
  const lines = all().map((each) => ({ each, box: each.getBoundingClientRect() }))
    .filter(({ box }) => (down ? box.top >= place.bottom - 1 : box.bottom <= place.top + 1));
  const distance = ({ box }) =>
    Math.abs(box.top - place.top) * 1e4 + Math.abs(box.left - place.left);
  return lines.sort((a, b) => distance(a) - distance(b))[0]?.each;
}

const moves = {
  ArrowLeft: (hit) => all()[all().indexOf(hit) - 1],
  ArrowRight: (hit) => all()[all().indexOf(hit) + 1],
  ArrowUp: (hit) => beside(hit, false),
  ArrowDown: (hit) => beside(hit, true),
  Home: () => all()[0],
  End: () => all().at(-1),
};

const acts = {
  s: (hit) => hit.querySelector("a.similar")?.click(),
  "-": (hit) => hit.querySelector("a.unlike")?.click(),
  x: (hit) => hit.querySelector("input.hit-select")?.click(),
};

function onHit(event, hit) {
  const target = moves[event.key]?.(hit);
  if (target) link(target)?.focus();
  acts[event.key]?.(hit);
  return event.key in moves || event.key in acts;
}

function onPage(event) {
  if (event.key === "/") {
    const field = document.querySelector("#search [name=q]");
    field?.focus();
    field?.select();
  } else if (event.key === "?") help?.showModal();
  else if (event.key === "ArrowRight" && hits && event.target === document.body) {
    link(all().find((each) => each.getBoundingClientRect().bottom > 0))?.focus();
  }
  else return false;
  return true;
}

function onKey(event) {
  const isWriting = event.target.closest?.(
    "textarea, select, [contenteditable], input:not([type=checkbox], [type=radio], [type=submit])",
  );
  const isCovered = window.pswp || document.querySelector("dialog[open]");
  if (event.ctrlKey || event.metaKey || event.altKey || isWriting || isCovered) return;
  const hit = event.target.closest?.("#hits > .hit");
  if ((hit && onHit(event, hit)) || onPage(event)) event.preventDefault();
}

addEventListener("keydown", onKey);
for (const button of document.querySelectorAll("button[data-help]")) {
  button.hidden = false;
  button.addEventListener("click", () => help?.showModal());
}
if (hits) {
  rove(all()[0]);
  hits.addEventListener("focusin", (event) => rove(event.target.closest("#hits > .hit")));
  addEventListener("hits-added", () => rove(document.activeElement.closest(".hit") ?? all()[0]));
}

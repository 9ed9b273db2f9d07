// Hits that are selected, and what is done with them.
//
// Markup: ol#hits > li.hit[data-id][data-path][data-place] with input.hit-select[type=checkbox]
//   [name=like][value=ID][form=selection]; form#selection[method=get][action="/"] is the toolbar, whose button
//   "Like all of these" sends the ids as like=… without JavaScript, too.  In it, hidden until now:
//   output#selected-count, button[data-do=relevant|all|none|paths|csv|json].  A hit that is likely
//   right has [data-relevant].
const form = document.getElementById("selection");
const boxes = () => [...document.querySelectorAll("#hits .hit-select")];
const chosen = () => boxes().filter((box) => box.checked);
const isRelevant = (box) => "relevant" in box.closest(".hit").dataset;

const FIELDS = {
  image_id: "id", path: "path", place: "place", width: "width", height: "height",
  relevance: "relevance", score: "score",
};
const NUMBERS = new Set(["width", "height", "relevance", "score"]);

function record(box) {
  const data = box.closest(".hit").dataset;
  const fields = Object.entries(FIELDS).filter(([, key]) => data[key]);
  return Object.fromEntries(
    fields.map(([name, key]) => [name, NUMBERS.has(name) ? Number(data[key]) : data[key]]),
  );
}

// RFC 4180; a spreadsheet does not take text for a formula.
function csv(records) {
  const plain = (value) => (/^[=+\-@\t\r]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : value);
  const quoted = (value) => `"${plain(String(value ?? "")).replaceAll('"', '""')}"`;
  const names = Object.keys(FIELDS).filter((name) => records.some((each) => name in each));
  const rows = [names, ...records.map((each) => names.map((name) => each[name]))];
  return rows.map((row) => row.map(quoted).join(",") + "\r\n").join("");
}

function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Over plain HTTP from another machine there is no clipboard, or it was forbidden.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function say(words) {
  form.querySelector("#selected-count").textContent = words;
}

function count() {
  const number = chosen().length;
  say(number ? `${number} selected` : "");
  const always = "[data-do=all], [data-do=relevant], [data-help]";
  for (const button of form.querySelectorAll(`button:not(${always})`)) {
    button.disabled = number === 0;
  }
  const all = boxes();
  const relevant = all.filter(isRelevant).length;
  form.querySelector("[data-do=all]").textContent = `Select all ${all.length}`;
  const some = form.querySelector("[data-do=relevant]");
  some.textContent = `Select ${relevant} relevant`;
  // Where all are, or none is known to be, it would say nothing else.
  some.hidden = relevant === 0 || relevant === all.length;
}

function mark(isChecked) {
  for (const box of boxes()) box.checked = isChecked(box);
  count();
}

const actions = {
  relevant: () => mark(isRelevant),
  all: () => mark(() => true),
  none: () => mark(() => false),
  paths: async () => {
    const paths = chosen().map(record).map((each) => each.path ?? each.place);
    await copy(paths.join("\n") + "\n");
    say(paths.length === 1 ? "1 path copied" : `${paths.length} paths copied`);
  },
  csv: () => save("pictures.csv", "text/csv", csv(chosen().map(record))),
  json: () => {
    const text = JSON.stringify(chosen().map(record), null, 2) + "\n";
    save("pictures.json", "application/json", text);
  },
};

// With Shift: all from the one clicked before to this one are as this one.
let last = null;
function extend(box, withShift) {
  const all = boxes();
  const [from, to] = [all.indexOf(last), all.indexOf(box)].sort((a, b) => a - b);
  if (withShift && from >= 0) {
    for (const each of all.slice(from, to + 1)) each.checked = box.checked;
  }
  last = box;
  count();
}

if (form) {
  for (const each of form.querySelectorAll("[hidden]")) each.hidden = false;
  count();
  form.addEventListener("click", (event) => actions[event.target.dataset.do]?.());
  document.getElementById("hits")?.addEventListener("click", (event) => {
    if (event.target.matches(".hit-select")) extend(event.target, event.shiftKey);
  });
  // After "load more", and where the browser has filled the boxes in by itself.
  addEventListener("hits-added", count);
  addEventListener("pageshow", count);
}

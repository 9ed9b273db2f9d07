// A picture to search with: dropped anywhere on the page, pasted, chosen, or taken by the camera.
//
// Markup: form#upload[method=post][enctype="multipart/form-data"][action="/queries"] with
//   input[type=file][name=image]; optional [data-max-bytes] on the form; optional
//   button[data-camera][hidden] in it, shown where there is a finger rather than a mouse; optional
//   p#upload-status[role=status].
// The form is sent by this script, which goes on to the address of the answer; what is wrong is said
// here, and the page stays as it is.
const form = document.getElementById("upload");
const OTHER_FIELDS_BYTES = 100_000;
const input = form?.querySelector("input[type=file][name=image]");

function say(words) {
  const status = document.getElementById("upload-status");
  if (status) status.textContent = words;
}

function refuse(words) {
  say(words);
  input.value = "";
  document.getElementById("upload-status")?.scrollIntoView({ block: "nearest" });
}

// What is surely none, by the type that the browser tells from its name, is not sent at all.
const isOther = (file) => /^(text|audio|video|font)[/]|[/](pdf|zip|json)$/.test(file.type);

// The one under way gives way to another.
let sending = null;

async function send(file) {
  sending?.abort();
  sending = new AbortController();
  const { signal } = sending;
  // Refused before it is sent: the answer to half a body is lost in some browsers.
  const most = Number(form.dataset.maxBytes ?? Infinity);
  if (file.size + OTHER_FIELDS_BYTES > most) {
    refuse(`${file.name} has more than ${most / 1e6} MB: choose a smaller picture.`);
    return;
  }
  if (isOther(file)) {
    refuse(`${file.name} is no picture (${file.type}): choose a picture.`);
    return;
  }
  say(`Searching with ${file.name}…`);
  const headers = { accept: "application/json" };
  try {
    const answer = await fetch(form.action, { method: "POST", body: new FormData(form), headers, signal });
    const told = await answer.json();
    if (answer.ok) location.assign(told.location);
    else refuse(`${file.name}: ${told.detail}`);
  } catch {
    if (!signal.aborted) refuse(`${file.name} could not be sent: choose a picture, or try again.`);
  }
}

// The first picture of a drop or of the clipboard, else the first file; texts are none.
function take(transfer) {
  const files = [...transfer.files];
  const file = files.find((each) => each.type.startsWith("image/")) ?? files[0];
  if (!file) return false;
  const one = new DataTransfer();
  one.items.add(file);
  input.files = one.files;
  send(file);
  return true;
}

// A picture of this page that is dragged, mostly by accident, is no file from elsewhere.
let isOwn = false;
const carriesFiles = (event) => !isOwn && event.dataTransfer?.types.includes("Files");
const mark = (isOver) => document.documentElement.classList.toggle("dropping", isOver);

if (input) {
  // On a phone: what is chosen is sent at once.
  form.querySelector("button:not([type=button])")?.setAttribute("data-spare", "");
  input.addEventListener("change", () => input.files[0] && send(input.files[0]));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (input.files[0]) send(input.files[0]);
  });
  addEventListener("dragstart", () => {
    isOwn = true;
  });
  addEventListener("dragend", () => {
    isOwn = false;
  });
  addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    mark(true);
  });
  // Leaves for nothing else: the pointer is outside the window.
  addEventListener("dragleave", (event) => event.relatedTarget ?? mark(false));
  addEventListener("drop", (event) => {
    mark(false);
    if (isOwn) return;
    // A picture dragged from another page may come as an address only, and none is fetched.
    if (event.target.closest?.("input, textarea") && !carriesFiles(event)) return;
    event.preventDefault();
    if (!take(event.dataTransfer)) {
      say("That is no file: save the picture first, or copy it and paste it here.");
    }
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData && take(event.clipboardData)) event.preventDefault();
  });
  // Back from the answer: the page may be the one of before, with the file still chosen.
  addEventListener("pageshow", () => {
    input.value = "";
    say("");
  });
  const camera = form.querySelector("button[data-camera]");
  if (camera) {
    camera.hidden = !matchMedia("(pointer: coarse)").matches;
    camera.addEventListener("click", () => {
      input.setAttribute("capture", "environment");
      input.click();
      input.removeAttribute("capture");
    });
  }
}

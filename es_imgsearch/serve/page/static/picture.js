// One picture's page: ← and → go to its neighbours in the search, a button copies the path.
//
// Markup: a[rel=prev], a[rel=next]; button[data-copy=ID][hidden] and #copied.
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select, [role=region]");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  document.querySelector(`a[rel=${rel}]`)?.click();
});

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    const said = document.getElementById("copied");
    const text = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(text.textContent);
      said.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(text);
      said.textContent = "Not allowed here; the path is selected, press Ctrl+C.";
    }
  });
}

// The slider of the least relevance shows its value.
//
// Markup: input[type=range]#min_relevance, from 0 to 1, and output[for=min_relevance].
const slider = document.getElementById("min_relevance");
const output = document.querySelector("output[for=min_relevance]");

function show() {
  output.textContent = `${Math.round(slider.valueAsNumber * 100)}%`;
}

if (slider && output) {
  slider.addEventListener("input", show);
  // Back on the page, a browser fills in what was chosen before.
  addEventListener("pageshow", show);
}

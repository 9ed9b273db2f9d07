// The slider of the least relevance shows its value.
//
// Markup: input[type=range][name=min_relevance] with output[data-of=min_relevance], from 0 to 1.
for (const output of document.querySelectorAll("output[data-of]")) {
  const slider = document.querySelector(`input[type=range][name="${output.dataset.of}"]`);
  const show = () => {
    output.textContent = `${Math.round(slider.valueAsNumber * 100)} %`;
  };
  slider?.addEventListener("input", show);
  if (slider) show();
}

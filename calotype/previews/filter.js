// Search and badges: which samples, thumbnails and batches are shown.

"use strict";

const samples = [...document.querySelectorAll(".sample")];
const tools = document.querySelector(".tools");
const tool = (name) => tools.querySelector(`[data-tool="${name}"]`);
const badges = [...document.querySelectorAll(".verdict [data-badge]")];
const thumbs = new Map([...document.querySelectorAll(".thumb")].map((link) => [link.hash.slice(1), link.parentElement]));
const texts = new Map(samples.map((sample) => [sample, words(sample)]));

function words(sample) {
  const captions = [...sample.querySelectorAll(".caption")].map((caption) => caption.textContent);
  return [sample.dataset.id, ...captions].join("\n").toLowerCase();
}

function filter() {
  const sought = tool("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = badges.filter((badge) => badge.ariaPressed === "true").map((badge) => badge.dataset.badge);
  const matches = (sample) =>
    sought.every((word) => texts.get(sample).includes(word)) &&
    (!wanted.length || wanted.some((badge) => sample.dataset.badges.split(" ").includes(badge)));
  for (const sample of samples) thumbs.get(sample.id).hidden = sample.hidden = !matches(sample);
  for (const batch of document.querySelectorAll(".batch")) {
    const strip = document.querySelector(`.strip[data-batch="${batch.id}"]`);
    const link = document.querySelector(`.bar a[href="#${batch.id}"]`).parentElement;
    strip.hidden = link.hidden = batch.hidden = !batch.querySelector(".sample:not([hidden])");
  }
  const found = samples.filter((sample) => !sample.hidden).length;
  const filtered = sought.length + wanted.length > 0;
  tool("found").textContent = filtered ? `${found} of ${samples.length}` : "";
  tool("all").hidden = !filtered;
  document.querySelector(".nothing").hidden = found > 0 || !filtered;
}

function showAll() {
  tool("filter").value = "";
  for (const badge of badges) badge.ariaPressed = "false";
  filter();
}

for (const badge of badges) {
  badge.disabled = false;
  badge.addEventListener("click", () => {
    badge.ariaPressed = String(badge.ariaPressed !== "true");
    filter();
  });
}
tool("filter").addEventListener("input", filter);
tool("all").addEventListener("click", () => {
  showAll();
  tool("filter").focus();
});

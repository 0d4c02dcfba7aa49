// Keys and switches. All of the page is there without scripts.

tools.hidden = false;

function toggle(button) {
  const on = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(on));
  return on;
}

function crops() {
  document.documentElement.classList.toggle("no-crops", !toggle(tool("crops")));
}

function tokens() {
  const open = toggle(tool("tokens"));
  for (const list of document.querySelectorAll(".tokens details")) list.open = open;
}

// The sample that has the focus, while it is on the screen; else the first that is.
function current(shown) {
  const onScreen = (sample) => {
    const box = sample.getBoundingClientRect();
    return box.bottom > innerHeight / 3 && box.top < innerHeight;
  };
  const focused = document.activeElement.closest(".sample");
  return focused && onScreen(focused) ? shown.indexOf(focused) : shown.findIndex(onScreen) - 0.5;
}

const visibleSamples = () => samples.filter((sample) => !sample.hidden);

function go(step) {
  const shown = visibleSamples();
  if (!shown.length) return;
  const place = current(shown) + step;
  const next = shown[Math.max(0, Math.min(shown.length - 1, step > 0 ? Math.floor(place) : Math.ceil(place)))];
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "start" });
}

function zoomHere() {
  const shown = visibleSamples();
  if (shown.length) zoom(shown[Math.max(0, Math.min(shown.length - 1, Math.ceil(current(shown))))]);
}

const help = document.querySelector("#keys");

const keys = {
  j: () => go(1),
  ArrowRight: () => go(1),
  k: () => go(-1),
  ArrowLeft: () => go(-1),
  c: crops,
  t: tokens,
  z: zoomHere,
  a: showAll,
  "?": () => help.showModal(),
  "/": () => tool("filter").focus(),
};

tool("crops").addEventListener("click", crops);
tool("tokens").addEventListener("click", tokens);
tool("keys").addEventListener("click", () => help.showModal());
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=checkbox])")) return;
  if (document.querySelector("dialog[open]")) return;
  const action = keys[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

// An image at its true pixels, and the slider between an image as trained and after the autoencoder.

// The second image lies on the first; the slider says where the second begins. A mouse moves it, too.
function compare(plate, slider, under, over) {
  under.alt = "";
  under.className = "under";
  plate.replaceChildren(under, over);
  const split = () => plate.style.setProperty("--split", `${slider.value}%`);
  slider.hidden = false;
  slider.oninput = split;
  plate.onpointermove = (event) => {
    if (event.pointerType !== "mouse") return;
    const box = plate.getBoundingClientRect();
    slider.value = (100 * (event.clientX - box.left)) / box.width;
    split();
  };
  split();
}

for (const figure of document.querySelectorAll(".round-trip")) {
  const trained = figure.parentElement.querySelector(".trained img");
  const [plate, slider] = [figure.querySelector(".compare"), figure.querySelector("input")];
  compare(plate, slider, trained.cloneNode(), plate.querySelector("img"));
  figure.querySelector(".side").hidden = false;
}

const zoomed = document.querySelector("#zoom");
const pan = zoomed.querySelector(".pan");
const [zoomPlate, zoomSlider] = [zoomed.querySelector(".compare"), zoomed.querySelector("input")];
const scales = [...zoomed.querySelectorAll("[data-scale]")];

// One pixel of the image is one pixel of the screen, or a square of them.
function scale(button) {
  for (const one of scales) one.ariaPressed = String(one === button);
  const image = zoomPlate.querySelector("img");
  const factor = Number(button.dataset.scale) / devicePixelRatio;
  const middle = [pan.scrollLeft + pan.clientWidth / 2, pan.scrollTop + pan.clientHeight / 2];
  const before = zoomPlate.offsetWidth || 1;
  zoomPlate.style.width = `${Number(image.getAttribute("width")) * factor}px`;
  const grown = zoomPlate.offsetWidth / before;
  pan.scrollTo(middle[0] * grown - pan.clientWidth / 2, middle[1] * grown - pan.clientHeight / 2);
}

function zoom(sample) {
  const image = sample.querySelector(".trained img");
  const after = sample.querySelector(".round-trip .compare img:not(.under)");
  zoomed.querySelector("h2").textContent = sample.dataset.id;
  const size = sample.querySelector(".trained .size").textContent;
  const whole = size.startsWith(`${image.getAttribute("width")} `);
  const reduced = `${size}, reduced to ${image.getAttribute("width")} × ${image.getAttribute("height")} px in a page of so many: --batches shows fewer`;
  zoomed.querySelector(".facts").textContent = whole ? size : reduced;
  zoomSlider.hidden = !after;
  zoomPlate.onpointermove = null;
  if (after) compare(zoomPlate, zoomSlider, image.cloneNode(), after.cloneNode());
  else zoomPlate.replaceChildren(image.cloneNode());
  zoomed.showModal();
  scale(scales[0]);
}

for (const button of scales) button.addEventListener("click", () => scale(button));
for (const sample of samples) {
  const button = sample.querySelector(".zoom");
  button.hidden = false;
  button.addEventListener("click", () => zoom(sample));
  const image = sample.querySelector(".trained img");
  image.classList.add("zoomable");
  image.addEventListener("click", () => zoom(sample));
}

"""The preview's page in a real browser: at a desk and on a phone, light and dark, by keyboard, without scripts."""

import io
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from axe import serious_faults
from chromium import DESK, PHONE, chromium, contrast
from PIL import Image
from preview_examples import CAPTIONS, FOLDER, HOSTILE_CAPTION, HOSTILE_ID, all_samples, example
from real_tokenizers import flux_pipeline

from calotype.previews.crop import corners
from calotype.previews.page import render_page

pytestmark = pytest.mark.browser

VIEWS = [(size, scheme) for size in (DESK, PHONE) for scheme in ("light", "dark")]
OTHERS = [((320, 640), "light"), ((900, 900), "dark"), ((1920, 900), "light")]
FOCUSABLE = "a[href], button, input, summary, textarea, select, [tabindex='0']"


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def batches():
    return example()


@pytest.fixture(scope="module")
def file(batches, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "preview.html"
    path.write_text(render_page(batches, title="photos · flux.1-dev"), "utf-8")
    return path


@pytest.fixture
def visit(browser, file):
    """Opens the page; at the end nothing was asked of a network, and nothing was complained of."""
    contexts, asked, complaints = [], [], []

    def opened(size=DESK, scheme="light", path=file, **options):
        width, height = size
        viewport = {"width": width, "height": height}
        context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=True, **options)
        contexts.append(context)
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message) or dialog.dismiss())
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert complaints == []


def load_pictures(page):
    """Decodes what is below the fold too."""
    page.evaluate(
        """Promise.all([...document.images].map(async (img) => { img.loading = "eager"; await img.decode(); }))"""
    )


def box(locator):
    found = locator.bounding_box()
    return np.array([found["x"], found["y"], found["x"] + found["width"], found["y"] + found["height"]])


def colours(shot):
    """How many there are of the 4,096 that differ in the upper four bits."""
    return len(np.unique((shot // 16).astype(int) @ [256, 16, 1]))


# --- What is seen


@pytest.mark.parametrize(("size", "scheme"), [*VIEWS, *OTHERS])
def test_nothing_is_wider_than_the_screen(visit, size, scheme):
    page = visit(size, scheme)
    page.evaluate("for (const list of document.querySelectorAll('details')) list.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    beyond = page.evaluate(
        """[...document.querySelectorAll("body *:not(.skip, svg *)")]
            .filter((element) => element.getBoundingClientRect().right > innerWidth + 0.5)
            .map((element) => element.outerHTML.slice(0, 80))"""
    )
    assert beyond == []


@pytest.mark.parametrize(("size", "scheme"), VIEWS)
def test_screenshots_have_substance(visit, size, scheme, tmp_path):
    page = visit(size, scheme)
    top, photos = tmp_path / "top.png", tmp_path / "photos.png"
    page.screenshot(path=top)
    title = box(page.locator("h1")).astype(int)
    page.keyboard.press("j")
    load_pictures(page)
    page.screenshot(path=photos)
    shot = np.asarray(Image.open(top).convert("RGB"))
    assert shot.shape[:2] == size[::-1]
    paper = shot[5, 5]
    assert (paper.max() < 40) if scheme == "dark" else (paper.min() > 230)
    assert np.mean((shot == paper).all(-1)) > 0.5
    assert colours(np.asarray(Image.open(photos).convert("RGB"))) > 300  # photos, not flat fields
    # Text: in the heading's box are pixels that stand out from the paper.
    left, upper, right, lower = title
    heading = shot[upper:lower, left:right].reshape(-1, 3)
    assert max(contrast(pixel, paper) for pixel in heading) > 12


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(visit, scheme):
    page = visit(DESK, scheme)
    page.evaluate("for (const list of document.querySelectorAll('details')) list.open = true")
    page.locator(".draw input").first.check()
    found = page.evaluate(
        """() => {
            const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
            const ground = (element) => {
              for (let e = element; e; e = e.parentElement) {
                const [r, g, b, a = 1] = numbers(getComputedStyle(e).backgroundColor);
                if (a === 1) return [r, g, b];
                if (a !== 0) throw new Error(`a ground one can see through: ${e.outerHTML.slice(0, 80)}`);
              }
            };
            const texts = [];
            const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            while (walker.nextNode()) {
              const element = walker.currentNode.parentElement;
              if (!walker.currentNode.data.trim() || element.closest("script, svg, .skip")) continue;
              const under = element.matches(".number") ? element.previousElementSibling : element;
              texts.push([
                element.outerHTML.slice(0, 80), numbers(getComputedStyle(element).color).slice(0, 3), ground(under),
              ]);
            }
            const filter = document.querySelector("[type=search]");
            texts.push(["placeholder", numbers(getComputedStyle(filter, "::placeholder").color), ground(filter)]);
            return texts;
        }"""
    )
    assert len(found) > 300
    weak = {(html, tuple(ink), tuple(under)) for html, ink, under in found if contrast(ink, under) < 4.5}
    assert weak == set()


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_the_frame_lies_on_the_picture_where_the_crop_was(visit, batches, size):
    page = visit(size)
    for number, view in enumerate(all_samples(batches)):
        plate = page.locator("article").nth(number).locator(".plate")
        picture = box(plate.locator("img"))
        scale = (picture[2:] - picture[:2]) / view.geometry.original_size[::-1]
        for frame, geometry in [(".kept", view.geometry)] + [
            (f".of-{n} .dashed", draw.geometry)
            for n, draw in enumerate(view.draws, start=1)
            if draw.geometry.box != view.geometry.box
        ]:
            # Where its corners are on the screen: a box would have the width of the line in it.
            shown = plate.locator(frame).evaluate(
                """(frame) => [...frame.points].map((point) => point.matrixTransform(frame.getScreenCTM()))
                    .map(({ x, y }) => [x, y])"""
            )
            np.testing.assert_allclose(shown, picture[:2] + np.array(corners(geometry)) * scale, atol=1)


def test_what_is_cropped_away_is_dimmed_and_the_rest_is_not(visit, batches):
    page = visit()
    load_pictures(page)
    plate = page.locator("article").nth(4).locator(".plate")  # the middle third of the rocket's image, unturned
    view = all_samples(batches)[4]
    page.evaluate("document.querySelectorAll('.other, .kept, .under').forEach((e) => e.remove())")
    dimmed = np.asarray(Image.open(io.BytesIO(plate.screenshot())).convert("RGB")).astype(float)[2:-2]
    page.locator("[data-tool=crops]").click()
    clear = np.asarray(Image.open(io.BytesIO(plate.screenshot())).convert("RGB")).astype(float)[2:-2]
    width = clear.shape[1]
    top, left, rows, columns = np.array(view.geometry.box) / np.tile(view.geometry.original_size, 2)
    kept = slice(math.ceil(left * width) + 1, math.floor((left + columns) * width) - 1)
    assert (top, rows) == (0, 1)
    np.testing.assert_array_equal(dimmed[:, kept], clear[:, kept])
    for away in (slice(2, kept.start - 3), slice(kept.stop + 3, width - 2)):
        np.testing.assert_allclose(dimmed[:, away], clear[:, away] * 0.45 + 16 * 0.55, atol=2)


def test_all_pictures_have_their_place_before_they_are_there(visit):
    page = visit(PHONE)
    before = page.evaluate("document.documentElement.scrollHeight")
    load_pictures(page)
    assert page.evaluate("document.documentElement.scrollHeight") == before


def test_a_hostile_caption_is_text_on_the_screen(visit):
    page = visit()  # a dialog would be a complaint
    start = HOSTILE_CAPTION.split(",")[0]
    assert start.startswith("<script>")
    assert page.get_by_text(start).first.is_visible()
    heading = page.locator("h3", has_text=HOSTILE_ID.partition("\u202e")[0])
    assert heading.is_visible()
    assert "U+202E" in heading.inner_text()


def test_the_policy_is_in_force(browser, file):
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(file.as_uri())
    broken = page.evaluate(
        """async () => {
            const broken = [];
            addEventListener("securitypolicyviolation", (event) => broken.push(event.effectiveDirective));
            new Image().src = "https://example.invalid/a.png";
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            await fetch("https://example.invalid/").catch(() => {});
            document.body.setAttribute("style", "color: red");
            await new Promise((done) => setTimeout(done, 50));
            return [broken.sort(), window.ran ?? false];
        }"""
    )
    context.close()
    assert broken == [["connect-src", "img-src", "script-src-elem", "style-src-attr"], False]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A page made by the command, from real photos with a hostile caption among theirs."""
    folder = tmp_path_factory.mktemp("made")
    photos = folder / "photos"
    photos.mkdir()
    lines = []
    for name, caption in CAPTIONS.items():
        shutil.copy(FOLDER / name, photos)
        text = [f"{HOSTILE_CAPTION}, {caption}"] if name == "coffee.png" else [caption, caption.partition(",")[0]]
        lines.append(json.dumps({"file_name": name, "text": text}))
    (photos / "metadata.jsonl").write_text("\n".join(lines))
    config = folder / "photos.yaml"
    config.write_text(
        f"dataset:\n  path: {photos}\n  resolution: 512\n  buckets: {{max_upscale: 3}}\n"
        "  img_transform: {random_crop: {scale: [0.5, 1.0]}, horizontal_flip: 0.5, color_jitter: {saturation: 0.3}}\n"
        "  caption_transform: {trigger: calotypist, shuffle_parts: 0.5, drop_parts: 0.2}\n"
        "loader: {batch_size: 4}\n"
    )
    page = folder / "preview.html"
    arguments = ["preview", config, "--model", "flux.1-dev", "--tokenizers", flux_pipeline(), "--batches", "9"]
    command = Path(sys.executable).parent / "calotype"
    subprocess.run([command, *arguments, "-o", page], check=True, capture_output=True, timeout=150)
    return page


@pytest.mark.parametrize(("size", "scheme"), VIEWS)
def test_a_page_that_the_command_made(visit, made, size, scheme, tmp_path):
    page = visit(size, scheme, path=made)
    assert page.locator("article").count() == len(CAPTIONS)
    for opened in (False, True):
        page.evaluate("(on) => { for (const d of document.querySelectorAll('.tokens details')) d.open = on }", opened)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    load_pictures(page)
    assert page.evaluate("[...document.images].every((img) => img.naturalWidth > 0)")
    article = page.locator("article[data-id='coffee.png']")
    assert article.locator(".raw").inner_text().startswith(HOSTILE_CAPTION.split(",")[0])
    assert "script" in article.locator(".tokens ol").first.inner_text()
    for number in range(len(CAPTIONS)):
        one = page.locator("article").nth(number)
        for part, least in ((".trained img", 60), (".original img", 60), (".draw img", 30)):
            shot = np.asarray(Image.open(io.BytesIO(one.locator(part).first.screenshot())).convert("RGB"))
            assert colours(shot) > least, (one.get_attribute("data-id"), part)
    page.locator("article").first.scroll_into_view_if_needed()
    page.screenshot(path=tmp_path / "made.png")


# --- Who can use it


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_tab_reaches_everything_in_order_and_shows_where_it_is(visit, size):
    page = visit(size)
    expected = page.evaluate(
        f"""[...document.querySelectorAll(`{FOCUSABLE}`)]
            .filter((e) => e.checkVisibility()).map((e, n) => {{ e.number = n; return n; }})"""
    )
    assert len(expected) > 25
    reached = []
    for _ in expected:
        page.keyboard.press("Tab")
        number, shown, style, width = page.evaluate(
            """() => {
                const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
                return [e.number, box.bottom > 0 && box.top < innerHeight, style.outlineStyle,
                        parseFloat(style.outlineWidth)];
            }"""
        )
        reached.append(number)
        assert shown
        assert style == "solid"
        assert width >= 2
    assert reached == expected


def test_the_skip_link_goes_to_the_samples(visit):
    page = visit()
    assert box(page.locator(".skip"))[3] <= 0
    page.keyboard.press("Tab")
    assert box(page.locator(".skip"))[1] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "samples"


def test_keys_go_from_sample_to_sample(visit):
    page = visit()
    ids = page.evaluate("[...document.querySelectorAll('.sample')].map((e) => e.id)")
    here = lambda: page.evaluate("document.activeElement.id")  # noqa: E731
    for key, place in (("j", 0), ("j", 1), ("ArrowRight", 2), ("k", 1), ("ArrowLeft", 0), ("k", 0), ("j", 1)):
        page.keyboard.press(key)
        assert here() == ids[place]
        top = box(page.locator(f"#{ids[place]}"))[1]
        assert box(page.locator(".bar"))[3] <= top + 1 <= 100  # below the bar, and at the top
    for _ in range(10):
        page.keyboard.press("j")
    assert here() == ids[-1]
    page.evaluate("scrollTo(0, 0); document.activeElement.blur()")
    page.keyboard.press("j")
    assert here() == ids[0]
    page.keyboard.press("Control+j")
    assert here() == ids[0]


def test_switches_and_filter(visit):
    page = visit()
    svg = page.locator(".crop").first
    page.keyboard.press("c")
    assert not svg.is_visible()
    assert page.locator("[data-tool=crops]").get_attribute("aria-pressed") == "false"
    page.keyboard.press("c")
    assert svg.is_visible()

    lists = page.locator(".tokens details")
    opened = page.locator(".tokens details[open]")
    page.get_by_role("button", name="All tokens").click()
    assert opened.count() == lists.count() > 1
    page.keyboard.press("t")
    assert opened.count() == 0

    page.keyboard.press("/")
    page.keyboard.type("COFFEEj")
    assert page.locator(".sample:visible").count() == 0
    page.keyboard.press("Backspace")
    assert page.locator(".sample:visible").count() == 1
    assert page.locator("[data-tool=found]").inner_text() == "1 of 6"
    page.get_by_role("searchbox").fill("")
    assert page.locator(".sample:visible").count() == 6


def test_search_in_captions_and_badges_that_filter(visit):
    page = visit()
    shown, thumbs = page.locator(".sample:visible"), page.locator(".thumb:visible")
    box_of = page.get_by_role("searchbox")
    box_of.fill("spiral galaxies")  # of its caption, in any order
    assert shown.count() == thumbs.count() == 1
    assert shown.first.get_attribute("data-id") == "hubble_deep_field.jpg"
    # The batch without a sample left is gone from everywhere.
    for part in (".batch:visible", ".strip:visible", ".bar li:visible"):
        assert page.locator(part).count() == 1, part
    page.get_by_role("button", name="Show all").click()
    assert shown.count() == thumbs.count() == 6
    assert page.locator(".batch:visible").count() == 2
    cut, stand_in = page.get_by_role("button", name="1 caption cut"), page.get_by_role("button", name="1 in place of")
    cut.click()
    assert shown.count() == 1 and page.locator("[data-tool=found]").inner_text() == "1 of 6"
    stand_in.click()  # either of the two
    assert shown.count() == 2
    box_of.fill("nowhere at all")
    assert shown.count() == 0 and page.get_by_text("No sample matches.").is_visible()
    page.locator("h1").click()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("a")
    assert shown.count() == 6 and not page.get_by_text("No sample matches.").is_visible()
    page.locator(".thumb").nth(4).click()
    assert page.evaluate("location.hash") == "#batch-2-sample-1"


@pytest.mark.parametrize("ratio", [1, 2])
def test_zoom_shows_true_pixels(visit, batches, ratio):
    page = visit(device_scale_factor=ratio)
    page.keyboard.press("j")
    page.keyboard.press("z")
    image = page.locator("#zoom .compare img")
    height, width = all_samples(batches)[0].image.shape[:2]
    size = lambda: image.evaluate("e => [e.getBoundingClientRect().width, e.getBoundingClientRect().height]")  # noqa: E731
    np.testing.assert_allclose(np.array(size()) * ratio, [width, height], atol=0.6)
    assert f"{width} × {height} px" in page.locator("#zoom .facts").inner_text()
    page.get_by_role("button", name="4:1").click()
    np.testing.assert_allclose(np.array(size()) * ratio, [4 * width, 4 * height], atol=0.6)
    page.keyboard.press("Escape")
    assert not page.locator("#zoom").is_visible()
    page.locator(".trained img").nth(1).click()
    assert page.locator("#zoom h2").inner_text() == "motorcycle_left.png"
    assert not page.locator("#zoom input").is_visible()  # no round trip


def test_the_slider_goes_from_the_trained_image_to_the_round_trip(visit):
    page = visit()
    load_pictures(page)
    figure = page.locator(".round-trip")
    plate, slider = figure.locator(".compare"), figure.locator("input")
    figure.scroll_into_view_if_needed()
    page.mouse.move(0, 0)

    def shot(value):
        slider.fill(str(value))
        return np.asarray(Image.open(io.BytesIO(plate.screenshot())).convert("RGB")).astype(int)

    after, half, before = shot(0), shot(50), shot(100)
    width = half.shape[1]
    assert np.abs(after[:, 9:-9] - before[:, 9:-9]).mean() > 1
    np.testing.assert_array_equal(half[:, 9 : width // 2 - 9], before[:, 9 : width // 2 - 9])
    np.testing.assert_array_equal(half[:, width // 2 + 9 : -9], after[:, width // 2 + 9 : -9])
    page.keyboard.press("Escape")
    page.locator(".sample", has=page.locator(".round-trip")).get_by_role("button", name="Zoom").click()
    assert page.locator("#zoom input").is_visible() and page.locator("#zoom .compare img").count() == 2


def test_a_question_mark_shows_the_keys_there_are(visit):
    page = visit()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    assert dialog.is_visible()
    listed = set(page.locator("#keys kbd").all_inner_texts())
    known = set(page.evaluate("Object.keys(keys)"))
    assert listed == known - {"ArrowRight", "ArrowLeft"} | {"→", "←", "Esc"}
    page.keyboard.press("c")  # nothing happens behind it
    assert page.locator("[data-tool=crops]").get_attribute("aria-pressed") == "true"
    dialog.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Keys").click()
    assert dialog.is_visible()


def test_on_a_phone_the_image_as_trained_comes_first(visit):
    for size, first in ((PHONE, True), (DESK, False)):
        article = visit(size).locator(".sample").first
        trained, original = box(article.locator(".trained")), box(article.locator(".original"))
        assert (trained[3] <= original[1]) == first


def test_a_draw_pointed_at_or_ticked_shows_its_frame(visit):
    page = visit(reduced_motion="reduce")
    article = page.locator(".sample").first
    width = lambda n: article.locator(f".of-{n} .dashed").evaluate("e => parseFloat(getComputedStyle(e).strokeWidth)")  # noqa: E731
    plain = width(1)
    article.locator(".draw-2 img").hover()
    assert width(2) > 2 * plain
    page.mouse.move(0, 0)
    assert width(2) == plain
    article.get_by_role("checkbox", name="Show the crop of epoch 1 on the original").press("Space")
    article.locator(".draw-3 img").click()
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    assert width(1) == width(3) > 2 * plain
    assert width(2) == plain


def test_motion_only_for_those_who_like_it(visit):
    durations = [
        visit(reduced_motion=wish)
        .locator(".crop .dashed")
        .first.evaluate("e => parseFloat(getComputedStyle(e).transitionDuration)")
        for wish in ("no-preference", "reduce")
    ]
    assert durations[0] > 0
    assert durations[1] == 0


def test_a_screen_reader_finds_landmarks_headings_and_named_pictures(visit, batches):
    page = visit()
    tree = page.locator("body").aria_snapshot()
    for line in (
        "- link \"Skip to the samples\"",
        "- banner:",
        "- heading \"photos · flux.1-dev\" [level=1]",
        "- navigation \"Batches\":",
        "- main:",
        "- region \"Epoch 0, step 0\":",
        "- heading \"Epoch 0, step 1\" [level=2]",
        "- table \"What the batch holds\":",
        "- columnheader \"Shape\"",
        "- rowheader \"clip_text_tokens\"",
        "- article \"coffee.png\":",
        "- heading \"coffee.png\" [level=3]",
        "- img \"Original of coffee.png, with the part kept for training framed\"",
        "- img \"coffee.png as trained\"",
        "- img \"coffee.png as drawn in epoch 2\"",
        "- img \"chelsea.png after the autoencoder\"",
        "- checkbox \"Show the crop of epoch 1 on the original\"",
        "- note:",
        "- deletion: a spoon",
        "- insertion: cpelletier,",
        "- button \"Crops\" [pressed]",
        "- searchbox \"Search in captions and ids\"",
    ):  # fmt: skip
        assert line in tree, line
    assert "- img\n" not in tree + "\n"
    views = all_samples(batches)
    assert page.get_by_role("img").count() == sum(2 + len(v.draws) + (v.round_trip is not None) for v in views)
    assert page.get_by_role("article").count() == len(views)


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_axe_finds_no_serious_fault(visit, size, scheme):
    page = visit(size, scheme)
    page.evaluate("for (const list of document.querySelectorAll('details')) list.open = true")
    assert serious_faults(page) == []
    for key in ("?", "z"):
        page.keyboard.press(key)
        assert page.get_by_role("dialog").is_visible()
        assert serious_faults(page) == []
        page.keyboard.press("Escape")


def test_without_scripts_everything_is_there(visit):
    page = visit(PHONE, java_script_enabled=False)
    assert page.locator(".sample:visible").count() == 6
    assert not page.locator(".tools").is_visible()
    assert page.get_by_text("5 enlarged").is_visible() and page.locator(".thumb:visible").count() == 6
    assert page.locator(":is(.zoom, dialog, [type=range]):visible").count() == 0
    assert page.get_by_role("img", name="chelsea.png after the autoencoder").is_visible()
    details = page.locator(".tokens details").first
    assert not details.locator("li").first.is_visible()
    details.locator("summary").click()
    assert details.locator("li").first.is_visible()
    assert page.locator(".crop .kept").first.is_visible()
    assert page.get_by_role("link", name="Epoch 0, step 1").is_visible()
    shot = np.asarray(Image.open(io.BytesIO(page.locator(".trained img").first.screenshot())).convert("RGB"))
    assert colours(shot) > 100


def test_on_paper_there_are_no_switches(visit):
    page = visit()
    page.emulate_media(media="print")
    assert not page.locator(".bar").is_visible()
    assert page.locator(".trained img").first.is_visible()


def test_names_of_entries_break_between_words_alone(visit):
    page = visit(PHONE)
    page.locator("details:has(.tensors)").evaluate_all("all => all.forEach(one => one.open = true)")
    lines = page.locator(".tensors tbody th code").evaluate_all(
        """keys => keys.flatMap(key => [...key.childNodes].filter(node => node.data).map(node => {
             const range = document.createRange(); range.selectNodeContents(node);
             return [node.data, range.getClientRects().length] }))"""
    )
    assert len(lines) > 3 and {count for _, count in lines} == {1}, lines

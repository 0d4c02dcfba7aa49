"""The review page in a real browser, on the real server: what is done there is on the disk, and nothing else is."""

import io
import json
import os
import re
import shutil
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from axe import serious_faults
from caption_server import completion, serving
from chromium import DESK, PHONE, contrast
from PIL import Image
from real_tokenizers import flux_pipeline

from calotype.config import load_config
from calotype.manifest import load_manifest

expect = pytest.importorskip("playwright.sync_api", reason="needs playwright").expect
pytestmark = pytest.mark.browser

HOSTILE_CAPTION = (
    '<img src=x onerror="alert(1)"> & "quotes" \' `ticks`\n'
    "</textarea><script>alert(2)</script> \u202eright to left\u202c שלום"
)
HOSTILE_NAMES = [
    "<img src=x onerror=alert(3)>.jpg",
    "a\"b'c.jpg",
    "cat\u202egpj.jpg",
    "line\nbreak.jpg",
    "%2e%2e?#&.jpg",
]


def cell(page, name):
    return cells(page).filter(has_text=name)


def cells(page):
    return page.locator(".cell")


def caption(page):
    return page.get_by_role("textbox", name="Caption", exact=True)


def saved(page):
    expect(page.locator("#save-state")).to_have_text("All saved")


def loaded(image):
    expect(image).to_have_attribute("src", re.compile(r"\?v="))
    assert image.evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 0


def filtered(page, text, count):
    page.fill("#filter", text)
    expect(page.locator("#count")).to_have_text(count)


# --- The whole path


def test_find_edit_undo_reject_replace_and_load_again(visit, server, folder):
    page = visit(server)
    expect(page).to_have_title("photos · calotype studio")
    expect(page.locator(".cell .name")).to_have_text(sorted(path.name for path in folder.glob("*.[pj][np]g")))

    page.keyboard.press("/")
    page.keyboard.type("caption:red")
    expect(page.locator("#count")).to_have_text("2 of 5 images")
    page.keyboard.press("Enter")
    page.keyboard.press("j")
    expect(page.locator("#pane h2")).to_have_text("coffee.png")

    page.keyboard.press("e")
    page.keyboard.type(", morning light")
    saved(page)
    assert (folder / "coffee.txt").read_text() == "a cup of coffee, a red table, morning light\n"
    expect(cell(page, "coffee.png")).to_contain_text("a cup of coffee, a red table")

    page.keyboard.press("Escape")
    page.keyboard.press("u")
    expect(page.locator("#toasts")).to_contain_text("Undone: edit coffee.png")
    expect(caption(page)).to_have_value("a cup of coffee, a red table")
    assert (folder / "coffee.txt").read_text() == "a cup of coffee, a red table\n"

    page.keyboard.press("x")
    expect(page.get_by_role("button", name="Rejected", exact=True)).to_have_attribute("aria-pressed", "true")
    saved(page)
    assert "coffee.png" not in load_manifest(folder, missing_captions="empty").ids.to_pylist()
    assert (folder / "coffee.png").exists()

    page.click("#open-bulk")
    dialog = page.get_by_role("dialog", name="Find and replace")
    dialog.get_by_label("Find").fill("red")
    dialog.get_by_label("Replace with").fill("crimson")
    dialog.get_by_role("button", name="Preview").click()
    expect(dialog.locator(".examples li")).to_have_count(2)
    assert dialog.locator(".examples del").all_inner_texts() == ["red", "red"]
    assert dialog.locator(".examples ins").all_inner_texts() == ["crimson", "crimson"]
    assert (folder / "coffee.txt").read_text() == "a cup of coffee, a red table\n"  # only looked at
    dialog.get_by_role("button", name="Replace in 2 images").click()
    expect(cell(page, "astronaut.png")).to_contain_text("a woman in a crimson suit")
    assert (folder / "astronaut.txt").read_text() == "a woman in a crimson suit, smiling\n"

    page.reload()
    expect(page.locator("#count")).to_have_text("0 of 5 images")  # the filter is kept, and nothing is red now
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    expect(cells(page)).to_have_count(5)
    expect(cell(page, "coffee.png")).to_contain_text("crimson table")
    expect(cell(page, "coffee.png")).to_contain_text("rejected")
    expect(page.locator("#undo")).to_be_enabled()
    page.click("#open-history")
    steps = page.get_by_role("dialog", name="History").locator("li")
    expect(steps.first).to_contain_text("replace")
    expect(steps.last).to_contain_text("reject coffee.png")


def test_a_filter_that_is_wrong_says_where(visit, server):
    page = visit(server, refusals=["422"])
    page.fill("#filter", "caption:red AND words>many")
    wrong = page.locator("#filter-error")
    expect(wrong.locator("mark")).to_have_text("many")
    expect(wrong).to_contain_text("expected a number")
    expect(page.locator("#filter")).to_have_attribute("aria-invalid", "true")
    expect(cells(page)).to_have_count(5)  # what was shown still is
    filtered(page, "words>4", "2 of 5 images")
    expect(wrong).to_be_hidden()


def test_chips_write_the_filter_and_count(visit, server):
    page = visit(server)
    chip = page.get_by_role("button", name="No caption")
    expect(chip).to_have_text("No caption 1")
    filtered(page, "ginger OR rocket", "2 of 5 images")
    chip.click()
    expect(page.locator("#filter")).to_have_value("(ginger OR rocket) no:caption")
    expect(page.locator("#count")).to_have_text("0 of 5 images")
    chip.click()
    expect(page.locator("#filter")).to_have_value("ginger OR rocket")
    expect(chip).to_have_attribute("aria-pressed", "false")


def test_duplicates_are_shown_beside_each_other(studio, visit, folder):
    shutil.copy(folder / "chelsea.png", folder / "chelsea-again.png")
    server = studio(folder)
    page = visit(server)
    page.get_by_role("button", name="Duplicates").click()
    expect(cells(page)).to_have_count(2)
    expect(page.locator("#count")).to_have_text("2 of 6 images")
    expect(page.locator(".chip[data-term='is:duplicate'] b")).to_have_text("2")
    expect(page.locator("#pane h2")).to_have_text("chelsea-again.png")
    page.locator(".duplicates button").click()
    expect(page.locator("#pane h2")).to_have_text("chelsea.png")


def test_the_keys(visit, server):
    page = visit(server)
    grid, name = page.locator("#grid"), page.locator("#pane h2")
    expect(grid).to_be_focused()
    first, second, third, last = "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"
    presses = {"j": second, "ArrowRight": third, "k": second, "End": last, "ArrowDown": last, "Home": first}
    for key, shown in presses.items():
        page.keyboard.press(key)
        expect(name).to_have_text(shown)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Help")).to_be_visible()
    page.keyboard.press("j")  # nothing behind a dialog moves
    page.keyboard.press("Escape")
    expect(name).to_have_text("astronaut.png")
    expect(grid).to_be_focused()
    page.keyboard.press("e")
    box = caption(page)
    expect(box).to_be_focused()
    page.keyboard.type(" jkxru/?")  # letters, in a caption
    saved(page)
    page.keyboard.press("Escape")
    expect(grid).to_be_focused()
    page.keyboard.press("Control+z")
    expect(box).to_have_value("a woman in a red suit, smiling")
    page.keyboard.press("Control+Shift+z")
    expect(box).to_have_value("a woman in a red suit, smiling jkxru/?")


def test_several_captions_and_their_tokens(studio, visit, folder):
    server = studio(folder, "model=flux.1-dev", f"tokenizers={flux_pipeline()}")
    page = visit(server)
    tokens = page.locator("#pane .tokens")
    expect(tokens).to_contain_text("CLIP 10 of 77")
    page.keyboard.press("e")
    page.keyboard.press("Control+a")
    page.keyboard.type("very " * 90)
    expect(tokens).to_contain_text("CLIP 92 of 77")
    expect(tokens).to_contain_text("cut off after")
    expect(tokens).to_contain_text("T5 ")
    page.get_by_role("button", name="Add a caption").click()
    page.keyboard.type("a second one")
    saved(page)
    expect(cell(page, "astronaut.png")).to_contain_text("2 captions")
    assert load_manifest(folder, missing_captions="empty").captions.to_pylist()[0] == ["very " * 90, "a second one"]
    page.get_by_role("button", name="Remove caption 1").click()
    saved(page)
    expect(caption(page)).to_have_value("a second one")
    assert load_manifest(folder, missing_captions="empty").captions.to_pylist()[0] == ["a second one"]
    filtered(page, "tokens.clip<5", "1 of 5 images")  # that without a caption
    filtered(page, "tokens.clip=5", "2 of 5 images")


# --- Twenty thousand


@pytest.fixture(scope="module")
def many(tmp_path_factory, skimage_data):
    """20,000 images: ten small photos under many names."""
    folder = tmp_path_factory.mktemp("many")
    with Image.open(skimage_data / "coffee.png") as photo:
        for turn in range(10):
            photo.convert("RGB").rotate(36 * turn).resize((96, 64)).save(folder / f"{turn:05d}.jpg")
    for number in range(10, 20_000):
        os.link(folder / f"{number % 10:05d}.jpg", folder / f"{number:05d}.jpg")
    lines = [json.dumps({"file_name": f"{n:05d}.jpg", "text": f"caption number {n}"}) for n in range(20_000)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_twenty_thousand_images(studio, visit, many):
    server = studio(many)
    page = visit(server)
    expect(page.locator("#count")).to_have_text("20,000 images")
    grid = page.locator("#grid")
    most = page.evaluate(
        """async () => {
            // From the top to the end in 30 leaps, a frame each.
            const grid = document.querySelector("#grid");
            let most = 0;
            for (let i = 0; i <= 30; i++) {
              grid.scrollTop = (grid.scrollHeight * i) / 30;
              await new Promise(requestAnimationFrame);
              await new Promise(requestAnimationFrame);
              if (!grid.querySelector(".cell")) throw new Error(`nothing shown at ${grid.scrollTop}`);
              most = Math.max(most, document.querySelectorAll("*").length);
            }
            return most;
        }"""
    )
    assert most < 400
    last = cell(page, "19999.jpg")
    expect(last).to_contain_text("caption number 19999")
    expect(last).to_have_attribute("aria-posinset", "20000")
    loaded(last.locator("img"))

    page.keyboard.press("End")
    expect(page.locator("#pane h2")).to_have_text("19999.jpg")
    expect(grid).to_be_focused()
    expect(grid).to_have_attribute("aria-activedescendant", "cell-19999")
    page.keyboard.press("Home")
    expect(page.locator("#pane h2")).to_have_text("00000.jpg")
    expect(cell(page, "00000.jpg")).to_be_in_viewport()
    expect(grid).to_be_focused()

    filtered(page, "caption:1999", "12 of 20,000 images")
    expect(page.locator(".cell .name").first).to_have_text("01999.jpg")
    page.locator("#sort").select_option("-id")
    expect(page.locator(".cell .name").first).to_have_text("19999.jpg")
    page.locator(".cell").first.click()
    page.keyboard.press("e")
    page.keyboard.type("!")
    saved(page)
    assert json.loads((many / "metadata.jsonl").read_text().splitlines()[-1])["text"] == "caption number 19999!"


# --- Others change things too


def test_two_tabs(visit, server, folder):
    one, other = visit(server), visit(server, refusals=["409"])
    one.keyboard.press("e")
    one.keyboard.type(" (one)")
    saved(one)
    box = caption(other)
    expect(box).to_have_value("a woman in a red suit, smiling (one)")
    expect(cell(other, "astronaut.png")).to_be_visible()

    # While one types and is not saved yet, the other saves.
    other.route("**/api/edit", lambda route: (one.keyboard.type(" again"), saved(one), route.continue_()), times=1)
    other.keyboard.press("e")
    other.keyboard.type(" (other)")
    conflict = other.locator(".conflict")
    expect(conflict).to_contain_text("a woman in a red suit, smiling (one) again")
    expect(conflict).to_contain_text("a woman in a red suit, smiling (one) (other)")
    expect(other.locator("#save-state")).to_have_text("Not saved: changed on disk meanwhile")
    assert (folder / "astronaut.txt").read_text() == "a woman in a red suit, smiling (one) again\n"
    other.keyboard.type(" later")
    expect(conflict).to_contain_text("(other) later")
    other.get_by_role("button", name="Keep mine").click()
    saved(other)
    expect(conflict).to_have_count(0)
    assert (folder / "astronaut.txt").read_text() == "a woman in a red suit, smiling (one) (other) later\n"
    expect(caption(one)).to_have_value("a woman in a red suit, smiling (one) (other) later")


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        ("Use the version on disk", ["by another program"]),
        ("Keep both", ["by another program", "a woman in a red suit, smiling, mine"]),
    ],
)
def test_a_file_that_is_changed_meanwhile(visit, server, folder, choice, kept):
    page = visit(server, refusals=["409"])
    another = lambda: (folder / "astronaut.txt").write_text("by another program\n")  # noqa: E731
    page.route("**/api/edit", lambda route: (another(), route.continue_()), times=1)
    page.keyboard.press("e")
    page.keyboard.type(", mine")
    conflict = page.locator(".conflict")
    expect(conflict).to_contain_text("by another program")
    expect(conflict).to_contain_text(", mine")
    assert (folder / "astronaut.txt").read_text() == "by another program\n"
    page.get_by_role("button", name=choice).click()
    saved(page)
    assert page.locator(".captions textarea").evaluate_all("boxes => boxes.map((box) => box.value)") == kept
    assert load_manifest(folder, missing_captions="empty").captions.to_pylist()[0] == kept


def test_images_that_come_and_go(visit, server, folder):
    page = visit(server, refusals=["404"])
    shutil.copy(folder / "rocket.jpg", folder / "zebra.jpg")
    (folder / "coffee.png").unlink()
    expect(page.locator("#count")).to_have_text("6 images")
    expect(cell(page, "zebra.jpg")).to_be_visible()
    expect(cell(page, "coffee.png")).to_contain_text("removed from disk")


def test_a_server_that_is_away_for_a_while(visit, server, folder):
    page = visit(server, refusals=["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"])
    server.stop()
    page.keyboard.press("e")
    page.keyboard.type(" and waiting")
    state = page.locator("#save-state")
    expect(state).to_contain_text("Not saved: the server does not respond")
    page.keyboard.press("Escape")
    page.keyboard.press("j")  # what was typed is not forgotten
    server.start()
    saved(page)
    assert (folder / "astronaut.txt").read_text() == "a woman in a red suit, smiling and waiting\n"


def test_a_server_that_numbers_the_images_otherwise_by_now(visit, server, folder):
    before = {path.name: path.read_text() for path in folder.glob("*.txt")}
    page = visit(server, refusals=["ERR_", "404"])
    page.keyboard.press("End")
    expect(page.locator("#pane h2")).to_have_text("rocket.jpg")
    server.stop()
    page.keyboard.press("e")
    page.keyboard.type(", starting")
    shutil.copy(folder / "coffee.png", folder / "a.png")  # the first from now on
    server.start()
    expect(page.locator("#save-state")).to_contain_text("Not saved: calotype studio was restarted")
    expect(caption(page)).to_have_value("a rocket at night, starting")  # to be copied
    assert {path.name: path.read_text() for path in folder.glob("*.txt")} == before


def test_what_the_server_refuses_does_not_hold_up_the_rest(visit, server, folder):
    page = visit(server, refusals=["422"])
    caption(page).fill("x" * 20_001)
    state = page.locator("#save-state")
    expect(state).to_contain_text("Not saved: captions: a text has ")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    caption(page).fill("a red cat")
    page.keyboard.press("Escape")
    expect(cell(page, "chelsea.png")).to_contain_text("a red cat")
    assert (folder / "chelsea.txt").read_text() == "a red cat\n"
    page.get_by_role("button", name="Show it").click()
    caption(page).fill("short")
    saved(page)
    assert (folder / "astronaut.txt").read_text() == "short\n"


def test_what_can_only_be_read(studio, visit, folder, tmp_path):
    rows = {"image": [str(path) for path in folder.glob("*.png")], "text": [f"caption of {n}" for n in range(4)]}
    pq.write_table(pa.table(rows), tmp_path / "photos.parquet")
    page = visit(studio(tmp_path / "photos.parquet"))
    expect(page.locator("#read-only")).to_contain_text("calotype convert")
    expect(caption(page)).to_have_attribute("readonly", "")
    page.keyboard.press("x")
    expect(page.locator("#toasts")).to_contain_text("calotype convert")
    expect(page.get_by_role("button", name="Reject", exact=True)).to_be_disabled()
    expect(page.get_by_role("button", name="Replace…")).to_be_disabled()


# --- What is in the data stays text


def test_hostile_names_and_captions(studio, visit, folder):
    for name in HOSTILE_NAMES:
        shutil.copy(folder / "rocket.jpg", folder / name)
        (folder / name).with_suffix(".txt").write_text(HOSTILE_CAPTION.replace("\n", " "))
    (folder / "broken.jpg").write_bytes(b"<script>alert(4)</script>")
    server = studio(folder)
    page = visit(server, refusals=["404"])  # a dialog would be a complaint
    expect(cells(page)).to_have_count(11)
    expect(cells(page).last).to_contain_text("rocket.jpg")
    shown = " ".join(page.locator(".cell .name").all_inner_texts())
    for part in ("<img src=x onerror=alert(3)>.jpg", "a\"b'c.jpg", "U+202E", "%2e%2e?#&.jpg"):
        assert part in shown
    assert "\u202e" not in shown
    assert "line↵break.jpg" in shown
    expect(cell(page, "broken.jpg").first).to_have_class(re.compile("no-image"))
    assert page.locator("script").count() == 1
    for name in HOSTILE_NAMES[:1] + HOSTILE_NAMES[2:3]:
        cell(page, name.partition("\u202e")[0].partition("\n")[0]).last.click()
        page.keyboard.press("e")
        box = caption(page)
        box.fill(HOSTILE_CAPTION)
        saved(page)
        expect(page.locator(".hidden-signs")).to_contain_text("U+202E")
        page.keyboard.press("Escape")
    page.click("#open-bulk")
    dialog = page.get_by_role("dialog", name="Find and replace")
    dialog.get_by_label("Find").fill("<img")
    dialog.get_by_label("Replace with").fill("<b>")
    dialog.get_by_role("button", name="Preview").click()
    expect(dialog.locator(".examples ins").first).to_have_text("<b>")
    page.keyboard.press("Escape")
    loaded(cells(page).first.locator("img"))
    assert page.evaluate("document.querySelectorAll('[onerror], body script, #grid b').length") == 0


def test_the_policy_is_in_force(visit, server):
    page = visit(server, refusals=["violates"])
    broken = page.evaluate(
        """async () => {
            const broken = [];
            addEventListener("securitypolicyviolation", (event) => broken.push(event.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            await new Promise((done) => setTimeout(done, 50));
            return [broken, window.ran ?? false, document.cookie];
        }"""
    )
    assert broken == [["script-src-elem"], False, ""]


# --- Captioning, augmentations


def test_captioning_with_progress_and_cancel(visit, server, folder):
    go = threading.Event()

    def slowly(asked):
        go.wait(20)
        return completion(f"image {asked.image.width} wide")

    with serving(slowly) as captioner:
        page = visit(server)
        page.click("#open-captioning")
        dialog = page.get_by_role("dialog", name="Caption")
        dialog.get_by_label("Backend").select_option("http")
        dialog.get_by_label("URL of the server").fill(captioner.url)
        dialog.get_by_label("Model").fill("tiny-vl")
        dialog.get_by_role("button", name="Start").click()
        run = page.get_by_role("region", name="Captioning")
        expect(run).to_contain_text("0 of 1 image")
        go.set()
        expect(run).to_contain_text("Captioned")
        expect(cell(page, "motorcycle_left.png")).to_contain_text("image 224 wide")
        assert (folder / "motorcycle_left.txt").read_text() == "image 224 wide\n"
        assert (folder / "chelsea.txt").read_text() == "a ginger cat\n"  # it had one

        go.clear()
        page.locator("#grid").focus()
        page.keyboard.press("Home")
        page.keyboard.press("r")
        expect(run).to_contain_text("Captioning")
        run.get_by_role("button", name="Cancel").click()
        go.set()
        expect(run).to_contain_text("Captioning cancelled")
        page.locator("#grid").focus()
        page.keyboard.press("r")
        expect(caption(page)).to_have_value("image 160 wide")
        expect(run).to_contain_text("Captioned")
        page.keyboard.press("u")
        expect(caption(page)).to_have_value("a woman in a red suit, smiling")


def test_augmentations_are_drawn_and_written(studio, visit, folder, tmp_path):
    config = tmp_path / "photos.yaml"
    config.write_text(
        f"# mine\ndataset:\n  path: {folder}\n  resolution: 128\n  buckets: {{multiple: 32}}\n"
        "  img_transform: {random_crop: true, rotate: [-3, 9]}  # turned a little\n"
    )
    server = studio(config)
    page = visit(server, refusals=["422"])
    page.click("#open-augment")
    dialog = page.get_by_role("dialog", name="Augmentations")
    draws = dialog.locator(".draw")
    expect(draws).to_have_count(6)
    expect(draws.first).to_contain_text("a woman in a red suit")
    before = [image.get_attribute("src") for image in draws.locator("img").all()]
    dialog.get_by_label("Horizontal flip", exact=True).fill("1")
    expect(dialog.get_by_text("flipped")).to_have_count(6)
    dialog.get_by_label("Trigger", exact=True).fill("ohwx")
    scale = dialog.get_by_label("Scale, at least", exact=True)
    expect(scale).to_have_value("1")
    scale.fill("0.5")
    scale.fill("1")  # as before: written as true
    expect(dialog.get_by_label("Rotate")).to_have_value("[-3,9]")  # what no slider can show
    expect(draws.locator("ins")).to_have_count(6)
    after = [image.get_attribute("src") for image in draws.locator("img").all()]
    for old, new in zip(before, after, strict=True):
        assert old.startswith("data:image/webp;base64,")
        assert new != old
    dialog.get_by_label("Resize").fill("64")
    expect(dialog.get_by_role("alert")).to_contain_text("found resize")
    dialog.get_by_label("Resize").fill("")
    expect(dialog.get_by_role("alert")).to_be_hidden()
    dialog.get_by_role("button", name="Preview the change").click()
    expect(dialog.locator(".diff ins")).not_to_have_count(0)
    assert "ohwx" not in config.read_text()
    dialog.get_by_role("button", name=f"Write {config}").click()
    expect(dialog.locator(".offer")).to_contain_text("Written")
    dataset = load_config(str(config))["dataset"]
    assert dataset["img_transform"] == {"random_crop": True, "rotate": [-3, 9], "horizontal_flip": 1}
    assert dataset["caption_transform"] == {"trigger": "ohwx"}
    assert config.read_text().startswith("# mine\n")


# --- For everybody


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (DESK, "dark"), (PHONE, "light"), (PHONE, "dark")])
def test_it_fits_stands_out_and_is_named(visit, server, size, scheme):
    page = visit(server, size, scheme)
    cell(page, "chelsea.png").click()
    loaded(page.locator(".pane .large"))
    check_view(page, size, scheme)
    assert serious_faults(page) == []
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    assert len(np.unique((shot // 16).astype(int) @ [256, 16, 1])) > 150  # photos, not flat fields
    page.get_by_role("button", name="Back").click() if size == PHONE else page.keyboard.press("Escape")
    if size == PHONE:
        page.click("#menu")
    dialogs = {"open-tagging": "Tags and words", "open-bulk": "Find and replace", "open-augment": "Augmentations",
               "open-help": "Help", "open-captioning": "Caption", "open-history": "History"}  # fmt: skip
    for button, name in dialogs.items():
        page.click(f"#{button}")
        expect(page.get_by_role("dialog", name=name)).to_be_visible()
        check_view(page, size, scheme)
        assert serious_faults(page) == []
        page.keyboard.press("Escape")
        expect(page.locator(f"#{button}")).to_be_focused()


def check_view(page, size, scheme):
    """What is open is not wider than the screen, its texts stand out, and its controls have names."""
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    found = page.evaluate(
        """() => {
            const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
            const ground = (element) => {
              for (let e = element; e; e = e.parentElement) {
                const [r, g, b, a = 1] = numbers(getComputedStyle(e).backgroundColor);
                if (a > 0.8) return [r, g, b];
              }
              return numbers(getComputedStyle(document.body).backgroundColor);
            };
            const root = document.querySelector("dialog[open]") ?? document.body;
            const shown = [...root.querySelectorAll("*")]
              .filter((e) => e.checkVisibility() && !e.closest(".skip, .toasts"));
            const texts = shown
              .filter((e) => !e.closest(":disabled, option"))
              .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
              .map((e) => [e.outerHTML.slice(0, 80), numbers(getComputedStyle(e).color).slice(0, 3), ground(e)]);
            const controls = shown.filter((e) => e.matches("button, input, select, textarea, progress"));
            const nameless = controls
              .filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim()))
              .map((e) => e.outerHTML.slice(0, 80));
            const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
            return [texts, nameless, ids.filter((id, i) => ids.indexOf(id) !== i), shown
              .filter((e) => e.matches("img") && e.getAttribute("alt") === null).length];
        }"""
    )
    texts, nameless, twice, without_alt = found
    assert texts
    assert {html for html, ink, under in texts if contrast(ink, under) < 4.5} == set()
    assert (nameless, twice, without_alt) == ([], [], 0)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(22, 22, 22)") is (scheme == "dark")


def test_a_screen_reader_finds_its_way(visit, server):
    page = visit(server)
    tree = page.locator("body").aria_snapshot()
    for line in (
        '- link "Skip to the images"',
        '- heading "photos" [level=1]',
        "- status: All saved",
        '- searchbox "Filter"',
        '- group "Quick filters":',
        '- listbox "Images":',
        '- option "astronaut.png a woman in a red suit, smiling" [selected]',
        '- region "The image and its captions":',
        '- img "Image astronaut.png"',
        '- textbox "Caption"',
        '- button "Next image"',
    ):
        assert line in tree, f"{line}\n{tree}"
    assert page.locator("[role=status], [role=alert], output").count() >= 3


def test_on_a_phone_the_image_lies_over_the_grid(visit, server, folder):
    page = visit(server, PHONE)
    expect(page.locator("#pane")).to_be_hidden()
    cell(page, "chelsea.png").click()
    expect(page.locator("#pane h2")).to_have_text("chelsea.png")
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.locator("#pane").evaluate("(pane) => pane.scrollWidth <= pane.clientWidth")
    caption(page).fill("a cat on a phone")
    page.get_by_role("button", name="Back").click()
    expect(page.locator("#pane")).to_be_hidden()
    saved(page)
    assert (folder / "chelsea.txt").read_text() == "a cat on a phone\n"

"""Several images at once, statistics, tags that complete, and how an image is trained: in a real browser."""

import re
import threading

import pytest
from axe import serious_faults
from caption_server import completion, serving
from chromium import DESK, PHONE

from calotype.editing import captions
from calotype.editing.folder_captions import FolderCaptions
from calotype.manifest import load_manifest

expect = pytest.importorskip("playwright.sync_api", reason="needs playwright").expect
pytestmark = pytest.mark.browser


def cell(page, name):
    return page.locator(".cell").filter(has_text=name)


def chosen(page, *names):
    expect(page.locator(".cell.chosen .name")).to_have_text(list(names))


def texts(folder):
    return {path.stem: path.read_text() for path in folder.glob("*.txt")}


def test_selecting_and_changing_several(visit, server, folder):
    page = visit(server)
    before = texts(folder)
    bar = page.get_by_role("region", name="Selection")
    expect(bar).to_be_hidden()
    cell(page, "chelsea.png").click(modifiers=["Control"])
    expect(bar).to_contain_text("2 images selected")  # with the current one
    chosen(page, "astronaut.png", "chelsea.png")
    cell(page, "astronaut.png").click(modifiers=["Control"])
    expect(bar).to_be_hidden()
    cell(page, "chelsea.png").click()
    cell(page, "motorcycle").click(modifiers=["Shift"])
    chosen(page, "chelsea.png", "coffee.png", "motorcycle_left.png")
    page.keyboard.press("Escape")
    chosen(page)

    # A rectangle from the first cell to the second.
    first, second = cell(page, "astronaut.png").bounding_box(), cell(page, "chelsea.png").bounding_box()
    page.mouse.move(first["x"] + 20, first["y"] + 20)
    page.mouse.down()
    page.mouse.move(second["x"] + 30, second["y"] + 60, steps=4)
    page.mouse.up()
    expect(bar).to_contain_text("2 images selected")
    chosen(page, "astronaut.png", "chelsea.png")

    page.keyboard.press("t")
    dialog = page.get_by_role("dialog", name="Tags and words")
    dialog.get_by_label("Text").fill("photo")
    dialog.get_by_role("button", name="Change").click()
    expect(page.locator("#toasts")).to_contain_text("Add the tag “photo”: 2 images.")
    expect(cell(page, "chelsea.png")).to_contain_text("a ginger cat, photo")
    assert texts(folder) == before | {key: f"{before[key].strip()}, photo\n" for key in ("astronaut", "chelsea")}
    page.keyboard.press("u")
    expect(cell(page, "chelsea.png")).not_to_contain_text("photo")
    assert texts(folder) == before

    page.fill("#filter", "caption:red")
    expect(page.locator("#count")).to_have_text("2 of 5 images")
    chosen(page, "astronaut.png")  # what is not shown is not selected
    page.keyboard.press("Enter")
    page.keyboard.press("Control+a")
    expect(bar).to_contain_text("2 images selected")
    page.keyboard.press("x")
    expect(cell(page, "coffee.png")).to_contain_text("rejected")
    left = load_manifest(folder, missing_captions="empty").ids.to_pylist()
    assert left == ["chelsea.png", "motorcycle_left.png", "rocket.jpg"]
    page.keyboard.press("x")
    expect(cell(page, "coffee.png")).not_to_contain_text("rejected")
    assert len(load_manifest(folder, missing_captions="empty")) == 5
    bar.get_by_role("button", name="Clear").click()
    expect(bar).to_be_hidden()


def test_statistics_filter_by_a_click(visit, server):
    page = visit(server)
    page.click("#open-statistics")
    panel = page.get_by_role("region", name="Statistics")
    red = panel.get_by_role("button", name="red 2")
    red.click()
    expect(page.locator("#filter")).to_have_value("word:red")
    expect(page.locator("#count")).to_have_text("2 of 5 images")
    expect(red).to_have_attribute("aria-pressed", "true")
    panel.get_by_role("button", name="a cup of coffee 1").click()
    expect(page.locator("#filter")).to_have_value('word:red tag:"a cup of coffee"')
    expect(page.locator("#count")).to_have_text("1 of 5 images")
    panel.get_by_role("button", name="a cup of coffee 1").click()
    red.click()
    expect(page.locator("#count")).to_have_text("5 images")
    for title in ("Tags", "Words", "Buckets", "Sizes", "Folders"):
        expect(panel.get_by_role("heading", name=re.compile(title))).to_be_visible()
    assert serious_faults(page) == []


def test_a_tag_is_completed(visit, server, folder):
    page = visit(server)
    box = page.get_by_role("textbox", name="Caption", exact=True)
    page.keyboard.press("e")
    page.keyboard.type(", a gin")
    option = page.get_by_role("option", name="a ginger cat 1")
    expect(option).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(box).to_have_value("a woman in a red suit, smiling, a ginger cat")
    expect(option).to_be_hidden()
    expect(page.locator("#save-state")).to_have_text("All saved")
    assert (folder / "astronaut.txt").read_text() == "a woman in a red suit, smiling, a ginger cat\n"
    page.keyboard.type(", a gin")
    page.keyboard.press("Escape")  # of the field: nothing is offered twice
    expect(page.locator("#grid")).to_be_focused()


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_how_an_image_is_trained_and_its_pixels(studio, visit, folder, size):
    page = visit(studio(folder, "resolution=64", "buckets={multiple: 32}"), size)
    cell(page, "chelsea.png").click()
    page.get_by_role("button", name="As trained").click()
    expect(page.locator("#pane")).to_contain_text(re.compile(r"Trained as \d+ × \d+ · .* cropped"))
    crop, image = page.locator(".crop").bounding_box(), page.locator(".pane .large").bounding_box()
    assert crop["x"] >= image["x"] - 3 and crop["width"] <= image["width"] + 6
    page.get_by_role("button", name="Next image").click()
    expect(page.locator("#pane")).to_contain_text("Trained as")
    page.get_by_role("button", name="True pixels").click()
    width, natural = page.locator(".pane .large").evaluate("(image) => [image.clientWidth, image.naturalWidth]")
    assert width == natural
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert serious_faults(page) == []


def test_the_size_of_thumbnails_and_seldom_chips(visit, server, folder):
    page = visit(server, refusals=["404"])
    expect(page.get_by_role("button", name="Unreadable")).to_be_hidden()
    width = cell(page, "coffee.png").bounding_box()["width"]
    page.locator("#size").fill("320")
    assert cell(page, "coffee.png").bounding_box()["width"] > 1.5 * width
    (folder / "broken.jpg").write_bytes(b"no image")
    chip = page.get_by_role("button", name="Unreadable 1")
    chip.click()
    expect(page.locator(".cell .name")).to_have_text(["broken.jpg"])


def test_on_a_phone_no_control_is_cut(visit, server):
    page = visit(server, PHONE)
    page.click("#menu")
    outside = page.evaluate(
        """() => [...document.querySelectorAll(".top button, .top select, .top input")]
             .filter((e) => e.checkVisibility())
             .map((e) => [e.id || e.textContent, e.getBoundingClientRect()])
             .filter(([, { left, right }]) => left < 0 || right > innerWidth)
             .map(([name]) => name)"""
    )
    assert outside == []
    page.click("#open-statistics")
    assert serious_faults(page) == []
    page.get_by_role("button", name="Close the statistics").click()
    expect(page.locator("#statistics")).to_be_hidden()


def test_captioning_those_selected(visit, server, folder):
    with serving(lambda asked: completion(f"image {asked.image.width} wide")) as captioner:
        page = visit(server)
        page.click("#open-captioning")
        dialog = page.get_by_role("dialog", name="Caption")
        where, mode = dialog.locator("select").nth(0), dialog.locator("select").nth(1)
        expect(where.locator("option")).to_have_text(["those shown (5)", "this one", "all (5)"])
        page.keyboard.press("Escape")
        cell(page, "chelsea.png").click()
        cell(page, "coffee.png").click(modifiers=["Control"])
        page.click("#open-captioning")
        expect(where).to_have_value("selected")
        expect(where.locator("option").first).to_have_text("those selected (2)")
        mode.select_option("replace")
        dialog.get_by_label("Also replace").check()
        dialog.get_by_label("Backend").select_option("http")
        dialog.get_by_label("URL of the server").fill(captioner.url)
        dialog.get_by_label("Model").fill("tiny-vl")
        before = texts(folder)
        dialog.get_by_role("button", name="Start").click()
        expect(page.get_by_role("region", name="Captioning")).to_contain_text("Captioned2 of 2 images")
    assert texts(folder) == before | {"chelsea": "image 176 wide\n", "coffee": "image 192 wide\n"}


def test_a_long_change_shows_its_progress_and_is_cancelled(visit, server, folder, monkeypatch):
    go, back_up = threading.Event(), captions.back_up
    monkeypatch.setattr(captions, "back_up", lambda *some, **more: (go.wait(20), back_up(*some, **more))[1])
    page = visit(server)
    before = texts(folder)
    page.click("#open-bulk")
    dialog = page.get_by_role("dialog", name="Find and replace")
    dialog.get_by_label("Find").fill("a ")
    dialog.get_by_label("Replace with").fill("the ")
    dialog.get_by_role("button", name="Preview").click()
    dialog.get_by_role("button", name="Replace in").click()
    writing = page.get_by_role("region", name="Writing")
    expect(writing).to_contain_text("Replace “a ” with “the ”changing captions: 4 of 4 images")
    assert serious_faults(page) == []
    writing.get_by_role("button", name="Cancel").click()
    expect(writing).to_contain_text("Stopping…")
    go.set()
    expect(page.locator("#toasts")).to_contain_text("0 images. It was cancelled")
    expect(writing).to_be_hidden()
    assert texts(folder) == before


def test_the_page_opens_before_all_captions_are_read(visit, studio, folder, monkeypatch):
    go, read = threading.Event(), FolderCaptions.read_beside

    def late(self, ids):
        if threading.current_thread().name == "calotype-studio-scans":
            go.wait(20)
        return read(self, ids)

    monkeypatch.setattr(FolderCaptions, "read_beside", late)
    page = visit(studio(folder))
    expect(cell(page, "chelsea.png")).to_contain_text("a ginger cat")
    expect(page.locator("#reading")).to_have_text("reading captions: 0 of 5")
    page.locator("#filter").fill("cat")
    go.set()
    expect(page.locator("#reading")).to_be_hidden()
    expect(page.locator(".cell .name")).to_have_text(["chelsea.png"])
    expect(page.locator('.chip[data-term="no:caption"] b')).to_have_text("1")

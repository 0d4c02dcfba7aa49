"""The preview's page without a browser: whole, escaped, self-contained, and true to the views it was made from."""

import base64
import hashlib
import io
import itertools
import random
import re

import numpy as np
import pytest
from page_tree import plain, read_page
from PIL import Image
from preview_examples import (
    CAPTIONS,
    HOSTILE_CAPTION,
    HOSTILE_ID,
    all_samples,
    batch,
    enlarged,
    example,
    photo,
    round_trip,
    sample,
    show,
    trained,
)

from calotype.models.pieces import TokenPiece
from calotype.previews.crop import corners
from calotype.previews.markup import Html, tag, text
from calotype.previews.page import render_page
from calotype.previews.views import TokenView
from calotype.transforms import ImageTransform
from calotype.types import SampleKey


@pytest.fixture(scope="module")
def batches():
    return example()


@pytest.fixture(scope="module")
def source(batches):
    return render_page(batches, title="photos · flux.1-dev")


@pytest.fixture(scope="module")
def page(source):
    return read_page(source)


def pixels(img):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(img["src"].partition(",")[2]))).convert("RGB"))


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


def fact(article, name):
    (row,) = [row for row in article.one(class_="geometry").all("tr") if row.one("th").text() == name]
    return row.one("td").text()


# --- One whole page


def test_every_tag_closes_and_every_reference_is_there(page):
    ids = [node["id"] for node in page.walk() if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    for node in page.walk():
        for key in ("aria-labelledby", "for"):
            assert node.attributes.get(key, ids[0]) in ids
        if (node.attributes.get("href") or "").startswith("#"):
            assert node["href"][1:] in ids
    assert [node.name for node in page.children if not isinstance(node, str)] == ["html"]


def test_headings_go_down_a_step_at_a_time(page):
    levels = [int(node.name[1]) for node in page.walk() if re.fullmatch(r"h[1-6]", node.name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_nothing_comes_from_elsewhere(source, page):
    for node in page.walk():
        for key, value in node.attributes.items():
            if key in ("src", "href", "srcset", "action", "poster", "data", "background"):
                assert value.startswith(("data:", "#")), (node.name, key, value[:60])
            assert not key.startswith("on")
            assert key != "style"
    assert {node.name for node in page.all()} & {"iframe", "object", "embed", "base", "form"} == set()
    assert "url(" not in page.one("style").text()
    assert "@import" not in page.one("style").text()
    assert "//" not in re.sub(r"^\s*//.*$|//.*$", "", page.one("script").text(), flags=re.MULTILINE)
    assert "http://" not in source
    assert "https://" not in source


def test_the_policy_allows_just_its_own_style_and_script(page):
    policy = page.one("meta", http_equiv="Content-Security-Policy")["content"]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    for name in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.one(name).text().encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy


def test_the_same_page_every_time(batches, source):
    assert render_page(batches, title="photos · flux.1-dev") == source


def test_a_page_without_samples_is_a_page():
    assert "0 samples in 0 batches" in read_page(render_page([], title="nothing")).text()


# --- Escaping


def test_hostile_texts_are_text(source, page):
    source.encode()  # a lone surrogate would fail here
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", source)
    assert len(page.all("script")) == 1
    assert "alert" not in page.one("script").text()
    article = page.one("article", data_id=HOSTILE_ID.replace("\u202e", "⟨U+202E⟩"))
    assert plain(article.one("h3")) == HOSTILE_ID
    assert HOSTILE_CAPTION in plain(article.one(class_="captions"))
    assert {node["title"] for node in article.one(class_="captions").all(class_="odd")} == {
        "NULL",
        "no name",
        "RIGHT-TO-LEFT OVERRIDE",
        "POP DIRECTIONAL FORMATTING",
    }


def test_any_text_survives_in_any_place():
    draw = random.Random(0)
    alphabet = "<>&\"'`=/ab \x00\x07\t\n\r\x85\xa0\xad\u200b\u200d\u2028\u202e\ufeff\ud83d猫é🐈"
    for _ in range(300):
        words = "".join(draw.choices(alphabet, k=draw.randrange(12)))
        node = read_page(tag("p", words, title=words)).one("p")
        assert plain(node) == words
        assert re.sub(r"⟨U\+([0-9A-F]+)⟩", lambda m: chr(int(m[1], 16)), node["title"]) == words


def test_markup_is_only_what_tag_made():
    assert text("<b>") == "&lt;b&gt;"
    assert tag("i", Html("<b></b>"), None, hidden=True, title=None) == "<i hidden><b></b></i>"


def test_hostile_title_and_token_and_replaced_id():
    view = TokenView(key="<k>", pieces=(TokenPiece(text="</li>\x00", id=1, kind="text"),), limit=3, padding=2)
    page = show(
        sample("coffee.png", draws=0, tokens=lambda _: view, stands_in_for="</p><script>"), title="</title><script>"
    )
    assert page.one("title").text() == "</title><script>"
    assert page.one("h1").text() == "</title><script>"
    assert plain(page.one(class_="tokens").all("li")[0].one("b")) == "</li>\x00"
    assert page.one(class_="tokens").one("code").text() == "<k>"
    assert "</p><script>" in page.one(class_="notice").text()


# --- Pictures


def test_pictures_have_the_size_that_is_said_and_are_the_right_ones(batches, page):
    articles = page.all("article")
    for article, view in zip(articles, all_samples(batches), strict=True):
        for img in article.all("img"):
            height, width = pixels(img).shape[:2]
            assert (int(img["width"]), int(img["height"])) == (width, height)
            assert img["alt"]
            assert img["loading"] == "lazy"
        shown = pixels(article.one(class_="trained").one("img"))
        assert psnr(shown, view.image) > 30  # 640 px at most, so not made smaller
        assert psnr(pixels(article.one(class_="original").one("img")), view.original) > 25
        draws = article.all("figure", class_="draw")
        for figure, draw in zip(draws, view.draws, strict=True):
            height, width = pixels(figure.one("img")).shape[:2]
            small = np.asarray(Image.fromarray(draw.image).resize((width, height), Image.Resampling.LANCZOS))
            assert max(height, width) <= 224
            assert psnr(pixels(figure.one("img")), small) > 25
            assert figure.one("b").text() == f"Epoch {draw.epoch}"


def test_a_picture_is_never_enlarged_and_an_extreme_one_keeps_a_pixel():
    tiny = photo("coffee.png")[:16, :16]
    line = np.zeros((2, 3000, 3), np.uint8)
    page = show(sample("coffee.png", draws=0, image=tiny, original=line))
    assert pixels(page.one(class_="trained").one("img")).shape == (16, 16, 3)
    assert pixels(page.one(class_="original").one("img")).shape == (1, 512, 3)
    assert "16 × 16 px" in page.one(class_="trained").text()


def test_the_round_trip_is_shown_with_its_psnr():
    view = sample("coffee.png", draws=0)
    trip = round_trip(view.image)
    page = show(sample("coffee.png", draws=0, round_trip=trip))
    figure = page.one("figure", class_="round-trip")
    assert psnr(pixels(figure.one("img")), trip.image) > 30
    assert f"PSNR {trip.psnr:.1f} dB" in figure.text()
    assert not show(view).all("figure", class_="round-trip")


def test_a_few_large_images_have_their_true_pixels():
    view = sample("coffee.png", size=(1024, 1536), pixels=enlarged(photo("coffee.png"), 1100), draws=0)
    img = show(view).one(class_="trained").one("img")
    assert (img["width"], img["height"]) == ("1536", "1024")


def test_sixty_four_large_photos_stay_below_twenty_megabytes():
    views = [
        sample(name, index=n, size=(1024, 1024), pixels=enlarged(photo(name), 1200), id=f"{n}.jpg")
        for n, name in enumerate(CAPTIONS)
    ]
    source = render_page([batch(views)] * (64 // len(views)), title="large")
    page = read_page(source)
    assert len(page.all("article")) == 64
    assert len(page.all("figure", class_="draw")) == 3 * 64
    assert {img["width"] for figure in page.all(class_="trained") for img in figure.all("img")} == {"640"}
    assert len(source.encode()) < 20e6


# --- Geometry


def test_the_frame_is_the_box(page, batches):
    for article, view in zip(page.all("article"), all_samples(batches), strict=True):
        if view.geometry.rotate:
            continue
        (height, width), (top, left, rows, columns) = view.geometry.original_size, view.geometry.box
        svg = article.one("svg", class_="crop")
        assert svg["viewbox"] == f"0 0 {width} {height}"
        points = np.array([point.split(",") for point in svg.one(class_="kept")["points"].split()], float)
        found = np.array([*points.min(0), *points.max(0)]) / [width, height, width, height]
        expected = [left / width, top / height, (left + columns) / width, (top + rows) / height]
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert svg.one(class_="away")["d"].count("Z") == 2


@pytest.mark.parametrize("angle", [0, 7, -30, 90, 145])
@pytest.mark.parametrize("options", [{"random_crop": {"scale": [0.3, 0.5]}}, {"resize": [96, 32]}])
def test_the_frame_is_where_the_pixels_came_from(angle, options):
    """Against the pixels themselves: each pixel of this image says its own place in red (x) and green (y)."""
    y, x = np.mgrid[:200, :250]
    picture = np.stack([x, y, 0 * x], -1).astype(np.uint8)
    program = ImageTransform(rotate=[angle, angle], **options)
    image, geometry = trained(picture, program, SampleKey(3, 0, (96, 32) if "resize" in options else (64, 96)))
    assert geometry.rotate == angle
    height, width = geometry.target_size
    top_left, top_right, _, bottom_left = np.array(corners(geometry))
    down, right = (np.mgrid[:height, :width] + 0.5) / np.array([height, width])[:, None, None]
    place = top_left + right[..., None] * (top_right - top_left) + down[..., None] * (bottom_left - top_left)
    error = np.abs(image[..., :2] - (place - 0.5))[2:-2, 2:-2]
    inside = ((place > 4) & (place < np.array([246, 196]))).all(-1)[2:-2, 2:-2]
    assert inside.mean() > 0.5
    assert error[inside].max() < 1.6


def test_other_draws_have_their_frames_unless_they_are_the_same():
    moving = sample("coffee.png", draws=3)
    svg = show(moving).one("svg", class_="crop")
    for number, draw in enumerate(moving.draws, start=1):
        group = svg.one("g", class_=f"of-{number}")
        expected = " ".join(f"{x:.2f},{y:.2f}" for x, y in corners(draw.geometry))
        assert group.one(class_="dashed")["points"] == expected
        assert group.one("text").text() == str(number)
    still = sample("coffee.png", draws=3, program=ImageTransform(horizontal_flip=0.5))
    assert not show(still).one("svg", class_="crop").all("g")


def test_the_style_lets_every_draw_stand_out():
    style = show(sample("coffee.png", draws=5)).one("style").text()
    assert [n for n in range(1, 9) if f".draw-{n}:hover" in style] == [1, 2, 3, 4, 5]


def test_the_numbers_of_the_geometry():
    view = sample("hubble_deep_field.jpg", size=(320, 480), draws=0, program=ImageTransform(vertical_flip=1.0))
    article = show(view).one("article")
    assert view.geometry.box == (102, 0, 667, 1000)
    assert fact(article, "Original") == "1000 × 872 px"
    assert fact(article, "Kept") == "1000 × 667 px from left 0, top 102"
    assert fact(article, "Area kept") == "76.5 %"
    assert fact(article, "Scale") == "× 0.480"
    assert fact(article, "Target") == "480 × 320 px"
    assert fact(article, "crop_top_left") == f"top {view.geometry.crop_top_left[0]}, left 0"
    assert fact(article, "Flip") == "flipped top–bottom"
    assert fact(article, "Rotate") == "none"
    assert "flipped top–bottom" in article.one(class_="trained").text()


def test_an_enlarged_picture_is_marked():
    article = show(sample("chelsea.png", size=(512, 512), draws=0, program=ImageTransform())).one("article")
    assert fact(article, "Scale") == "× 1.707 ⚠ enlarged"


@pytest.mark.parametrize(("angle", "words"), [(12, "turned 12.0° counter-clockwise"), (-3.5, "turned 3.5° clockwise")])
def test_a_turn_is_said_with_its_way(angle, words):
    program = ImageTransform(random_crop=True, rotate=[angle, angle])
    article = show(sample("coffee.png", draws=0, program=program)).one("article")
    assert fact(article, "Rotate") == words
    assert words in article.one(class_="trained").text()


# --- Batches


def test_a_batch_says_what_it_is(page, batches):
    first = page.one("section", id="batch-1")
    assert first.one("h2").text() == "Epoch 0, step 0"
    assert first.one("p", class_="facts").text() == "512 × 384 px · 4 samples · 12 steps an epoch · seed 0"
    rows = [
        [cell.text() for cell in row.walk() if cell.name in ("th", "td")]
        for row in first.all("table", class_="tensors")[0].one("tbody").all("tr")
    ]
    assert rows[0] == ["img", "float32", "(4, 3, 384, 512)", "-1 … 1"]
    assert [row[0] for row in rows] == [entry.key for entry in batches[0].entries]
    assert {th["scope"] for th in page.all("th")} == {"col", "row"}
    assert [a["href"] for a in page.one("nav").all("a")] == ["#batch-1", "#batch-2"]


def test_what_every_batch_has_is_said_once_and_folded_afterwards(page):
    first, second = page.one("section", id="batch-1"), page.one("section", id="batch-2")
    assert first.one("table", class_="tensors").one("caption").text() == "What the batch holds"
    folded = second.all("header")[0].one("details")
    assert folded.one("summary").text() == folded.one("table", class_="tensors")["aria-label"] == "What the batch holds"
    links = page.one("nav").all("a")
    assert [(a.text(), a["aria-label"]) for a in links] == [("0", "Epoch 0, step 0"), ("1", "Epoch 0, step 1")]


def test_a_stand_in_is_named(page):
    (notice,) = page.all(class_="notice")
    assert notice.text() == "⚠ Stands in for broken/<b>.jpg, which could not be read."
    assert notice["role"] == "note"

"""Images in a column of text, and references and numbers that are too long or too large to be meant."""

import base64
import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calotype.errors import ManifestError
from calotype.manifest import load_manifest


def encoded(jpeg, number, form):
    text = base64.b64encode(jpeg(number)).decode()
    return {
        "plain": text,
        "url-safe": base64.urlsafe_b64encode(jpeg(number)).decode().rstrip("="),
        "wrapped": base64.encodebytes(jpeg(number)).decode(),
        "uri": f"data:image/jpeg;base64,{text}",
        "percent": "data:image/jpeg," + "".join(f"%{byte:02x}" for byte in jpeg(number)),
    }[form]


FORMS = ["plain", "url-safe", "wrapped", "uri", "percent"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_images_written_as_text_are_images(put, read, jpeg, form, kind):
    put("b.jpg")
    rows = [
        {"image": encoded(jpeg, 0, form), "text": "x"},
        {"image": "b.jpg", "text": "y"},
        {"image": encoded(jpeg, 2, form), "text": "z"},
    ]
    file = put(f"t.{kind}", "")
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with file.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    manifest = load_manifest(file)
    assert [(row.id, row.captions) for row in manifest] == [
        (f"t.{kind}#0", ("x",)),
        ("b.jpg", ("y",)),
        (f"t.{kind}#2", ("z",)),
    ]
    assert [read(row.image) for row in manifest] == [jpeg(0), (put.root / "b.jpg").read_bytes(), jpeg(2)]


def test_the_same_images_in_other_rows_are_found_there(put, read, jpeg):
    put("b.jpg")
    images = [encoded(jpeg, 0, "plain"), "b.jpg"]
    for order in (images, images[::-1]):
        manifest = load_manifest(put("t.json", json.dumps([{"image": image, "text": "x"} for image in order])))
        whole = [jpeg(0) if image is images[0] else (put.root / "b.jpg").read_bytes() for image in order]
        assert [read(row.image) for row in manifest] == whole


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_every_format_is_known_by_its_first_letters(put, read, jpeg, format):
    text = base64.b64encode(jpeg(1, format)).decode()
    row = load_manifest(put("t.json", json.dumps([{"image": text, "text": "x"}])))[0]
    assert (row.id, read(row.image)) == ("t.json#0", jpeg(1, format))


def test_a_changed_cell_is_another_image(put, read, jpeg):
    for number in (0, 1):
        text = encoded(jpeg, number, "plain")
        assert read(load_manifest(put("t.json", json.dumps([{"image": text, "text": "x"}])))[0].image) == jpeg(number)


def test_an_image_as_text_that_was_cut_is_a_bad_row(put, jpeg):
    text = encoded(jpeg, 0, "plain")[:-3] + "!x"
    with pytest.raises(ManifestError, match=r"t\.json item 1: an image as base64 that can't be decoded"):
        load_manifest(put("t.json", json.dumps([{"image": text, "text": "x"}])))


def test_long_text_that_is_no_image_is_named_shortly(put):
    with pytest.raises(ManifestError, match=r"item 1: image is 'xxx.*' of 20,000 characters; expected a path") as error:
        load_manifest(put("t.json", json.dumps([{"image": "x" * 20_000, "text": "x"}])))
    assert len(str(error.value)) < 400


def test_long_ids_are_cut_and_stay_unique(put):
    urls = [f"https://h.example/{'x' * 3000}{n}.jpg" for n in range(2)]
    for rows in (
        [{"image": url, "text": "x"} for url in urls],
        [{"image": f"{n}.jpg", "id": url, "text": "x"} for n, url in enumerate(urls)],
    ):
        manifest = load_manifest(put("t.json", json.dumps(rows)))
        first, second = manifest.ids.to_pylist()
        assert first != second
        assert all(len(id) < 256 and id.startswith("https://h.example/xxx") for id in (first, second))
    manifest = load_manifest(put("t.json", json.dumps([{"image": url, "text": "x"} for url in urls])))
    assert [row.image.url for row in manifest] == urls
    signed = "https://h.example/a.jpg?signature=" + "x" * 400
    assert load_manifest(put("t.json", json.dumps([{"image": signed, "text": "x"}])))[0].id == signed


@pytest.mark.parametrize("value", [1e9, 1e300, float("nan"), float("inf"), -1, "x", "1e9", 10_001])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_weights_that_no_epoch_can_hold_are_bad_rows(put, value, kind):
    file = put(f"t.{kind}", "")
    if kind == "csv":
        file.write_text(f"image,text,weight\na.jpg,x,1\nb.jpg,y,{value}\n")
    else:
        file.write_text("".join(json.dumps({"image": f"{n}.jpg", "text": "x", "weight": w}) + "\n" for n, w in
                                enumerate((1, value))))  # fmt: skip
    with pytest.raises(ManifestError, match=r":(2|3): weight is .*; expected a number, 0 or more and 10,000 at most"):
        load_manifest(file)


def test_weights_that_add_up_to_more_than_an_epoch_holds(put, monkeypatch):
    monkeypatch.setattr("calotype.manifest.tables.rows._MAX_TOTAL_WEIGHT", 1000)
    rows = [{"image": f"{n}.jpg", "text": "x", "weight": 600} for n in range(2)]
    with pytest.raises(ManifestError, match=r"weight adds up to 1,200 images an epoch; expected 1,000"):
        load_manifest(put("t.json", json.dumps(rows)))


@pytest.mark.parametrize("value", [10**9, -5, 0, 1.5, 1e300, "wide"])
@pytest.mark.parametrize("name", ["width", "height"])
def test_sizes_that_no_image_has_are_bad_rows(put, value, name):
    with pytest.raises(ManifestError, match=rf"item 1: {name} is .*; expected a whole number .* to 1,000,000"):
        load_manifest(put("t.json", json.dumps([{"image": "a.jpg", "text": "x", name: value}])))

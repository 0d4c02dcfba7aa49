"""Forms of a whole JSON file: read, or named; and changed where its rows are in the file as such."""

import json

import pytest

from calotype.editing import open_captions
from calotype.errors import EditError, ManifestError
from calotype.manifest import load_manifest


def captions(manifest):
    return {row.id: row.captions for row in manifest}


ROWS = [{"file_name": "a.jpg", "text": "a cat", "n": 1}, {"file_name": "b.jpg", "text": "a dog", "n": 2}]
COCO = {
    "info": {"year": 2017},
    "licenses": [{"id": 1, "name": "x", "url": "http://x"}],
    "images": [{"file_name": "a.jpg", "height": 48, "width": 64, "id": 9}, {"file_name": "b.jpg", "id": 25}],
    "annotations": [
        {"image_id": 25, "id": 1, "caption": "a dog"},
        {"image_id": 9, "id": 2, "caption": "a cat"},
        {"image_id": 9, "id": 3, "caption": "one cat"},
    ],
}
KARPATHY = {
    "dataset": "coco",
    "images": [
        {"filepath": "val", "filename": "a.jpg", "split": "train", "sentences": [{"raw": "a cat"}, {"raw": "one cat"}]},
        {"filename": "b.jpg", "split": "restval", "sentences": [{"raw": "a dog"}]},
        {"filename": "c.jpg", "split": "test", "sentences": [{"raw": "a bird"}]},
    ],
}
TWO = {"a.jpg": ("a cat",), "b.jpg": ("a dog",)}


def keyed(rows, keys):
    return dict(zip(keys, rows, strict=True))


READ = {
    "index": (keyed(ROWS, ["0", "1"]), TWO),
    "index of paths": (keyed(ROWS, ["x/0.jpg", "x/1.jpg"]), TWO),
    "index, some without an image": ({"0": ROWS[0], "b.jpg": {"text": "a dog"}}, TWO),
    "columns of lists": ({name: [row[name] for row in ROWS] for name in ROWS[0]}, TWO),
    "columns by index": ({name: {str(i): row[name] for i, row in enumerate(ROWS)} for name in ROWS[0]}, TWO),
    "split": ({"columns": list(ROWS[0]), "index": [0, 1], "data": [list(row.values()) for row in ROWS]}, TWO),
    "table": ({"schema": {"fields": [{"name": "text"}], "primaryKey": ["index"]}, "data": ROWS}, TWO),
    "data": ({"version": "1.0", "data": ROWS}, TWO),
    "other lists": ({"info": {}, "licenses": COCO["licenses"], "samples": ROWS}, TWO),
    "splits": ({"train": ROWS, "validation": [{"file_name": "c.jpg", "text": "x"}]}, TWO),
    "paths inside": ({"format_version": 1, "images": {"a.jpg": "a cat", "b.jpg": {"caption": "a dog"}}}, TWO),
    "where it came from": ({"a.jpg": {"url": "http://h.example/1.png", "caption": "a cat"}}, {"a.jpg": ("a cat",)}),
    "coco": (COCO, {"9": ("a cat", "one cat"), "25": ("a dog",)}),
    "karpathy": (KARPATHY, {"val/a.jpg": ("a cat", "one cat"), "b.jpg": ("a dog",)}),
    "numbers of captions": (
        {"a.jpg": ["one", "two"], "b.jpg": "three"},
        {"a.jpg": ("one", "two"), "b.jpg": ("three",)},
    ),
}


@pytest.mark.parametrize("form", READ)
@pytest.mark.parametrize("indent", [None, 2])
def test_forms_are_read(put, form, indent):
    whole, expected = READ[form]
    assert captions(load_manifest(put("d.json", json.dumps(whole, indent=indent)))) == expected


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["d.json", "d.jsonl"])
def test_other_encodings(put, encoding, name):
    rows = [{"file_name": "a.jpg", "text": "猫"}, {"file_name": "b.jpg", "text": "ü"}]
    text = json.dumps(rows, ensure_ascii=False) if name == "d.json" else "\n".join(json.dumps(row) for row in rows)
    assert captions(load_manifest(put(name, text.encode(encoding)))) == {"a.jpg": ("猫",), "b.jpg": ("ü",)}


def test_an_array_in_a_file_named_for_lines(put):
    assert captions(load_manifest(put("d.jsonl", json.dumps(ROWS, indent=1)))) == TWO


def test_what_is_not_read_of_a_form_is_reported(put):
    def notes(whole):
        return load_manifest(put("d.json", json.dumps(whole))).describe()["notes"]

    assert notes(KARPATHY) == ["d.json: read its splits restval and train, not 1 of 'test'"]
    assert notes(READ["splits"][0]) == ["d.json: read the rows in 'train', not those in 'validation'"]
    assert notes(READ["data"][0]) == []


def test_coco_gives_sizes_and_names_what_belongs_to_no_image(put):
    manifest = load_manifest(put("d.json", json.dumps(COCO)))
    assert manifest.sizes().tolist() == [[48, 64], [0, 0]]
    lost = {**COCO, "annotations": [*COCO["annotations"], {"image_id": 7, "caption": "x"}]}
    with pytest.raises(ManifestError, match=r"d\.json annotation 4: no image has the id 7"):
        load_manifest(put("d.json", json.dumps(lost)))


def test_kohyas_metadata(put):
    v0 = {"a.jpg": {"caption": "a cat", "tags": "1cat"}, "b.jpg": {"tags": "1bird", "train_resolution": [64, 64]}}
    manifest = load_manifest(put("meta_lat.json", json.dumps(v0)))
    assert captions(manifest) == {"a.jpg": ("a cat",), "b.jpg": ("1bird",)}
    assert "the tags are the caption" in manifest.describe()["notes"][0]
    v1 = {"format_version": "1.0", "images": {
        "a.jpg": {"caption": ["c1", "c2"], "tags": ["t1, t2"], "image_size": [288, 256]},
        "b.jpg": {"caption": [], "tags": ["t3, t4"], "image_size": [10, 20]},
    }}  # fmt: skip
    manifest = load_manifest(put("ds.json", json.dumps(v1)))
    assert captions(manifest) == {"a.jpg": ("c1", "c2"), "b.jpg": ("t3, t4",)}
    assert manifest.sizes().tolist() == [[256, 288], [20, 10]]


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        ({"0": {"caption": "x"}, "1": {"caption": "y"}}, r"found an object with the keys '0', '1', which has no rows"),
        ({"version": 1, "categories": ["cat"]}, "found an object with the keys 'version', 'categories'"),
        ({}, "found an empty object"),
        (7, "found a value of type int"),
        ({"a": ROWS, "b": ROWS}, "several lists of rows: 'a', 'b'; expected one"),
        ({"image": ["a.jpg"], "caption": ["x", "y"]}, "different lengths: 'image' has 1, 'caption' has 2"),
        ({"columns": ["image", "caption"], "data": [["a.jpg"]]}, "item 1: found 1 values; expected 2: image, caption"),
        (
            {**COCO, "annotations": [{"image_id": 9, "bbox": []}]},
            r"COCO annotations without captions \(found 'image_id'",
        ),
        ([["a.jpg", "x"]], "no rows|item 1: found a list"),
        ({"a.jpg": {"0": "x"}}, "no caption column found"),
    ],
)
def test_other_forms_are_named(put, whole, message):
    with pytest.raises(ManifestError, match=rf"d\.json.*{message}"):
        load_manifest(put("d.json", json.dumps(whole)))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.json", '{"a.jpg": "x", "b.jpg": "y", "a.jpg": "z"}', r"d\.json: the name 'a\.jpg' comes twice"),
        ("d.json", '[{"image": "a.jpg", "text": "x", "text": "y"}]', r"d\.json: the name 'text' comes twice"),
        (
            "d.jsonl",
            '{"image": "a.jpg", "text": "x"}\n{"image": "b.jpg", "text": "x", "text": "y"}\n',
            r"d\.jsonl:2: the n",
        ),
    ],
)
def test_two_values_under_one_name_are_not_one(put, name, text, message):
    with pytest.raises(ManifestError, match=message):
        load_manifest(put(name, text))


def test_numbers_and_texts_that_name_images(put):
    put("0.jpg"), put("1.png")
    rows = [{"image": 0, "text": "x"}, {"image": "1", "text": "y"}]
    assert captions(load_manifest(put("d.json", json.dumps(rows)))) == {"0.jpg": ("x",), "1.png": ("y",)}


EDITED = [name for name in READ if name not in ("columns of lists", "columns by index", "split", "coco", "karpathy")]


@pytest.mark.parametrize("form", EDITED)
def test_a_caption_is_changed_in_its_form(put, form):
    whole, before = READ[form]
    file = put("d.json", json.dumps(whole, indent=1))
    places = open_captions(file)
    assert {id: state.captions for id, state in places.read().items()} == before
    places.write({"a.jpg": ["new"]})
    after = json.loads(file.read_text())
    assert captions(load_manifest(file)) == before | {"a.jpg": ("new",)}
    expected = json.dumps(whole).replace('"a cat"', '"new"').replace('["one", "two"]', '["new"]')
    if form == "numbers of captions":  # a list in one row is a list in all
        expected = expected.replace('"three"', '["three"]')
    assert json.dumps(after) == expected


def test_a_changed_caption_of_kohyas_metadata_adds_no_columns(put):
    whole = {"format_version": "1.0", "images": {
        "a.jpg": {"caption": ["c1"], "tags": ["t1"], "image_size": [288, 256]},
        "b.jpg": {"tags": ["t2"], "image_size": [10, 20]},
    }}  # fmt: skip
    file = put("ds.json", json.dumps(whole))
    open_captions(file).write({"a.jpg": ["new"], "b.jpg": ["its own"]})
    whole["images"]["a.jpg"]["caption"] = ["new"]
    whole["images"]["b.jpg"]["caption"] = ["its own"]
    assert json.loads(file.read_text()) == whole
    assert captions(load_manifest(file)) == {"a.jpg": ("new",), "b.jpg": ("its own",)}


@pytest.mark.parametrize("form", ["columns of lists", "columns by index", "split", "coco", "karpathy"])
def test_forms_whose_rows_are_not_in_the_file_are_not_changed(put, form):
    with pytest.raises(EditError, match=r"d\.json: captions in .* can't be changed in place; `calotype convert"):
        open_captions(put("d.json", json.dumps(READ[form][0])))


def test_json_in_another_encoding_is_not_changed(put):
    with pytest.raises(EditError, match="UTF-8"):
        open_captions(put("d.json", json.dumps(ROWS).encode("utf-16")))

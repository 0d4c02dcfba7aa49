"""Captions beside images: whatever they are called, they are read, or named with the way to read them."""

from __future__ import annotations

import json
import tarfile

import pytest

from calotype.errors import ConfigError, ManifestError, MissingCaptionError
from calotype.manifest import load_manifest
from calotype.manifest.folders.caption_files import CaptionFiles

_NFC, _NFD = "Caf\u00e9", "Cafe\u0301"


def captions(manifest):
    return {row.id: row.captions for row in manifest}


def unused(manifest):
    return {entry.id.rsplit("/", 1)[-1]: entry.reason for entry in manifest.ledger if entry.kind == "unused_captions"}


@pytest.mark.parametrize(
    ("image", "file"),
    [
        ("IMG_1.JPG", "IMG_1.TXT"),
        ("IMG_1.JPG", "img_1.txt"),
        ("a.jpg", "A.JPG.Caption"),
        (f"{_NFD}.jpg", f"{_NFC}.txt"),
        (f"{_NFC}.jpg", f"{_NFD.upper()}.JPG.TXT"),
        ("deep/a.jpg", "Deep/a.txt"),
    ],
)
def test_names_match_through_case_and_unicode_form(put, image, file):
    put(image), put(file, "hers")
    manifest = load_manifest(put.root)
    assert captions(manifest) == {image: ("hers",)}
    assert not len(manifest.ledger)


def test_the_exact_name_goes_first_and_the_other_is_named(put):
    put("a.jpg"), put("a.txt", "exact"), put("a.TXT", "other case"), put("A.txt", "another")
    put("b.jpg"), put("b.jpg.txt", "of the file"), put("b.txt", "of the stem")
    manifest = load_manifest(put.root)
    assert captions(manifest) == {"a.jpg": ("exact",), "b.jpg": ("of the file",)}
    first = "not read: {} has priority"
    assert unused(manifest) == {
        "a.TXT": first.format("a.txt"), "A.txt": first.format("a.txt"), "b.txt": first.format("b.jpg.txt"),
    }  # fmt: skip


def test_what_could_be_two_images_is_neither_ones_and_reported(put):
    put("IMG.jpg"), put("img.png"), put("Img.txt", "whose?"), put("x.jpg"), put("x.txt", "x")
    manifest = load_manifest(put.root, missing_captions="empty")
    assert captions(manifest) == {"IMG.jpg": ("",), "img.png": ("",), "x.jpg": ("x",)}
    (entry,) = manifest.ledger
    assert (entry.kind, entry.id) == ("no_picture", str(put.root / "Img.txt"))
    assert "IMG.jpg, img.png" in entry.reason


def test_a_shared_stem_shares_a_file_in_upper_case_too():
    files = CaptionFiles(["a.jpg", "a.png"], ["a.TXT", "a.PNG.txt"])
    assert files.of("a.jpg") == ["a.TXT"]
    assert files.of("a.png") == ["a.PNG.txt"] or files.of("a.png") == ["a.TXT"]
    assert list(CaptionFiles(["a.jpg"], ["a.tags"]).unused()) == []


def test_single_images_by_a_glob_find_theirs(put):
    put("IMG_1.JPG"), put("IMG_1.TXT", "one"), put("b.jpg"), put("b.json", '{"caption": "two"}')
    assert captions(load_manifest(put.root / "*")) == {"IMG_1.JPG": ("one",), "b.jpg": ("two",)}
    assert captions(load_manifest([put.root / "b.jpg"])) == {"b.jpg": ("two",)}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"caption": "a lake", "url": "http://h/x", "key": "0", "status": "success"}, ("a lake",)),  # img2dataset
        ({"captions": ["a", "b"], "tags": ["c"]}, ("a", "b")),
        ({"Caption": None, "tags": ["1girl", "long hair"]}, ()),
        ({"text": [], "tags": ["1girl", "long hair"]}, ()),
        ({"Tags": ["1girl", "long hair"], "caption_source": None}, ("1girl, long hair",)),
        ({"tags": "1girl solo long_hair", "rating": "s", "id": 7}, ("1girl, solo, long_hair",)),  # gelbooru
        ({"tag_string": "1girl long_hair", "tag_string_general": "long_hair"}, ("1girl, long_hair",)),  # danbooru
        ({"tag_string_artist": "ann", "tag_string_general": "sea_side sun", "tag_string_meta": "highres_x"},
         ("ann, sea_side, sun",)),
        ({"tags": {"general": ["sea", "sun"], "artist": ["ann"]}}, ("sea, sun, ann",)),  # e621
        ({"tag_string_general": "sun", "tag_string_artist": "ann"}, ("sun, ann",)),  # in the order of the file
        ({"tags": "red car, street"}, ("red car, street",)),
        ({"tags": "red car"}, ("red car",)),
        ({"caption": "", "tags": ["x"]}, ("",)),
        ({"prompt": {"3": {"inputs": {}}}, "shapes": []}, ()),  # ComfyUI, labelme
    ],
)  # fmt: skip
def test_captions_in_json_of_a_folder_as_of_a_shard(put, jpeg, value, expected):
    put("set/a.jpg"), put("set/a.json", json.dumps(value))
    with tarfile.open(put.root / "s.tar", "w") as tar:
        for name in ("a.jpg", "a.json"):
            tar.add(put.root / "set" / name, name)
    for path in (put.root / "set", put.root / "s.tar"):
        (row,) = load_manifest(path, missing_captions="empty")
        assert row.captions == (expected or ("",)), path


@pytest.mark.parametrize("name", ["a.json", "a.jpg.json", "A.JSON"])
def test_json_beside_an_image_is_its_caption(put, name):
    put("a.jpg"), put(name, json.dumps({"description": "a lake", "score": 3}))
    manifest = load_manifest(put.root)
    assert captions(manifest) == {"a.jpg": ("a lake",)}
    assert not manifest.describe()["notes"] and not len(manifest.ledger)


def test_text_has_priority_over_json_unless_it_is_its_first_caption(put):
    put("a.jpg"), put("a.txt", "text"), put("a.json", '{"caption": "json"}')
    put("b.jpg"), put("b.txt", "one\n"), put("b.json", '{"captions": ["one", "two"]}')
    put("c.jpg"), put("c.txt", " "), put("c.json", '{"caption": "json"}')
    assert captions(load_manifest(put.root)) == {"a.jpg": ("text",), "b.jpg": ("one", "two"), "c.jpg": ("json",)}


def test_a_text_of_several_captions_is_compared_line_by_line(put):
    put("a.jpg"), put("a.txt", "one\ntwo\n"), put("a.json", '{"captions": ["one\\ntwo", "three"]}')
    assert captions(load_manifest(put.root, caption_lines="many")) == {"a.jpg": ("one\ntwo", "three")}


def test_columns_name_the_key_of_json_files(put):
    put("a.jpg"), put("a.json", '{"caption": "short", "long": "a long one"}')
    assert captions(load_manifest(put.root, columns={"caption": "long"})) == {"a.jpg": ("a long one",)}
    both = load_manifest(put.root, columns={"caption": ["long", "caption"]})
    assert captions(both) == {"a.jpg": ("a long one", "short")}
    put("a.txt", "text")
    assert captions(load_manifest(put.root, columns={"caption": None})) == {"a.jpg": ("text",)}


def test_json_without_a_caption_is_named_with_its_keys(put):
    put("a.jpg"), put("a.json", '{"notes": "a lake", "n": 1}'), put("b.jpg"), put("b.json", "[1]")
    with pytest.raises(MissingCaptionError, match=r"a\.json: no caption among its keys: 'notes', 'n'; .*columns\.cap"):
        load_manifest(put.root)
    assert unused(load_manifest(put.root, missing_captions="empty"))["b.json"] == "not read: its .json is not an object"


def test_json_that_is_damaged_stops_only_where_it_is_the_caption(put):
    put("a.jpg"), put("a.json", "{"), put("a.txt", "text")
    assert "the text file beside it is" in unused(load_manifest(put.root))["a.json"]
    (put.root / "a.txt").unlink()
    with pytest.raises(Exception, match=r"a\.json: the caption can't be read"):
        load_manifest(put.root)


@pytest.mark.parametrize("given", [".tags", "tags", [".txt", ".TAGS"]])
def test_caption_suffix_reads_other_files(put, given):
    put("a.jpg"), put("a.tags", "1girl, solo"), put("b.jpg"), put("b.jpg.TAGS", "2girls")
    assert captions(load_manifest(put.root, caption_suffix=given)) == {"a.jpg": ("1girl, solo",), "b.jpg": ("2girls",)}


def test_caption_suffix_leaves_the_default_ones_unread_and_reports_them(put):
    put("a.jpg"), put("a.tags", "tags"), put("a.txt", "text"), put("a.json", '{"caption": "json"}')
    manifest = load_manifest(put.root, caption_suffix=".tags")
    assert captions(manifest) == {"a.jpg": ("tags",)}
    assert set(unused(manifest)) == {"a.txt", "a.json"}
    assert captions(load_manifest(put.root, caption_suffix=[".cap.txt", ".txt"])) == {"a.jpg": ("text",)}


@pytest.mark.parametrize("given", ["", [], ".jpg", ".csv", 3, [".txt", ""]])
def test_caption_suffix_that_is_none(put, given):
    put("a.jpg")
    with pytest.raises(ConfigError, match="caption_suffix"):
        load_manifest(put.root, caption_suffix=given)


def test_caption_suffix_of_a_data_file_has_no_effect(put):
    put("rows.jsonl", '{"image": "a.jpg", "text": "x"}\n')
    with pytest.raises(ConfigError, match=r"caption_suffix: .* no folder of images"):
        load_manifest(put.root / "rows.jsonl", caption_suffix=".tags")


@pytest.mark.parametrize("suffix", [".captions", ".cap", ".wd14", ".md", ""])
def test_text_files_of_other_suffixes_are_named_with_the_option(put, suffix):
    put("a.jpg"), put(f"a{suffix}", "a lake"), put("b.jpg"), put("b.txt", "a sea")
    manifest = load_manifest(put.root, missing_captions="empty")
    reason = unused(manifest)[f"a{suffix}"]
    assert f"caption_suffix={suffix} reads them" in reason if suffix else ".txt" in reason
    assert any(f"a{suffix}" in note for note in manifest.describe()["notes"])


def test_files_of_other_programs_beside_images_are_no_captions(put):
    put("a.jpg"), put("a.txt", "x"), put("a.npz", b"PK\3\4\0\0"), put("a.xmp", "<x/>"), put("a.blob", b"\0\1\2")
    put("notes.md", "to do"), put("b.tags", "of nothing here")
    manifest = load_manifest(put.root)
    assert not len(manifest.ledger) and not manifest.describe()["notes"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.csv", "image,text\na.jpg,a lake\n"),
        ("captions.jsonl", '{"image": "a.jpg", "text": "a lake"}\n'),
        ("captions.json", '{"a.jpg": "a lake"}'),
        ("meta_cap.json", '{"a": {"caption": "a lake"}}'),
    ],
)
def test_lists_of_captions_beside_images_are_named(put, name, content):
    put("a.jpg"), put(name, content)
    manifest = load_manifest(put.root, missing_captions="empty")
    assert "pass such a file as path" in unused(manifest)[name]
    with pytest.raises(MissingCaptionError, match=rf"not used: {name}: "):
        load_manifest(put.root)


def test_json_that_is_about_no_image_is_a_note(put):
    put("a.jpg"), put("a.txt", "x"), put("config.json", '{"model": "flux"}')
    manifest = load_manifest(put.root)
    assert not len(manifest.ledger)
    assert "config.json" in manifest.describe()["notes"][0]


@pytest.mark.parametrize("name", ["metadata.jsonl", "sub/metadata.csv"])
def test_metadata_with_another_caption_column_lists_its_columns(put, name):
    put("sub/a.jpg"), put("sub/b.jpg")
    at = "a.jpg" if "/" in name else "sub/a.jpg"
    rows = f"file_name,additional_feature,n\n{at},a lake,1\n"
    if name.endswith("jsonl"):
        rows = json.dumps({"file_name": at, "additional_feature": "a lake", "n": 1}) + "\n"
    put(name, rows)
    expected = (
        f"{name}: no caption column. Found columns: additional_feature, n. Set columns.caption=additional_feature"
    )
    with pytest.raises(MissingCaptionError) as caught:
        load_manifest(put.root)
    assert expected in str(caught.value)
    manifest = load_manifest(put.root, missing_captions="empty")
    assert manifest.describe()["notes"] == [expected]
    named = load_manifest(put.root, missing_captions="empty", columns={"caption": "additional_feature"})
    assert captions(named)["sub/a.jpg"] == ("a lake",) and not len(named.ledger)


def test_a_data_file_with_another_caption_column_lists_its_columns(put):
    put("rows.jsonl", '{"image": "a.jpg", "blip": "a lake", "url2": "x"}\n')
    manifest = load_manifest(put.root / "rows.jsonl", missing_captions="empty")
    assert unused(manifest)["rows.jsonl"].endswith("Set columns.caption=blip")
    assert "rows.jsonl: no caption column" in manifest.describe()["notes"][0]


def test_metadata_that_describes_images_captioned_beside_is_nothing_to_name(put):
    put("a.jpg"), put("a.txt", "x"), put("metadata.jsonl", '{"file_name": "a.jpg", "artist": "ann"}\n')
    assert not len(load_manifest(put.root).ledger)


def test_metadata_names_an_image_in_another_unicode_form_or_case(put):
    put(f"{_NFD}.jpg"), put("IMG_2.JPG")
    rows = [{"file_name": f"{_NFC}.jpg", "text": "one"}, {"file_name": "img_2.jpg", "text": "two"}]
    put("metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    manifest = load_manifest(put.root)
    assert captions(manifest) == {f"{_NFD}.jpg": ("one",), "IMG_2.JPG": ("two",)}
    assert "2 references lead to no file as they are written" in manifest.describe()["notes"][0]


def test_metadata_that_names_both_cases_means_two_images(put):
    put("a.jpg"), put("metadata.jsonl", '{"file_name": "a.jpg", "text": "x"}\n{"file_name": "A.jpg", "text": "y"}\n')
    manifest = load_manifest(put.root, on_error="skip")
    assert captions(manifest) == {"a.jpg": ("x",)}
    assert manifest.ledger.counts() == {"bad_row": 1}


def test_several_lines_are_noted_unless_caption_lines_is_set(put):
    put("a.jpg"), put("a.txt", "1girl, sks\nsks by a window\n"), put("b.jpg"), put("b.txt", "one line\n\n")
    (note,) = load_manifest(put.root).describe()["notes"]
    assert note.startswith("1 caption file has several lines (a.txt)") and "caption_lines=many" in note
    assert not load_manifest(put.root, caption_lines="one").describe()["notes"]
    assert load_manifest(put.root, caption_lines="many")[0].captions == ("1girl, sks", "sks by a window")


def test_several_lines_and_other_kinds_of_text_in_a_shard_are_named(put, jpeg):
    put("s/a.jpg"), put("s/a.txt", "1girl, sks\nsks by a window\n"), put("s/b.jpg"), put("s/b.tags", "x")
    with tarfile.open(put.root / "s.tar", "w") as tar:
        for file in sorted((put.root / "s").iterdir()):
            tar.add(file, file.name)
    manifest = load_manifest(put.root / "s.tar", missing_captions="empty")
    assert manifest.describe()["notes"][0].startswith("1 caption file has several lines (s.tar!a.jpg)")
    assert unused(manifest) == {"s.tar!b.tags": "members of this kind are not read; rename them to .txt to read them"}
    assert load_manifest(put.root / "s.tar", missing_captions="empty", caption_lines="many")[0].captions == (
        "1girl, sks", "sks by a window",
    )  # fmt: skip


def test_what_is_not_used_is_named_where_every_image_is_skipped(put):
    put("a.jpg"), put("a.tags", "x")
    with pytest.raises(ManifestError, match=r"every row was left out: .*a\.tags: .*caption_suffix=\.tags"):
        load_manifest(put.root, missing_captions="skip")


def test_a_data_file_whose_captions_are_nested_is_named(tmp_path):
    turns = [{"from": "human", "value": "Describe"}, {"from": "gpt", "value": "a dog"}]
    (tmp_path / "rows.json").write_text(json.dumps([{"image": "a.jpg", "conversations": turns}]))
    manifest = load_manifest(tmp_path / "rows.json", missing_captions="empty")
    assert [entry.reason for entry in manifest.ledger if entry.kind == "unused_captions"] == [
        "no caption column. Found columns: conversations. Put the captions into a text column such as caption"
    ]


def test_json_with_the_name_of_an_image_elsewhere_is_named(put):
    put("images/a.jpg")
    folder = put("labels/a.json", json.dumps({"caption": "a dog"})).parents[1]
    manifest = load_manifest(folder, missing_captions="empty")
    assert [entry.id.rsplit("/", 2)[-1] for entry in manifest.ledger if entry.kind == "unused_captions"] == ["a.json"]

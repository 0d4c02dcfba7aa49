"""Data files: JSON, JSON lines, CSV, TSV, Parquet and Arrow, with everything that people put into them."""

import csv
import json

import datasets
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from calotype.errors import ConfigError, ManifestError, MissingCaptionError
from calotype.ledger import Ledger
from calotype.manifest import load_manifest


def captions(manifest):
    return {row.id: row.captions for row in manifest}


# The same three rows, in every form there is.
ROWS = [
    {"file_name": "a.jpg", "caption": "an a, with comma", "width": 64, "height": 48, "artist": "x"},
    {"file_name": "cats/b.png", "caption": 'a "quoted" b', "width": 32, "height": 32, "artist": "y"},
    {
        "file_name": "https://host.example/c.jpg?x=1&y=a%20b",
        "caption": " a\tc ",
        "width": 1,
        "height": 2,
        "artist": "z",
    },
]


def write_rows(put, kind, rows=ROWS):
    file = put(f"rows.{kind}", "")
    if kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "json":
        file.write_text(json.dumps(rows, indent=1))
    elif kind in ("csv", "tsv"):
        with file.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, rows[0], delimiter="," if kind == "csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif kind == "feather":
        pyarrow.feather.write_feather(pa.Table.from_pylist(rows), file)
    else:
        with pa.ipc.new_stream(file, pa.Table.from_pylist(rows).schema) as writer:
            writer.write_table(pa.Table.from_pylist(rows))
    return file


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet", "feather", "arrow"])
def test_every_form_gives_the_same_rows(put, kind):
    manifest = load_manifest(write_rows(put, kind))
    assert [(row.id, row.captions, row.width, row.height, dict(row.extra)) for row in manifest] == [
        (row["file_name"], (row["caption"],), row["width"], row["height"], {"artist": row["artist"]}) for row in ROWS
    ]
    assert manifest.sizes().tolist() == [[48, 64], [32, 32], [2, 1]]
    assert manifest[0].image.path == str(put.root / "a.jpg")
    assert (manifest[2].image.url, manifest[2].image.path) == (ROWS[2]["file_name"], None)


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "arrow"])
def test_lists_of_captions_numbered_columns_and_repeated_rows(put, kind):
    rows = [
        {"image": "a.jpg", "captions": ["one", "two"], "caption_10": "last", "caption_2": None, "caption_0": "three"},
        {"image": "b.jpg", "captions": [], "caption_10": None, "caption_2": "only", "caption_0": ""},
        {"image": "a.jpg", "captions": ["again"], "caption_10": None, "caption_2": None, "caption_0": None},
    ]
    assert captions(load_manifest(write_rows(put, kind, rows))) == {
        "a.jpg": ("one", "two", "three", "last", "again"),
        "b.jpg": ("only",),
    }


def test_the_plain_tsv_of_the_rfc(put):
    file = put("data.tsv", "a.jpg\tA cat.\nhttps://host.example/b.jpg\tA dog, running\n/far/away/c.jpg\tx\n")
    manifest = load_manifest(file)
    assert captions(manifest) == {
        "a.jpg": ("A cat.",),
        "https://host.example/b.jpg": ("A dog, running",),
        "/far/away/c.jpg": ("x",),
    }
    assert manifest[2].image.path == "/far/away/c.jpg"


@pytest.mark.parametrize(
    ("line", "caption"),
    [
        ("a.jpg\ttab\there\t", "tab\there\t"),
        ('a.jpg\t"quoted" start', '"quoted" start'),
        ('a.jpg\t"quoted whole"', '"quoted whole"'),
        ('a.jpg\tends with 5"', 'ends with 5"'),
        ('a.jpg\t"open', '"open'),
        ("a.jpg\ta, b, c", "a, b, c"),
        ("a.jpg\t back\\slash \\n ", " back\\slash \\n "),
        ("a.jpg\tu\u2028v\x0bw\x85x", "u\u2028v\x0bw\x85x"),
    ],
)
def test_nothing_of_a_tsv_caption_is_lost(put, line, caption):
    for ending in ("\n", "\r\n", ""):
        for header in ("", "image\tcaption\n"):
            manifest = load_manifest(put("data.tsv", header + line + ending))
            assert captions(manifest) == {"a.jpg": (caption,)}


@pytest.mark.parametrize(
    ("line", "caption"),
    [
        ("a.jpg,a, b, c", "a, b, c"),
        ('a.jpg,"a, b"', "a, b"),
        ('a.jpg,"say ""hi"", twice"', 'say "hi", twice'),
        ('a.jpg,"two\nlines"', "two\nlines"),
        ('a.jpg,"two\r\nlines"', "two\r\nlines"),
        ('a.jpg,"big" cat', '"big" cat'),
        ('a.jpg,"big" cat, "small" dog', '"big" cat, "small" dog'),
        ('a.jpg,a 5" screen', 'a 5" screen'),
        ('a.jpg,"open, and never closed', '"open, and never closed'),
        ("a.jpg, a\ttab ", " a\ttab "),
    ],
)
def test_nothing_of_a_csv_caption_is_lost(put, line, caption):
    for ending in ("\n", "\r\n", ""):
        for header in ("", "image,caption\n"):
            manifest = load_manifest(put("data.csv", header + line + ending))
            assert captions(manifest) == {"a.jpg": (caption,)}


def test_csv_as_python_writes_it_and_as_we_read_it_agree(put):
    """The patient reader against the csv module's writer, on captions with every special character."""
    texts = ["plain", "a,b", 'a "b"', '"', '""', "a\nb", "\n", '",', ',"', '"\n"', "x\r\ny", " lead", "trail ", "猫,🐈"]
    texts = [text + ("." if not text.strip() else "") for text in texts]
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        file = put("rows.csv", "")
        with file.open("w", newline="") as opened:
            writer = csv.writer(opened, quoting=quoting)
            writer.writerow(["caption", "file_name", "note"])
            writer.writerows([text, f"{number}.jpg", text] for number, text in enumerate(texts))
        manifest = load_manifest(file)
        assert [row.captions for row in manifest] == [(text,) for text in texts]
        assert [row.extra["note"] for row in manifest] == texts


def test_csv_and_tsv_with_byte_order_mark_upper_case_header_and_blank_lines(put):
    assert captions(load_manifest(put("a.csv", "\ufeffURL,TEXT\r\n\r\nhttp://h.example/a.jpg,x\r\n"))) == {
        "http://h.example/a.jpg": ("x",)
    }
    assert captions(load_manifest(put("b.tsv", "\ufeffa.jpg\tx\n\n \nb.jpg\ty\n"))) == {
        "a.jpg": ("x",),
        "b.jpg": ("y",),
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "a.jpg\tx\n\nb.jpg\n", r"a\.tsv:3: found 1 field.*expected 2: image, caption"),
        ("a.csv", 'image,caption,w\na.jpg,"x\ny",1\nb.jpg,1\n', r"a\.csv:4: found 2 field.*expected 3"),
        ("a.csv", "image,caption\na.jpg,x\n,y\n", r"a\.csv:3: empty image reference in column 'image'"),
        ("a.csv", "image,caption\n\na.jpg,x\n  ,y\n", r"a\.csv:4: empty image reference"),
        ("a.csv", "image,caption,width\na.jpg,x,12\nb.jpg,x,wide\n", r"a\.csv:3: width is 'wide'; expected a whole"),
        ("a.csv", "image,caption,width\na.jpg,x,0\n", r"a\.csv:2: width is '0'"),
        ("a.csv", "image,caption,weight\na.jpg,x,-1\n", r"a\.csv:2: weight is '-1'"),
        ("a.csv", "photo,words\na,b\n", r"a\.csv:1: found 'photo,words'; expected a header"),
        ("a.csv", "image,image\na,b\n", r"a\.csv:1: the header names a column twice"),
        ("a.csv", "image,size\na.jpg,b\n", r"no caption column found among 'image', 'size'"),
        ("a.csv", "", "empty"),
        ("a.tsv", b"a.jpg\tx\nb.jpg\tcaf\xe9\n", r"a\.tsv:2: not UTF-8"),
        ("a.csv", b"a.jpg,x\nb.jpg,caf\xe9\n", r"a\.csv:2: not UTF-8"),
        ("a.jsonl", '{"image": "a.jpg", "text": "x"}\n\n{"image": "b.jpg", \n', r"a\.jsonl:3: not valid JSON"),
        ("a.jsonl", '{"image": "a.jpg", "text": "x"}\n{"text": "y"}\n', r"a\.jsonl:2: (no 'image'|empty image)"),
        ("a.jsonl", '{"image": "a.jpg", "text": "x"}\n\n{"image": "", "text": "y"}\n', r"a\.jsonl:3: empty image"),
        (
            "a.jsonl",
            '{"image": "a.jpg", "text": "x"}\n{"image": "b.jpg", "text": 5}\n',
            r"a\.jsonl:2: text holds a num",
        ),
        ("a.jsonl", '{"image": "a.jpg", "text": 5}\n', r"a\.jsonl:1: text holds a number"),
        (
            "a.jsonl",
            '{"image": "a.jpg", "text": "x"}\n["b.jpg", "y"]\n',
            r"a\.jsonl:2: found a list; expected an object",
        ),
        ("a.jsonl", '{"image": {"x": 1}, "text": "x"}\n', r"a\.jsonl:1: image is an object; expected a path"),
        ("a.jsonl", b'{"image": "a.jpg", "text": "caf\xe9"}\n', r"a\.jsonl:1: not UTF-8"),
        ("a.jsonl", '{"image": "a.jpg", "text": "\\ud800"}\n', r"a\.jsonl:1: text holds half a surrogate"),
        ("a.json", '[{"image": "a.jpg"\n, "text": }]', r"a\.json:2: not valid JSON"),
        ("a.json", '[{"image": "a.jpg", "text": "x"}, 7]', r"a\.json item 2: found a number"),
        ("a.json", '{"a.jpg": "x", "b.jpg": 7}', r"a\.json at 'b\.jpg': found a number"),
    ],
)
def test_bad_rows_are_named(put, name, text, message):
    with pytest.raises(ManifestError, match=message):
        load_manifest(put(name, text))


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("a.tsv", "a.jpg\tx\nb.jpg\nc.jpg\tz\n", "2"),
        ("a.csv", 'a.jpg,"x\n1"\n,y\nc.jpg,z\n', "3"),
        ("a.jsonl", '{"image": "a.jpg", "text": "x"}\n{bad}\n{"image": "c.jpg", "text": "z"}\n', "2"),
        (
            "a.jsonl",
            '{"image": "a.jpg", "text": "x"}\n\n{"image": null, "text": "x"}\n{"image":"c.jpg","text":"z"}\n',
            "3",
        ),
    ],
)
def test_bad_rows_are_skipped_into_the_ledger_when_asked(put, name, text, where):
    file = put(name, text)
    ledger = Ledger()
    manifest = load_manifest(file, on_error="skip", ledger=ledger)
    assert list(captions(manifest)) == ["a.jpg", "c.jpg"]
    assert manifest.ledger is ledger
    assert [(entry.kind, entry.id) for entry in ledger] == [("bad_row", f"{file}:{where}")]


def test_bad_rows_of_parquet_have_row_numbers(put):
    file = put("a.parquet", "")
    pq.write_table(pa.table({"image": ["a.jpg", None, "c.jpg"], "text": ["x", "y", "z"]}), file)
    with pytest.raises(ManifestError, match=r"a\.parquet row 1: empty image"):
        load_manifest(file)
    manifest = load_manifest(file, on_error="skip")
    assert (list(captions(manifest)), manifest.ledger.counts()) == (["a.jpg", "c.jpg"], {"bad_row": 1})
    put("b.parquet", "no parquet")
    with pytest.raises(ManifestError, match=r"b\.parquet: damaged, or not a Parquet file"):
        load_manifest(put.root / "b.parquet")
    put("c.arrow", "no arrow")
    with pytest.raises(ManifestError, match=r"c\.arrow: damaged, or not an Arrow file"):
        load_manifest(put.root / "c.arrow")


def test_json_lines_with_captions_of_both_kinds_and_loose_extras(put):
    """What Arrow's parser does not take goes to the patient one: nothing is lost or changed."""
    rows = [
        {"image": "a.jpg", "text": "x", "tags": {"n": 1}, "date": "2020-01-01"},
        {"image": "b.jpg", "text": ["y", "z"], "tags": ["t", 1], "big": 2**70},
        {"image": "c.jpg", "text": ["w", None]},
    ]
    manifest = load_manifest(put("a.jsonl", "\n".join(map(json.dumps, rows))))
    assert captions(manifest) == {"a.jpg": ("x",), "b.jpg": ("y", "z"), "c.jpg": ("w",)}
    assert [dict(row.extra) for row in manifest] == [
        {"tags": {"n": 1}, "date": "2020-01-01", "big": None},
        {"tags": ["t", 1], "date": None, "big": 2**70},
        {"tags": None, "date": None, "big": None},
    ]


def test_json_text_that_looks_like_a_date_stays_text(put):
    """Arrow's JSON parser would make timestamps of these."""
    rows = [{"image": "a.jpg", "text": "2020-01-01", "more": {"d": "2020-01-02 03:04:05"}, "l": ["2020-01-03"]}]
    row = load_manifest(put("a.jsonl", json.dumps(rows[0]) + "\n"))[0]
    assert row.captions == ("2020-01-01",)
    assert row.extra == {"more": {"d": "2020-01-02 03:04:05"}, "l": ["2020-01-03"]}


@pytest.mark.parametrize("kind", ["jsonl", "tsv"])
def test_many_skipped_rows_are_named_in_linear_time(put, kind):
    rows = [{"image": f"{n}.jpg", "caption": "" if n % 2 else "x"} for n in range(20_000)]
    manifest = load_manifest(write_rows(put, kind, rows), missing_captions="skip")
    last = list(manifest.ledger)[-1]
    assert len(manifest) == len(manifest.ledger) == 10_000
    assert (last.id, last.reason.endswith(f"rows.{kind}:{20_000 + (kind == 'tsv')})")) == ("19999.jpg", True)


def test_headerless_files_have_the_columns_image_and_caption(put):
    file = put("a.tsv", "a.jpg\tx\n")
    assert captions(load_manifest(file, columns={"image": "image", "caption": "caption"})) == {"a.jpg": ("x",)}
    with pytest.raises(ManifestError, match=r"no column 'photo'.*'image', 'caption'"):
        load_manifest(file, columns={"image": "photo"})


def test_big_whole_numbers_keep_their_digits(put):
    """Arrow's JSON parser makes floats of these."""
    big = 12345678901234567890
    rows = [
        {"id": big + n, "image": f"{n}.jpg", "text": "x", "n": [2**53 + 1, 1.5][n], "o": {"h": big + n}} for n in (0, 1)
    ]
    manifest = load_manifest(write_rows(put, "jsonl", rows))
    assert [(row.id, row.extra) for row in manifest] == [
        (str(big + n), {"n": [2**53 + 1, 1.5][n], "o": {"h": big + n}}) for n in (0, 1)
    ]


def test_spreadsheets_end_lines_with_empty_columns(put):
    manifest = load_manifest(put("a.csv", "image,text,,\na.jpg,x,,\nb.jpg,y,,z\n"))
    assert captions(manifest) == {"a.jpg": ("x",), "b.jpg": ("y",)}
    assert manifest[1].extra == {"column_2": "", "column_3": "z"}


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_lines_of_nothing_but_paths(put, name):
    file = put(name, "a.jpg\nb.jpg\n")
    assert captions(load_manifest(file, missing_captions="empty")) == {"a.jpg": ("",), "b.jpg": ("",)}
    with pytest.raises(ManifestError, match="found 1 field"):
        load_manifest(file)


def test_the_fast_json_reader_and_the_patient_one_agree(put):
    rows = [
        {
            "image": f"{n % 7}/{n}.jpg",
            "caption": [f"c{n}", 'é\n\t"猫\u2028'][: n % 3],
            "n": n / 4,
            "deep": {"a": [n], "b": None},
        }
        for n in range(1, 200)
    ]
    text = "\n".join(json.dumps(row, ensure_ascii=bool(number % 2)) for number, row in enumerate(rows))
    fast = load_manifest(put("a.jsonl", text), missing_captions="empty")
    slow = load_manifest(put("b.jsonl", "\ufeff" + text), missing_captions="empty")  # a mark: not for Arrow
    assert list(fast) == list(slow)
    assert fast[0].captions == ("c1",) and fast[2].captions == ("",)


def test_json_objects_keyed_by_path(put):
    assert captions(load_manifest(put("a.json", '{"a.jpg": "x", "sub/b.jpg": ["y", "z"]}'))) == {
        "a.jpg": ("x",),
        "sub/b.jpg": ("y", "z"),
    }
    kohya = {"a.jpg": {"caption": "a cat", "tags": "cat, sitting"}, "b.jpg": {"caption": "b", "tags": "c"}}
    manifest = load_manifest(put("meta_cap.json", json.dumps(kohya)))
    assert [(row.id, row.captions, row.extra) for row in manifest] == [
        ("a.jpg", ("a cat",), {"tags": "cat, sitting"}),
        ("b.jpg", ("b",), {"tags": "c"}),
    ]


def test_other_json_shapes(put):
    one = {"file_name": "a.jpg", "text": "x"}
    for content in (json.dumps(one), f"{json.dumps(one)}\n", json.dumps([one]), json.dumps({"data": [one]})):
        assert captions(load_manifest(put("a.json", content))) == {"a.jpg": ("x",)}
    lines = f"{json.dumps(one)}\n{json.dumps({**one, 'file_name': 'b.jpg'})}\n"
    assert captions(load_manifest(put("a.json", lines))) == {"a.jpg": ("x",), "b.jpg": ("x",)}


def test_columns_by_name(put):
    file = put("a.csv", "photo,long,short,key,w,h,times\na.jpg,a long one,short,k1,64,48,2.5\n")
    mapping = {
        "image": "photo", "caption": ["short", "long"], "id": "key", "width": "w", "height": "h", "weight": "times"
    }  # fmt: skip
    for manifest in (load_manifest(file, columns=mapping), load_manifest(file, column_map=mapping)):
        row = manifest[0]
        assert (row.id, row.captions, row.width, row.height, row.weight) == ("k1", ("short", "a long one"), 64, 48, 2.5)
        assert row.image.path == str(put.root / "a.jpg") and row.extra == {}
        assert manifest.weights().tolist() == [2.5]


def test_column_mistakes_are_errors(put):
    file = put("a.csv", "image,text\na.jpg,x\n")
    with pytest.raises(ManifestError, match=r"no column 'photo' .*'image', 'text'"):
        load_manifest(file, columns={"image": "photo"})
    with pytest.raises(ConfigError, match="did you mean 'caption'"):
        load_manifest(file, columns={"captoin": "text"})
    with pytest.raises(ConfigError, match="'image' takes one column"):
        load_manifest(file, columns={"image": ["a", "b"]})
    with pytest.raises(ConfigError, match="columns and column_map mean the same"):
        load_manifest(file, columns={"image": "image"}, column_map={"image": "image"})
    with pytest.raises(ManifestError, match=r"no image column found among .*'x', 'y'"):
        load_manifest(put("b.jsonl", '{"x": 1, "y": 2}\n'))


def test_a_column_turned_off_is_not_guessed(put):
    file = put("a.csv", "image,text,id\na.jpg,x,7\nb.jpg,y,7\n")
    with pytest.raises(ManifestError, match=r"a\.csv:3: the id '7' is already that of another image, at .*a\.csv:2"):
        load_manifest(file)
    manifest = load_manifest(file, columns={"id": None})
    assert [(row.id, row.extra) for row in manifest] == [("a.jpg", {"id": "7"}), ("b.jpg", {"id": "7"})]
    skipped = load_manifest(file, on_error="skip")
    assert (captions(skipped), skipped.ledger.counts()) == ({"7": ("x",)}, {"duplicate_id": 1})


def test_ids_of_a_column_win_and_may_repeat_for_one_image(put):
    file = put("a.jsonl", "\n".join(
        json.dumps({"id": id, "image": image, "text": text})
        for id, image, text in [(1, "a.jpg", "x"), (2, "b.jpg", "y"), (1, "./a.jpg", "z")]
    ))  # fmt: skip
    assert captions(load_manifest(file)) == {"1": ("x", "z"), "2": ("y",)}
    with pytest.raises(ManifestError, match=r"a\.jsonl:2: empty id"):
        load_manifest(put("a.jsonl", '{"id": "1", "image": "a.jpg", "text": "x"}\n{"image": "b.jpg", "text": "x"}\n'))


def test_an_id_that_is_another_files_path_is_a_mistake(put):
    one = put("a.jsonl", '{"image": "a.jpg", "text": "x"}\n')
    for image, captions_or_error in (("a.jpg", ("x", "y")), ("b.jpg", None)):
        two = put("b.jsonl", json.dumps({"id": "a.jpg", "image": image, "text": "y"}))
        for files in ([one, two], [two, one]):
            if captions_or_error:
                assert sorted(load_manifest(files)[0].captions) == ["x", "y"]
            else:
                with pytest.raises(ManifestError, match="already that of another image"):
                    load_manifest(files)


def test_missing_captions_in_a_table(put):
    file = put("a.csv", "image,caption\na.jpg,x\nb.jpg,\nc.jpg, \n")
    with pytest.raises(MissingCaptionError, match=r"2 of 3 images have no caption: 'b\.jpg', 'c\.jpg' .*a\.csv:3"):
        load_manifest(file)
    manifest = load_manifest(file, missing_captions="skip")
    assert (list(captions(manifest)), manifest.ledger.counts()) == (["a.jpg"], {"no_caption": 2})
    assert captions(load_manifest(put("b.csv", "image,size\na.jpg,x\n"), missing_captions="a cat")) == {
        "a.jpg": ("a cat",)
    }


def test_several_files_with_columns_that_differ(put):
    put("x/a.jsonl", '{"image": "a.jpg", "text": "x", "n": 1, "only": true}\n')
    put("y/b.jsonl", '{"image": "b.jpg", "text": "y", "n": "one"}\n')
    put("y/c.csv", "image,text\nc.jpg,z\n")
    manifest = load_manifest([f"{put.root}/*/*.jsonl", put.root / "y" / "c.csv"])
    assert captions(manifest) == {"x/a.jpg": ("x",), "y/b.jpg": ("y",), "y/c.jpg": ("z",)}
    assert [dict(row.extra) for row in manifest] == [
        {"n": 1, "only": True}, {"n": "one", "only": None}, {"n": None, "only": None}
    ]  # fmt: skip
    assert manifest[1].image.path == str(put.root / "y" / "b.jpg")
    assert manifest.describe()["format"] == "jsonl, csv"


def test_a_folder_of_data_files(put):
    put("data/train-00000-of-00002.parquet", ""), put("data/test-00000-of-00001.parquet", "")
    put("README.md", "x"), put("stats.json", "{}")
    for split in ("train-00000-of-00002", "test-00000-of-00001"):
        file = put.root / "data" / f"{split}.parquet"
        pq.write_table(pa.table({"image": [f"{split}.jpg"], "text": ["x"]}), file)
    assert list(captions(load_manifest(put.root, split="train"))) == ["data/train-00000-of-00002.jpg"]
    manifest = load_manifest(put.root, split="all")
    assert len(manifest) == 2
    assert "not its .json files" in manifest.describe()["notes"][0]


def test_torchtune_and_datasets_ways_of_saying_it(put):
    put("rows/a.jsonl", '{"image": "a.jpg", "text": "x"}\n'), put("pictures/a.jpg"), put("rows/b.jsonl", "{}\n")
    file = put.root / "rows" / "a.jsonl"
    manifest = load_manifest(source="json", data_files=str(file), split="train", image_dir=put.root / "pictures")
    assert captions(manifest) == {"a.jpg": ("x",)}
    assert manifest[0].image.path == str(put.root / "pictures" / "a.jpg")
    assert len(load_manifest("json", data_files={"train": str(file), "test": "gone.jsonl"}, split="train")) == 1
    assert len(load_manifest(put.root / "rows", data_files="a.jsonl")) == 1
    with pytest.raises(ConfigError, match="path and source"):
        load_manifest(file, source="json")
    with pytest.raises(ConfigError, match="no split 'validation'"):
        load_manifest(file, split="validation")
    with pytest.raises(ConfigError, match="path is missing"):
        load_manifest()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("missing_captions", None),
        ("caption_lines", "all"),
        ("on_error", "ignore"),
        ("validation", 1.0),
        ("validation", -0.1),
    ],
)
def test_option_mistakes_are_errors(put, option, value):
    put("a.jpg"), put("a.txt", "x")
    with pytest.raises(ConfigError, match=f"{option}: found {value!r}"):
        load_manifest(put.root, **{option: value})


def struct_table(jpeg):
    images = [
        {"bytes": jpeg(0), "path": None}, {"bytes": jpeg(1), "path": "named.jpg"}, {"bytes": None, "path": "beside.jpg"}
    ]  # fmt: skip
    return pa.table({"image": images, "text": ["x", "y", "z"], "mask": [b"m"] * 3})


@pytest.mark.parametrize("kind", ["parquet", "arrow", "compressed"])
def test_image_bytes_in_a_column_are_byte_ranges(put, read, jpeg, kind, cache):
    table = struct_table(jpeg)
    if kind == "parquet":
        file = put("a.parquet", "")
        pq.write_table(table, file, row_group_size=2)
    else:
        file = put("a.arrow", "")
        options = pa.ipc.IpcWriteOptions(compression="zstd" if kind == "compressed" else None)
        with pa.ipc.new_file(file, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=2)
    put("beside.jpg")
    manifest = load_manifest(file)
    name = file.name
    assert captions(manifest) == {f"{name}#0": ("x",), f"{name}#1": ("y",), "beside.jpg": ("z",)}
    assert [read(row.image) for row in manifest] == [jpeg(0), jpeg(1), (put.root / "beside.jpg").read_bytes()]
    assert [row.image.name for row in manifest] == [f"{name}#0", f"{name}#1!named.jpg", "beside.jpg"]
    assert manifest.describe()["notes"] == ["column 'mask' holds binary data and is not read"] * 1
    if kind == "arrow":
        assert manifest[0].image.path == str(file) and not (cache / "images").exists()
    else:
        # Unpacked once, not again; and again when the file has changed.
        unpacked = list((cache / "images").iterdir())
        stamp = unpacked[0].stat().st_mtime_ns
        load_manifest(file)
        assert [(path, path.stat().st_mtime_ns) for path in (cache / "images").iterdir()] == [(unpacked[0], stamp)]
        pq.write_table(table.slice(1), put("a.parquet", "")) if kind == "parquet" else None
        if kind == "parquet":
            assert read(load_manifest(file)[0].image) == jpeg(1)


def test_plain_binary_columns_and_bad_ones(put, read, jpeg):
    file = put("a.parquet", "")
    pq.write_table(
        pa.table({"jpg": pa.array([jpeg(3), b"", None, jpeg(4)], pa.large_binary()), "txt": list("abcd")}), file
    )
    with pytest.raises(ManifestError, match=r"a\.parquet row 1: empty image"):
        load_manifest(file)
    manifest = load_manifest(file, on_error="skip")
    assert [(row.id, read(row.image)) for row in manifest] == [("a.parquet#0", jpeg(3)), ("a.parquet#3", jpeg(4))]
    pq.write_table(pa.table({"image": [1, 2], "text": ["a", "b"]}), file)
    with pytest.raises(ManifestError, match="image column 'image' holds int64"):
        load_manifest(file)
    pq.write_table(pa.table({"image": ["a.jpg"], "text": [7]}), file)
    with pytest.raises(ManifestError, match=r"caption column\(s\) text hold int64"):
        load_manifest(file)


def test_categories_of_pandas_and_wide_text_types(put):
    table = pa.table(
        {
            "image": pa.array(["a.jpg", "b.jpg"]).dictionary_encode(),
            "text": pa.array(["same", "same"]).dictionary_encode(),
            "width": pa.array(["64", ""]),
            "view": pa.array(["v", "w"], pa.string_view()),
        }
    )
    file = put("a.arrow", "")
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    manifest = load_manifest(file)
    assert [(row.id, row.captions, row.width, row.extra) for row in manifest] == [
        ("a.jpg", ("same",), 64, {"view": "v"}),
        ("b.jpg", ("same",), None, {"view": "w"}),
    ]


def test_a_parquet_that_datasets_wrote(put, read, jpeg):
    put("one.jpg", jpeg(5))
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    data = datasets.Dataset.from_dict({"image": [str(put.root / "one.jpg")], "text": ["x"]}, features=features)
    data.to_parquet(str(put.root / "a.parquet"))
    row = load_manifest(put.root / "a.parquet")[0]
    assert (row.captions, read(row.image)) == (("x",), jpeg(5))


# ------------------------------------------------------------------------------------------------ columns, given or not


def test_columns_of_one_name_are_an_error(put):
    table = pa.table([pa.array(["a.jpg"]), *(pa.array([text]) for text in "xyz")], names=["image", "text", "n", "n"])
    pq.write_table(table, put("a.parquet", ""))
    with pa.ipc.new_file(put("a.arrow", ""), table.schema) as writer:
        writer.write_table(table)
    for name in ("a.parquet", "a.arrow"):
        with pytest.raises(ManifestError, match=rf"{name}: several columns are called 'n'; rename all but one"):
            load_manifest(put.root / name)


def test_columns_that_differ_in_case_only_need_a_choice(put):
    file = put("a.csv", "image,Text,text\na.jpg,x,y\n")
    with pytest.raises(ManifestError, match=r"a\.csv: columns whose names differ in case only: 'Text', 'text'"):
        load_manifest(file)
    assert captions(load_manifest(file, columns={"caption": "text"})) == {"a.jpg": ("y",)}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_column_that_is_not_there_is_named_with_the_one_that_is(put, kind):
    file = write_rows(put, kind, [{"image": "a.jpg", "Caption_EN": "x"}])
    with pytest.raises(ManifestError, match=r"no column 'captions_EN' .*; did you mean 'Caption_EN'\?"):
        load_manifest(file, columns={"caption": "captions_EN"})
    assert captions(load_manifest(file, columns={"caption": "caption_en"})) == {"a.jpg": ("x",)}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("image", "found 'image'; expected a mapping"),
        ({"caption": 3}, "'caption' must name a column, not 3"),
        ({"caption": ["x", "x"]}, "'caption' names a column twice: x, x"),
        ({"image": "x", "caption": ["y", "x"]}, "'x' can't be both the image and a caption"),
        ({"image": ["x", "y"]}, "'image' takes one column, not 2"),
    ],
)
def test_mistakes_in_the_mapping_of_columns(put, columns, message):
    with pytest.raises(ConfigError, match=f"columns: {message}"):
        load_manifest(put("a.csv", "image,x,y\na.jpg,x,y\n"), columns=columns)


@pytest.mark.parametrize("name", ["label", "vector", "object", "mask", "flag"])
def test_a_caption_column_that_holds_no_text_is_named(put, name):
    rows = [{"image": "a.jpg", "label": 3, "vector": [1.0], "object": {"a": "x"}, "mask": b"abc", "flag": True}]
    with pytest.raises(ManifestError, match=rf"a\.parquet: the (caption )?column.*{name}.* holds? .*; expected text"):
        pq.write_table(pa.Table.from_pylist(rows), put("a.parquet", ""))
        load_manifest(put.root / "a.parquet", columns={"caption": name})


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_lists_of_one_image(put, kind):
    rows = [{"images": ["a.jpg"], "text": "x"}, {"images": ["b.jpg"], "text": "y"}]
    assert captions(load_manifest(write_rows(put, kind, rows))) == {"a.jpg": ("x",), "b.jpg": ("y",)}
    rows[1]["images"].append("c.jpg")
    with pytest.raises(ManifestError, match=r"images' holds list|images is a list"):
        load_manifest(write_rows(put, kind, rows))


def test_images_as_datasets_writes_them_into_json(put):
    rows = [{"image": {"bytes": None, "path": "a.jpg"}, "text": "x"}]
    assert captions(load_manifest(write_rows(put, "jsonl", rows))) == {"a.jpg": ("x",)}

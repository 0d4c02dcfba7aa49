"""Dialects of CSV: found by looking, read right, and kept when a caption is changed."""

import csv

import pytest

from calotype.editing import open_captions
from calotype.errors import ConfigError, EditError, ManifestError
from calotype.manifest import load_manifest


def captions(manifest):
    return {row.id: row.captions for row in manifest}


TEXTS = {
    "a.jpg": "a cat, sitting; it's | odd",
    "b.jpg": 'a "quoted" dog',
    "c/d.png": "three; semicolons; here, and commas, too, many, of, them",
    "https://h.example/e.jpg?x=1,2;3": "plain",
}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", [["file_name", "text"], ["text", "file_name"], ["artist", "URL", "Caption"], None])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_the_delimiter_is_found_whatever_the_captions_hold(put, delimiter, header, suffix):
    file = put(f"data.{suffix}", "")
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened, delimiter=delimiter)
        if header:
            writer.writerow(header)
        for image, text in TEXTS.items():
            names = header or ["image", "text"]
            writer.writerow(
                text if name.lower() in ("text", "caption") else "x, y" if name == "artist" else image for name in names
            )
    assert captions(load_manifest(file)) == {image: (text,) for image, text in TEXTS.items()}
    assert captions(load_manifest(file, delimiter=delimiter)) == captions(load_manifest(file))


def test_a_delimiter_of_ones_own(put):
    file = put("data.csv", "image^caption\na.jpg^x, y\n")
    with pytest.raises(ManifestError, match=r"data\.csv:1: found 'image\^caption'; expected a header .*delimiter="):
        load_manifest(file)
    assert captions(load_manifest(file, delimiter="^")) == {"a.jpg": ("x, y",)}
    assert captions(load_manifest(put("b.csv", "a.jpg\tx\n"), delimiter="tab")) == {"a.jpg": ("x",)}
    for wrong in ("", ";;", '"', "a", 1):
        with pytest.raises(ConfigError, match="delimiter: found"):
            load_manifest(file, delimiter=wrong)


def test_a_delimiter_without_effect_is_an_error(put):
    put("photos/a.jpg"), put("photos/a.txt", "x")
    for path in (put("data.jsonl", '{"image": "a.jpg", "text": "x"}\n'), put.root / "photos"):
        with pytest.raises(ConfigError, match=r"delimiter: .* holds no CSV or TSV"):
            load_manifest(path, delimiter=";")


def test_what_was_found_is_reported(put):
    notes = load_manifest(put("a.csv", "image;text\na.jpg;x\n")).describe()["notes"]
    assert notes == ["a.csv: fields are separated by a semicolon"]
    notes = load_manifest(put("b.csv", "a.jpg,x\n")).describe()["notes"]
    assert notes == ["b.csv: no header line; each line is read as an image, a comma and its caption"]


SPACED = 'file_name, text , artist\n0.jpg, a cat, me\n1.jpg, "a dog, running", "you"\n2.jpg,  two spaces,\n'


@pytest.mark.parametrize("more", ["", '3.jpg, "say ""hi""" , x\n'])
def test_spaces_after_the_delimiter_are_the_headers(put, more):
    manifest = load_manifest(put("data.csv", SPACED + more))
    assert [row.captions[0] for row in manifest][:3] == ["a cat", "a dog, running", "two spaces"]
    assert [row.extra["artist"] for row in manifest][:3] == ["me", "you", ""]
    assert not more or manifest[3].captions == ('say "hi"',)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('a.jpg, "a, b"\nb.jpg, c\n', ["a, b", "c"]),  # quotes after spaces show what the spaces are
        ("a.jpg, a\nb.jpg, b\n", [" a", " b"]),  # nothing does
        ('image,text\na.jpg, "a, b"\nb.jpg,c\n', ["a, b", "c"]),
        ('image;text\na.jpg; "a; b"\n', ["a; b"]),
        ('image,text\na.jpg,he said, "hi"\n', ['he said, "hi"']),  # not a field of its own
        ('image,text\na.jpg,he said, "hi\nb.jpg,she, "no"\n', ['he said, "hi', 'she, "no"']),
    ],
)
def test_quotes_after_spaces(put, text, expected):
    assert [row.captions[0] for row in load_manifest(put("data.csv", text))] == expected


@pytest.mark.parametrize(
    ("written", "caption"),
    [
        (r'"say \"hi\", twice"', 'say "hi", twice'),
        (r'"\"quoted\""', '"quoted"'),
        (r'"a \"b\\c"', r'a "b\c'),
        (r'"5\", wide"', '5", wide'),
        (r'"C:\folder\"', "C:\\folder\\"),  # RFC 4180: the quote closes
        (r'"both \""ways\"""', r"both \"ways\""),
    ],
)
@pytest.mark.parametrize("header", ["image,caption,n\n", "n;image;caption\n"])
def test_quotes_written_with_a_backslash(put, written, caption, header):
    delimiter = header[-2 - len("caption") :][0] if header.startswith("n") else ","
    row = ["x.jpg", written, "1"] if delimiter == "," else ["1", "x.jpg", written]
    plain = ["y.jpg", '"plain, or; not"', "2"] if delimiter == "," else ["2", "y.jpg", '"plain, or; not"']
    file = put("data.csv", header + delimiter.join(row) + "\n" + delimiter.join(plain) + "\n")
    assert captions(load_manifest(file)) == {"x.jpg": (caption,), "y.jpg": ("plain, or; not",)}


def test_a_last_line_that_ends_in_a_carriage_return(put):
    for end in ("\r\n", "\r", ""):
        text = f'image,text\r\na.jpg,a "b" c\r\nb.jpg,a 5" tv{end}'
        assert captions(load_manifest(put("data.csv", text))) == {"a.jpg": ('a "b" c',), "b.jpg": ('a 5" tv',)}


def test_lone_carriage_returns_end_lines(put):
    file = put("data.csv", 'image,text\ra.jpg,"x, y"\r\rb.jpg,z\r')
    assert captions(load_manifest(file)) == {"a.jpg": ("x, y",), "b.jpg": ("z",)}
    with pytest.raises(ManifestError, match=r"b\.tsv:3: found 1 field"):
        load_manifest(put("b.tsv", "image\ttext\ra.jpg\tx\rb.jpg\r"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_byte_order_marks(put, encoding, line_end):
    text = line_end.join(["image;text", 'a.jpg;"ein Hünd, läuft"', "b.jpg;猫", ""])
    assert captions(load_manifest(put("a.csv", text.encode(encoding)))) == {
        "a.jpg": ("ein Hünd, läuft",),
        "b.jpg": ("猫",),
    }


@pytest.mark.parametrize("header", ['" Image " , "TEXT"', "IMAGE ,text ", '"image","text"'])
def test_names_of_columns_with_spaces_quotes_and_case(put, header):
    file = put("data.csv", header + "\na.jpg,x\n")
    assert captions(load_manifest(file)) == {"a.jpg": ("x",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image;text\na.jpg;x;y\nb.jpg\n", r"a\.csv:3: found 1 field"),
        ("image,text,n\na.jpg,x,1\nb.jpg,y, z,1\n", r"a\.csv:3: found 4 field.*put quotes around"),
        ('image,text\na.jpg,"x"\nb.jpg,"y","z"\n', r"a\.csv:3: found 3 field"),
        ("a.jpg,a cat,640,480\nb.jpg,a dog,64,48\n", r"a\.csv:1: found 4 fields .* no header line"),
        ('a.jpg,"a cat",me\nb.jpg,"a dog",you\n', r"a\.csv:1: found 3 fields .* no header line"),
        ("image,text,Image\na.jpg,x,b\n", r"a\.csv: columns whose names differ in case only: 'image', 'Image'"),
        ("a cat,a.jpg\na dog,b.jpg\n", r"a\.csv:1: found 'a cat,a\.jpg'; expected a header"),
        ("image,text,text\na.jpg,x,b\n", r"a\.csv:1: the header names a column twice: text"),
        ('image,text\na.jpg,"x\nb.jpg,y\nc.jpg,z"\n', r"a\.csv:2: a quote opens here and closes in line 4"),
    ],
)
def test_rows_that_do_not_fit_are_named(put, text, message):
    file = put("a.csv", text)
    with pytest.raises(ManifestError, match=message):
        load_manifest(file)


def test_a_first_row_whose_caption_is_the_name_of_a_column_is_no_header(put):
    file = put("a.csv", "a.jpg,image\nb.jpg,a path\n")
    assert captions(load_manifest(file)) == {"a.jpg": ("image",), "b.jpg": ("a path",)}


EDITED = {
    "semicolon.csv": 'image;text;n\na.jpg;"x; y";1\nb.jpg;"z ""q""";2\nc.jpg;;3\n',
    "bar.csv": "image|text\r\na.jpg|x, y\r\nb.jpg|z|z\r\nc.jpg|w\r\n",
    "spaced.csv": SPACED.replace("0.jpg", "a.jpg").replace("1.jpg", "b.jpg").replace("2.jpg", "c.jpg"),
    "backslash.csv": 'image,text,n\na.jpg,"say \\"hi\\", twice",1\nb.jpg,"C:\\\\d",2\nc.jpg,x,3\n',
    "returns.csv": 'image,text\ra.jpg,"x, y"\rb.jpg,z\rc.jpg,\r',
    "mark.tsv": '\ufeffimage;text\na.jpg;x\nb.jpg;"y"\nc.jpg;z',
    "none.csv": "a.jpg;x, y\nb.jpg;z\nc.jpg;w\n",
}


@pytest.mark.parametrize("name", EDITED)
@pytest.mark.parametrize("new", ["new", 'a "b", c; d | e', 'back\\slash \\" quote', " led by a space", "two\nlines"])
def test_a_changed_caption_keeps_the_dialect_and_all_other_lines(put, name, new):
    file = put(name, EDITED[name].encode())
    before = captions(load_manifest(file, missing_captions="empty"))
    places = open_captions(file)
    assert {id: state.captions or ("",) for id, state in places.read().items()} == before
    places.write({"b.jpg": [new]})
    assert captions(load_manifest(file, missing_captions="empty")) == before | {"b.jpg": (new,)}
    end = "\r" if name == "returns.csv" else "\n"
    old, now = EDITED[name].split(end), file.read_bytes().decode().split(end)
    assert [line for line in now if line in old] == [line for line in old if "b.jpg" not in line]


def test_captions_in_another_encoding_are_not_changed(put):
    file = put("a.csv", "image,text\na.jpg,x\n".encode("utf-16"))
    with pytest.raises(EditError, match=r"a\.csv: captions are changed in UTF-8 files"):
        open_captions(file)

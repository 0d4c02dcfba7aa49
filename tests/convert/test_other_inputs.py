"""Inputs that are no output form: what they hold comes through too."""

import json

import pyarrow as pa
import pytest
from convert_helpers import convert, facts, load

from calotype.convert import verify_conversion

ROWS = [("0.jpg", ["a cat, sitting", "a cat"]), ("sub/1.jpg", ["ein Hund"]), ("2.jpg", [])]


def sidecars(folder):
    (folder / "0.txt").write_text("a cat, sitting\n")
    (folder / "0.caption").write_text("a cat")
    (folder / "sub" / "1.jpg.txt").write_text("ein Hund")
    return folder


def kohya(folder):
    for name, repeats in (("0.jpg", 10), ("sub/1.jpg", 3), ("2.jpg", 3)):
        place = folder / f"{repeats}_sks dog"
        place.mkdir(exist_ok=True)
        (folder / name).rename(place / name.rpartition("/")[2])
    (folder / "10_sks dog" / "0.txt").write_text("a cat, sitting\na cat\n")
    (folder / "3_sks dog" / "1.txt").write_text("")
    return folder


def tsv(folder):
    (folder / "d.tsv").write_text("".join(f"{name}\t{text}\n" for name, texts in ROWS for text in texts))
    return folder / "d.tsv"


def keyed(folder):
    (folder / "d.json").write_text(json.dumps({name: {"caption": texts, "by": name} for name, texts in ROWS}))
    return folder / "d.json"


def arrow(folder):
    images = [{"bytes": (folder / name).read_bytes(), "path": name} for name, _ in ROWS]
    table = pa.table({"image": images, "captions": [texts for _, texts in ROWS], "n": [1, None, 3]})
    with pa.OSFile(str(folder / "d.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return folder / "d.arrow"


def several(folder):
    tsv(folder), arrow(folder)
    return [folder / "d.tsv", folder / "d.arrow"]


@pytest.mark.parametrize("to", ["imagefolder", "kohya", "webdataset", "parquet"])
@pytest.mark.parametrize("made", [sidecars, kohya, tsv, keyed, arrow, several], ids=lambda made: made.__name__)
def test_from(tmp_path, skimage_data, made, to):
    folder = tmp_path / "set"
    (folder / "sub").mkdir(parents=True)
    for number, (name, _) in enumerate(ROWS):
        data = (skimage_data / ["rocket.jpg", "hubble_deep_field.jpg", "rocket.jpg"][number]).read_bytes()
        (folder / name).write_bytes(data)
    path = made(folder)
    came_as = "kohya" if made is kohya else "imagefolder"
    plan = convert(path, tmp_path / "out", to, came_as=came_as)
    source, result = load(path, came_as), load(tmp_path / "out", to)
    assert facts(result) == facts(source)
    assert [dict(row.extra) for row in result] == [dict(row.extra) for row in source]
    assert verify_conversion(plan).differences == ()
    if (made, to) == (kohya, "kohya"):
        names = [file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").glob("*/*.jpg")]
        assert sorted(names) == ["10_sks dog/0.jpg", "3_sks dog/1.jpg", "3_sks dog/2.jpg"]

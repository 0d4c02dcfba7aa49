"""What each form does with names, links, references, hard captions and what it can't hold."""

import json
import os
import shutil
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from convert_helpers import convert, facts, load

from calotype.convert import FORMS, plan_conversion, run_conversion, table_form, verify_conversion
from calotype.convert.names import Names, tidy
from calotype.errors import ConfigError, MissingPathError
from calotype.images import ImageReader


def kinds(plan):
    return {found.kind: found.count for found in plan.findings if found.kind != "source"}


HARD = [
    "line\nbreak", "crlf\r\nhere", "ends with a break\n", '"quoted"', "a,b", "\ttab", " lead and end ", "a" * 3000,
    '{"json": 1}', "NA", "null", "007", "2024-01-02", "{trigger}", "“typographic” 🐈", "#", "'",
]  # fmt: skip


@pytest.fixture
def put(tmp_path, skimage_data):
    """put("rows.jsonl", rows): a data file beside real photos `0.jpg`, …; gives its path."""

    def put(rows, name="rows.jsonl", photos=()):
        folder = tmp_path / "set"
        data = (skimage_data / "rocket.jpg").read_bytes()
        for photo in photos:
            (folder / photo).parent.mkdir(parents=True, exist_ok=True)
            (folder / photo).write_bytes(data)
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return folder / name

    return put


@pytest.mark.parametrize("to", [name for name in FORMS if name != "kohya"])
def test_captions_stay_byte_for_byte(put, tmp_path, to):
    rows = [{"image": "0.jpg", "id": f"one {place}", "text": text} for place, text in enumerate(HARD)]
    rows.append({"image": "0.jpg", "id": "all", "text": HARD})
    path = put(rows, photos=["0.jpg"])
    plan = convert(path, tmp_path / "out", to)
    assert facts(load(tmp_path / "out", to)) == facts(load(path))
    assert verify_conversion(plan).differences == ()


def test_kohya_says_that_line_breaks_must_go(put, tmp_path):
    path = put([{"image": "0.jpg", "text": text} for text in HARD[:3]], photos=["0.jpg"])
    plan = plan_conversion(load(path), tmp_path / "out", to="kohya")
    assert kinds(plan)["captions_changed"] == 3
    with pytest.raises(ConfigError, match=r"3 captions have line breaks.*--lossy"):
        run_conversion(plan)
    assert not (tmp_path / "out").exists()
    run_conversion(plan, lossy=True)
    assert load(tmp_path / "out", "kohya")[0].captions == ("line break", "crlf here", "ends with a break ")
    assert verify_conversion(plan).differences == ()


def test_kohya_says_what_its_scripts_do_not_do(put, tmp_path):
    rows = [{"image": "0.jpg", "text": "a", "weight": 2.5}, {"image": "1.gif", "text": "b"}]
    plan = plan_conversion(load(put(rows, photos=["0.jpg", "1.gif"])), tmp_path / "out", to="kohya")
    assert kinds(plan) == {"rounded_repeats": 1, "unread_by_kohya": 1}
    run_conversion(plan)
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["1_set", "2_set", "metadata.jsonl"]
    assert load(tmp_path / "out", "kohya").weights().tolist() == [2.5, 1.0]


def test_a_caption_edited_in_kohyas_file_is_the_caption(source, tmp_path):
    convert(source, tmp_path / "out", "kohya")
    (tmp_path / "out" / "3_my photos" / "a.txt").write_text("edited by hand")
    assert load(tmp_path / "out", "kohya")[1].captions == ("edited by hand",)


def test_kohyas_project_root_goes_round(skimage_data, tmp_path):
    for name in ("img/10_ohwx dog/a.png", "img/2_cat/b.png", "reg/1_dog/c.png"):
        (tmp_path / "project" / name).parent.mkdir(parents=True)
        shutil.copy(skimage_data / "color.png", tmp_path / "project" / name)
        (tmp_path / "project" / name).with_suffix(".txt").write_text(f"caption of {name}")
    convert(tmp_path / "project", tmp_path / "out", "kohya")
    result = load(tmp_path / "out", "kohya")
    assert [(row.image.path.removeprefix(f"{tmp_path}/out/"), row.weight) for row in result] == [
        ("10_ohwx dog/a.png", 10),
        ("2_cat/b.png", 2),
    ]
    assert facts(result) == facts(load(tmp_path / "project"))


@pytest.mark.parametrize("to", ["imagefolder", "jsonl", "csv", "parquet", "kohya"])
def test_links_take_no_space(source, tmp_path, monkeypatch, to):
    plan = convert(source, tmp_path / "hard", to, images="link")
    for row in load(tmp_path / "hard", to):
        assert os.stat(row.image.path).st_nlink > 1
    assert facts(load(tmp_path / "hard", to)) == facts(load(source))
    assert verify_conversion(plan).differences == ()

    def other_disk(*args):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(table_form.os, "link", other_disk)
    (tmp_path / "deep").mkdir()
    convert(source, tmp_path / "deep" / "soft", to, images="link")
    result = load(tmp_path / "deep" / "soft", to)
    assert all(os.path.islink(row.image.path) and not os.readlink(row.image.path).startswith("/") for row in result)
    assert facts(result) == facts(load(source))


def test_what_lies_in_an_archive_is_copied_instead_of_linked(converted, source, tmp_path):
    plan = convert(converted["webdataset"], tmp_path / "out", "imagefolder", came_as="webdataset", images="link")
    assert kinds(plan)["copied"] == 5
    assert facts(load(tmp_path / "out")) == facts(load(source))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_one_data_file_that_refers(source, tmp_path, name):
    to = name.rpartition(".")[2]
    convert(source, tmp_path / "deep" / name, to, images="refer")
    assert [entry.name for entry in tmp_path.rglob("*")] == ["deep", name]
    result = load(tmp_path / "deep" / name, to)
    assert facts(result) == facts(load(source))
    if name != "rows.parquet":
        assert str(source) not in (tmp_path / "deep" / name).read_text()
    if name == "rows.parquet":
        convert(source, tmp_path / "embedded.parquet", to, shard_size=1)
        assert facts(load(tmp_path / "embedded.parquet")) == facts(load(source))
        assert (tmp_path / "embedded.parquet").is_file()
    with pytest.raises(ConfigError, match="found the file"):
        plan_conversion(load(source), tmp_path / f"new{name}", to=to, images="copy")


@pytest.mark.parametrize("to", ["jsonl", "parquet", "hf"])
@pytest.mark.parametrize("came_as", ["webdataset", "lmdb"])
def test_references_into_archives(converted, source, tmp_path, came_as, to):
    archives = shutil.copytree(converted[came_as], tmp_path / "archives.lmdb")  # LMDB opens no environment twice
    convert(archives, tmp_path / "out", to, came_as=came_as, images="refer")
    assert facts(load(tmp_path / "out", to)) == facts(load(source))


def test_what_cannot_be_referred_to(converted, source, tmp_path):
    manifest = load(converted["parquet"])
    with pytest.raises(ConfigError, match=r"can't refer to .*choose 'copy' or 'embed'"):
        plan_conversion(manifest, tmp_path / "out", to="csv", images="refer")
    assert plan_conversion(manifest, tmp_path / "out", to="csv").target.images == "copy"
    with pytest.raises(ConfigError, match="webdataset can't link images; expected embed"):
        plan_conversion(manifest, tmp_path / "out", to="webdataset", images="link")
    with pytest.raises(ConfigError, match="to: found 'zip'"):
        plan_conversion(manifest, tmp_path / "out", to="zip")


def test_odd_file_names_are_referred_to(put, tmp_path):
    photos = ["a#1.jpg", " lead.jpg", "per%20cent.jpg", "back\\slash.jpg"]
    path = put([{"image": "0.jpg", "text": "a"}], photos=["0.jpg"])
    for name in photos:
        (path.parent / name).write_bytes((path.parent / "0.jpg").read_bytes())
    path.unlink()
    manifest = load(path.parent)
    run_conversion(plan_conversion(manifest, tmp_path / "rows.jsonl", to="jsonl", images="refer"))
    assert facts(load(tmp_path / "rows.jsonl")) == facts(manifest)
    convert(path.parent, tmp_path / "copied", "imagefolder")
    assert facts(load(tmp_path / "copied")) == facts(manifest)


def test_a_name_that_looks_like_a_place_in_an_archive(put, tmp_path):
    path = put([], photos=["b.tar!c.jpg"])
    path.unlink()
    manifest = load(path.parent)
    assert plan_conversion(manifest, tmp_path / "out", to="jsonl").target.images == "copy"
    convert(path.parent, tmp_path / "copied", "imagefolder")
    assert facts(load(tmp_path / "copied")) == facts(manifest)


LONG = "ünïcode " * 40


def test_names_never_clash():
    names = Names()
    given = ["a.jpg", "A.JPG", "a.png", unicodedata.normalize("NFD", "é.jpg"), "é.jpg", "a-2.jpg", "a", "a.webp"]
    taken = [names.take(name) for name in given]
    assert taken[0] == "a.jpg" and taken[1] == "A-2.JPG" and taken[2] == "a.png"
    assert len({unicodedata.normalize("NFC", name).casefold() for name in taken}) == len(given)
    assert taken[6:] == ["a-3", "a.webp"] or taken[6] not in {"a", "a-2"}
    stems = Names(by_stem=True)
    many = Names()
    assert [many.take("x/image.jpg") for _ in range(20_000)][-1] == "x/image-20000.jpg"
    assert [stems.take(name) for name in ("a.jpg", "a.png", "b/a.png")] == ["a.jpg", "a-2.png", "b/a.png"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cats/a.jpg", "cats/a.jpg"),
        ("../../etc/a.jpg", "etc/a.jpg"),
        (".hidden/a.jpg", "_.hidden/a.jpg"),
        ("__MACOSX/a.jpg", "___MACOSX/a.jpg"),
        ("10_sks dog/a.jpg", "sks dog/a.jpg"),
        ("2024_holiday/a.jpg", "2024_holiday/a.jpg"),
        ("a:b?c\n.jpg", "a_b_c_.jpg"),
        (" / a .jpg", "_/a.jpg"),
        ("b.tar!c.jpg", "b.tar_c.jpg"),
        ("", "picture"),
    ],
)
def test_names_that_readers_take(name, expected):
    assert tidy(name) == expected


def test_long_names_are_cut_and_stay_apart():
    one, two = tidy(LONG + "1.jpg"), tidy(LONG + "2.jpg")
    assert one != two and len(one.encode()) < 200 and one.endswith(".jpg")
    deep = tidy("/".join([LONG] * 10) + "/a.jpg")
    assert deep == "a.jpg"


@pytest.mark.parametrize("to", FORMS)
def test_names_without_a_suffix_get_their_images(converted, source, tmp_path, to):
    table = pq.read_table(converted["parquet"])
    bare = table.set_column(0, "image", pa.array([value["bytes"] for value in table["image"].to_pylist()]))
    pq.write_table(bare, tmp_path / "bare.parquet")
    images = "copy" if "copy" in FORMS[to].images else "embed"
    plan = convert(tmp_path / "bare.parquet", tmp_path / "out", to, images=images)
    assert facts(load(tmp_path / "out", to)) == facts(load(source))
    assert verify_conversion(plan).differences == ()
    if to == "imagefolder":
        bare = tmp_path / "bare"
        bare.mkdir()
        (bare / "photo").write_bytes(ImageReader().read_bytes(load(source).refs()[0]))
        (bare / "rows.csv").write_text("image,text\nphoto,a\n")
        convert(bare / "rows.csv", tmp_path / "linked", to, images="link")
        assert load(tmp_path / "linked").refs()[0].name == "photo.png"
        names = sorted(entry.name for entry in (tmp_path / "out").iterdir())
        assert names == ["000000.png", "000001.jpg", "000002.jpg", "000003.jpg", "000004.webp", "metadata.jsonl"]


@pytest.mark.parametrize("to", FORMS)
def test_a_flipped_byte_is_found(source, tmp_path, to):
    plan = convert(source, tmp_path / "out", to, images="copy" if to in ("jsonl", "csv") else None)
    middle = ImageReader().read_bytes(plan.manifest[0].image)[2000:2100]
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file() and (at := file.read_bytes().find(middle)) >= 0:
            with file.open("r+b") as opened:
                opened.seek(at + 50)
                opened.write(bytes([middle[50] ^ 1]))
    (found,) = verify_conversion(plan).differences
    assert (found.id, found.what) == ("№0", "picture")


def test_verify_finds_other_captions_rows_and_columns(source, tmp_path):
    plan = convert(source, tmp_path / "out", "imagefolder")
    metadata = tmp_path / "out" / "metadata.jsonl"
    lines = [json.loads(line) for line in metadata.read_text().splitlines()]
    lines[0] |= {"text": ["changed"], "weight": 7, "artist": "another", "width": 1}
    lines[1]["id"] = "renamed"
    metadata.write_text("".join(json.dumps(line) + "\n" for line in [lines[0], lines[2], lines[1], *lines[3:]]))
    found = {(each.id, each.what) for each in verify_conversion(plan).differences}
    assert found == {
        ("№0", "captions"), ("№0", "weight"), ("№0", "artist"), ("№0", "size"), ("№1", "missing"), ("renamed", "more"),
    }  # fmt: skip
    with pytest.raises(MissingPathError):
        verify_conversion(plan_conversion(load(source), tmp_path / "nowhere", to="imagefolder"))


@pytest.mark.parametrize("to", FORMS)
def test_columns_that_would_mean_something_else(put, tmp_path, to):
    row = {"photo": "0.jpg", "words": "a", "caption": "not it", "id": "no id", "url": "none", "width": "wide"}
    path = put([row], photos=["0.jpg"])
    columns = {"image": "photo", "caption": "words", "id": None, "width": None, "rejected": None}
    manifest = load(path, columns=columns)
    plan = plan_conversion(manifest, tmp_path / "out", to=to)
    run_conversion(plan)
    assert kinds(plan)["renamed_columns"] >= 2
    result = load(tmp_path / "out", to)
    assert facts(result) == facts(manifest)
    renamed = plan.target.columns.extras
    assert {old: result[0].extra[new] for old, new in renamed.items()} == dict(manifest[0].extra)
    assert verify_conversion(plan).differences == ()


@pytest.mark.parametrize("to", ["jsonl", "csv", "parquet", "hf", "webdataset"])
def test_typed_columns(put, tmp_path, to):
    import datetime
    import decimal

    put([], photos=["0.jpg"])
    table = pa.table(
        {
            "image": ["0.jpg"],
            "text": ["a"],
            "day": pa.array([datetime.date(2024, 1, 2)]),
            "cost": pa.array([decimal.Decimal("1.50")]),
            "sort": pa.array(["x"]).dictionary_encode(),
            "nothing": pa.nulls(1),
            "small": pa.array([1.5], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "set" / "rows.parquet")
    plan = convert(tmp_path / "set" / "rows.parquet", tmp_path / "out", to)
    assert verify_conversion(plan).differences == ()
    extra = load(tmp_path / "out", to)[0].extra
    if to in ("parquet", "hf"):
        assert "texts_only" not in kinds(plan) and extra == dict(load(tmp_path / "set" / "rows.parquet")[0].extra)
    else:
        assert "texts_only" in kinds(plan) and (extra["day"], extra["cost"]) == ("2024-01-02", "1.50")


def test_a_trigger_is_baked_as_training_would_apply_it(source, tmp_path):
    convert(source, tmp_path / "out", "imagefolder", trigger="sks", template="a photo of {trigger}, {caption}")
    rows = load(tmp_path / "out")
    assert rows[1].captions == ("a photo of sks, ein Haus – 夜, émoji 🐈",)
    assert rows[2].captions == ("a photo of sks",)
    convert(source, tmp_path / "plain", "kohya", trigger="sks")
    assert load(tmp_path / "plain", "kohya")[1].captions == ("sks, ein Haus – 夜, émoji 🐈",)
    assert (tmp_path / "plain" / "3_sks").is_dir()


def test_the_place_of_a_trigger_in_a_caption(put, tmp_path):
    path = put([{"image": "0.jpg", "text": "{trigger} on a beach"}], photos=["0.jpg"])
    plan = plan_conversion(load(path), tmp_path / "as it is", to="kohya")
    assert kinds(plan) == {"placeholders": 1}
    run_conversion(plan)
    assert load(tmp_path / "as it is", "kohya")[0].captions == ("{trigger} on a beach",)
    plan = convert(path, tmp_path / "out", "kohya", trigger="sks")
    assert kinds(plan) == {}
    assert load(tmp_path / "out", "kohya")[0].captions == ("sks on a beach",)


def test_rejected_images_stay_rejected(converted, tmp_path):
    for name in FORMS:
        place = shutil.copytree(converted[name], tmp_path / name, symlinks=True) if name == "lmdb" else converted[name]
        result = load(place, name, columns=None)
        assert len(result) == 4 and result.ledger.counts()["rejected"] == 1, name

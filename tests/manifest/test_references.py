"""Image references: every way of writing one, one by one and as whole columns, and ids that survive a move."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calotype.errors import ManifestError
from calotype.manifest import load_manifest
from calotype.manifest.tables.references import normal_reference, normal_references


def write(put, refs, name="data.jsonl"):
    return put(name, "".join(json.dumps({"image": ref, "text": "x"}) + "\n" for ref in refs))


def only(file, **options):
    (row,) = load_manifest(file, **options)
    return row


@pytest.mark.parametrize(
    ("written", "id"),
    [
        ("a.jpg", "a.jpg"),
        ("./cats//a.jpg", "cats/a.jpg"),
        ("cats/../a.jpg", "a.jpg"),
        ("../beside/a.jpg", "../beside/a.jpg"),
        ("cats\\dogs\\a.jpg", "cats/dogs/a.jpg"),
        (" a.jpg ", "a.jpg"),
        ("a#b%20c?.jpg", "a#b%20c?.jpg"),
        ("wow!.jpg", "wow!.jpg"),
        ("/else/where/a.jpg", "/else/where/a.jpg"),
        ("file:///else/a%20b.jpg", "/else/a b.jpg"),
        ("FILE:///else/a.jpg", "/else/a.jpg"),
        ("{root}/cats/a.jpg", "cats/a.jpg"),
        ("{root}//cats/./a.jpg", "cats/a.jpg"),
        ("file://{root}/cats/a%C3%A9.jpg", "cats/aé.jpg"),
    ],
)
def test_local_references(put, written, id):
    row = only(write(put, [written.replace("{root}", str(put.root))]))
    assert row.id == row.image.name == id
    assert row.image.url is None
    assert os.path.normpath(row.image.path) == os.path.normpath(put.root / id)


@pytest.mark.parametrize(
    "url",
    ["http://h/a.jpg", "HTTPS://h/a//b.jpg?q= x#f", "s3://bucket/k.jpg", "gs://b/k", "hf://datasets/o/n/a.jpg",
     "ftp://h/a.jpg", "ftps://h/a.jpg", "https://h/../a\\b.jpg"],
)  # fmt: skip
def test_remote_references_pass_through_as_written(put, url):
    row = only(write(put, [url]))
    assert (row.id, row.image.url, row.image.name, row.image.path) == (url, url, url, None)


def test_a_file_whose_name_has_a_backslash_is_that_file(put):
    put("odd\\name.jpg")
    assert only(write(put, ["odd\\name.jpg"])).id == "odd\\name.jpg"


def test_an_absolute_reference_through_a_link_is_relative_too(put, tmp_path):
    put("a.jpg")
    os.symlink(put.root, tmp_path / "link")
    assert only(write(put, [f"{tmp_path}/link/a.jpg"])).id == "a.jpg"
    write(put, [f"{put.root}/a.jpg"])
    assert only(tmp_path / "link" / "data.jsonl").id == "a.jpg"


@pytest.mark.parametrize("base", ["", "tables"])
def test_a_column_at_once_agrees_with_one_by_one(put, base):
    root = put.root
    folder = root / base
    texts = [
        "a.jpg", "x/y.jpg", "./b.jpg", "../c.jpg", "x/../d.jpg", "x//e.jpg", "x\\f.jpg", "/abs/g.jpg", f"{root}/h.jpg",
        f"{root}//i.jpg", f"{root}/x/../j.jpg", f"file://{root}/k.jpg", " l.jpg", "m.jpg\n", "..n.jpg", "x/..o.jpg",
        ".p", f"{root}er/q.jpg", f"{root}/", "x/..", "é/ü.jpg",
    ]  # fmt: skip
    column, empty, _, _ = normal_references(pa.chunked_array([texts[:7], texts[7:]]), folder, root)
    assert column.to_pylist() == [normal_reference(text, folder, root) for text in texts]
    assert not empty.any()
    _, empty, _, _ = normal_references(pa.array(["", None, " ", "a"]), folder, root)
    assert empty.tolist() == [True, True, True, False]


def test_the_root_option_and_its_other_name(put, tmp_path):
    file = write(put, ["a.jpg", f"{tmp_path}/pictures/b.jpg"], "tables/data.jsonl")
    (tmp_path / "pictures").mkdir()
    for options in ({"root": tmp_path / "pictures"}, {"image_dir": str(tmp_path / "pictures")}):
        manifest = load_manifest(file, **options)
        assert [row.id for row in manifest] == ["a.jpg", "b.jpg"]
        assert [row.image.path for row in manifest] == [f"{tmp_path}/pictures/a.jpg", f"{tmp_path}/pictures/b.jpg"]
    with pytest.raises(ValueError, match="there is no folder"):
        load_manifest(file, root=tmp_path / "gone")


def test_ids_of_bytes_stay_relative_when_the_root_is_elsewhere(put, jpeg, tmp_path):
    pq.write_table(pa.table({"image": [jpeg(1)], "text": ["x"]}), put("tables/a.parquet", ""))
    (tmp_path / "pictures").mkdir()
    assert only(put.root / "tables" / "a.parquet", root=tmp_path / "pictures").id == "a.parquet#0"


def test_moving_the_folder_changes_nothing(put, tmp_path):
    refs = ["a.jpg", "cats/b.jpg", "https://h/c.jpg", f"{put.root}/d.jpg"]
    file = write(put, refs[:3])
    before = load_manifest(file)
    os.rename(put.root, tmp_path / "moved")
    after = load_manifest(tmp_path / "moved" / "data.jsonl")
    assert before.ids.equals(after.ids)
    assert after[1].image.path == f"{tmp_path}/moved/cats/b.jpg"


def test_references_of_several_data_files_are_relative_to_each(put):
    one, two = write(put, ["a.jpg"], "one/data.jsonl"), write(put, ["a.jpg", "../one/a.jpg"], "two/data.jsonl")
    manifest = load_manifest([one, two])
    assert [(row.id, len(row.captions)) for row in manifest] == [("one/a.jpg", 2), ("two/a.jpg", 1)]


def test_references_into_archives_need_the_member(put, jpeg, read):
    import io
    import tarfile

    with tarfile.open(put("shards/s.tar", ""), "w") as tar:
        info = tarfile.TarInfo("deep/a.jpg")
        info.size = len(jpeg(1))
        tar.addfile(info, io.BytesIO(jpeg(1)))
    file = write(put, ["shards/s.tar!deep/a.jpg", "plain.jpg"])
    manifest = load_manifest(file)
    assert [(row.id, row.image.name) for row in manifest] == [
        ("shards/s.tar!deep/a.jpg", "shards/s.tar!deep/a.jpg"),
        ("plain.jpg", "plain.jpg"),
    ]
    assert read(manifest[0].image) == jpeg(1)
    assert manifest[1].image.path == str(put.root / "plain.jpg") and manifest[1].image.size is None
    for wrong, message in (("shards/s.tar!b.jpg", "no image 'b.jpg'"), ("t.tar!a.jpg", "there is no such archive")):
        with pytest.raises(ManifestError, match=rf"data\.jsonl:2: .*{message}"):
            load_manifest(write(put, ["plain.jpg", wrong]))


# ------------------------------------------------------------------------------------- what programs put around them


@pytest.mark.parametrize("blank", [" ", "\t", "\u00a0", "\ufeff", "\u200b", "\u2060", "\u3000", " \n"])
@pytest.mark.parametrize("text", ["https://h.example/a.jpg?x=1", "photos/a.jpg", "/far/away/a.jpg"])
def test_blanks_of_all_kinds_around_a_reference_are_not_part_of_it(put, blank, text):
    for written in (blank + text, text + blank, blank + text + blank):
        assert only(write(put, [written])).id == text


@pytest.mark.parametrize(
    ("written", "id"),
    [
        ('"https://h.example/a.jpg"', "https://h.example/a.jpg"),
        ("<https://h.example/a.jpg>", "https://h.example/a.jpg"),
        (" 'a.jpg' ", "a.jpg"),
        ("“photos/a.jpg”", "photos/a.jpg"),
        ("//h.example/a.jpg", "https://h.example/a.jpg"),
        ("https:/h.example/a.jpg", "https://h.example/a.jpg"),
        ("file://localhost/far/a.jpg", "/far/a.jpg"),
        ("file:///C:/far/a.jpg", "C:/far/a.jpg"),
        ("C:\\far\\a.jpg", "C:/far/a.jpg"),
        ("file:/far/a%20b.jpg", "/far/a b.jpg"),
    ],
)
def test_quotes_brackets_and_half_written_urls(put, written, id):
    row = only(write(put, [written]))
    assert row.id == id
    assert (row.image.url == id) == id.startswith("https:")


def test_a_file_that_has_a_percent_sign_in_its_name_is_that_file(put):
    put("a%20b.jpg"), put("c d.jpg")
    assert [row.id for row in load_manifest(write(put, ["a%20b.jpg", "c%20d.jpg"]))] == ["a%20b.jpg", "c d.jpg"]


# ------------------------------------------------------------------------------------------ found though not as written


def found(put, refs, **options):
    manifest = load_manifest(write(put, refs), **options)
    return [row.id for row in manifest], manifest.describe()["notes"]


@pytest.mark.parametrize(
    ("there", "written", "id"),
    [
        ("0.jpg", "0", "0.jpg"),
        ("img/v1.5.png", "img/v1.5", "img/v1.5.png"),
        ("A.JPG", "a.jpg", "A.JPG"),
        ("Photos/A.jpg", "photos/a.jpg", "Photos/A.jpg"),
        ("e\u0301.jpg", "\u00e9.jpg", "e\u0301.jpg"),
        ("\u00e9.jpg", "e\u0301", "\u00e9.jpg"),
        ("a b.jpg", "a%20b.jpg", "a b.jpg"),
        ("a.jpg", "/home/me/data/a.jpg", "a.jpg"),
        ("cats/a.jpg", "/home/me/data/cats/a.jpg", "cats/a.jpg"),
        ("cats/a.jpg", "C:\\Users\\me\\cats\\a.jpg", "cats/a.jpg"),
        ("cats/a.jpg", "data/cats/a.jpg", "cats/a.jpg"),
        ("images/a.jpg", "a.jpg", "images/a.jpg"),
        ("images/train/a.jpg", "a", "images/train/a.jpg"),
    ],
)
def test_the_one_image_that_a_reference_can_mean_is_read(put, there, written, id):
    put(there)
    ids, (note,) = found(put, [written])
    assert ids == [id]
    assert note.startswith("data.jsonl: 1 reference leads to no file as it is written")
    assert found(put, [there]) == ([id], [])


def test_a_file_without_a_suffix_is_itself(put):
    put("0"), put("0.jpg")
    assert found(put, ["0"]) == (["0"], [])


def test_two_images_that_a_reference_can_mean_are_an_error(put):
    put("0.jpg"), put("0.png"), put("x/b.jpg"), put("y/b.jpg")
    with pytest.raises(ManifestError, match=r"data\.jsonl:1: '0' can mean '0\.jpg' or '0\.png'; write out which"):
        found(put, ["0"])
    with pytest.raises(ManifestError, match=r"data\.jsonl:1: 'b\.jpg' can mean 'x/b\.jpg' or 'y/b\.jpg'"):
        found(put, ["b.jpg"])


@pytest.mark.parametrize(
    "refs", [["/gone/cats/0.jpg", "/gone/dogs/0.jpg"], ["0.jpg", "/gone/0.jpg"], ["cats/0.jpg", "dogs/0.jpg"]]
)
def test_two_references_never_become_one_image(put, refs):
    put("0.jpg")
    ids, _ = found(put, refs)
    assert len(set(ids)) == 2 and refs[1] in ids


def test_what_is_here_and_lacks_the_image_is_not_another_folder(put):
    put("0.jpg"), put("cats/1.jpg")
    assert found(put, ["cats/0.jpg"]) == (["cats/0.jpg"], [])


def test_a_path_of_another_machine_that_does_not_exist_is_reported(put):
    ids, (note,) = found(put, ["/gone/cats/0.jpg"])
    assert ids == ["/gone/cats/0.jpg"]
    assert "'/gone/cats/0.jpg' is a path of another machine" in note and "root= sets the folder" in note


def test_the_root_option_finds_images_of_another_machines_paths(put, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        put(f"../elsewhere/cats/{name}")
    ids, _ = found(put, ["/gone/cats/a.jpg", "/gone/cats/b.jpg"], root=tmp_path / "elsewhere")
    assert ids == ["cats/a.jpg", "cats/b.jpg"]


def test_numbers_name_images(put):
    file = put("meta.parquet", "")
    pq.write_table(pa.table({"id": [7, 1000], "cogvlm_caption": ["x", "y"]}), file)
    columns = {"image": "id", "caption": "cogvlm_caption"}
    with pytest.raises(ManifestError, match=r"'id' holds int64, and .* has no image named 7;"):
        load_manifest(file, columns=columns)
    put("photos/7.jpg"), put("photos/1000.png")
    for options in ({}, {"root": put.root / "photos"}):
        ids = load_manifest(file, columns=columns, **options).ids.to_pylist()
        assert [os.path.basename(id) for id in ids] == ["7.jpg", "1000.png"]


def test_coco_lies_beside_its_images(put):
    put("train2017/0.jpg"), put("val2017/1.jpg")
    whole = {"images": [{"id": 1, "file_name": "0.jpg"}], "annotations": [{"image_id": 1, "caption": "x"}]}
    row = only(put("annotations/captions_train2017.json", json.dumps(whole)))
    assert os.path.samefile(row.image.path, put.root / "train2017" / "0.jpg")


def test_metadata_in_a_folder_names_images_in_another_form(put):
    put("A.JPG"), put("B.JPG")
    put("metadata.csv", "file_name;text\na.jpg;x\nb.jpg;y\n")
    assert {row.id: row.captions for row in load_manifest(put.root)} == {"A.JPG": ("x",), "B.JPG": ("y",)}

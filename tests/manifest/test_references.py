"""Image references: every way of writing one, one by one and as whole columns, and ids that survive a move."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calotype.errors import ManifestError
from calotype.manifest import load_manifest
from calotype.manifest.references import normal_reference, normal_references


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
    column, empty = normal_references(pa.chunked_array([texts[:7], texts[7:]]), folder, root)
    assert column.to_pylist() == [normal_reference(text, folder, root) for text in texts]
    assert not empty.any()
    _, empty = normal_references(pa.array(["", None, " ", "a"]), folder, root)
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
    for wrong, message in (("shards/s.tar!b.jpg", "no picture 'b.jpg'"), ("t.tar!a.jpg", "there is no such archive")):
        with pytest.raises(ManifestError, match=rf"data\.jsonl:2: .*{message}"):
            load_manifest(write(put, ["plain.jpg", wrong]))

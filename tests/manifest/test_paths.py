"""What a path leads to: links, braces, slips, archives, and names that are none."""

import os
import tarfile

import pytest

from calotype.errors import ConfigError, ManifestError, MissingPathError
from calotype.manifest import load_manifest
from calotype.manifest.folders.listing import list_folder
from calotype.manifest.paths import expand_braces


def left_out(manifest, root):
    return {(entry.kind, entry.id.removeprefix(f"{root}/")) for entry in manifest.ledger}


# ------------------------------------------------------------------------------------------------------------- links


def test_two_links_to_one_folder_are_both_read(put, tmp_path):
    put("store/y.jpg")
    os.symlink("store", put.root / "5_sks dog")
    os.symlink("5_sks dog", put.root / "2_sks cat")
    manifest = load_manifest(put.root, missing_captions="empty")
    assert [(row.id, row.weight) for row in manifest] == [
        ("2_sks cat/y.jpg", 2),
        ("5_sks dog/y.jpg", 5),
        ("store/y.jpg", 1),
    ]
    os.symlink(put.root, tmp_path / "linked")
    assert len(load_manifest([tmp_path / "linked", put.root], missing_captions="empty")) == 6


def test_loops_and_links_to_nothing_are_named(put):
    put("sub/a.jpg"), put("sub/a.txt", "x")
    os.symlink(put.root, put.root / "sub" / "loop")
    os.symlink(put.root / "gone", put.root / "photos")  # a folder, before its disk was unmounted
    os.symlink("itself", put.root / "itself")
    manifest = load_manifest(put.root)
    assert manifest.ids.to_pylist() == ["sub/a.jpg"]
    assert left_out(manifest, put.root) == {
        ("link_loop", "sub/loop/"),
        ("broken_link", "photos"),
        ("broken_link", "itself"),
    }


def test_links_among_folders_end(put):
    for one in range(6):
        put(f"{one}/a.jpg")
        for other in range(6):
            os.symlink(put.root / str(other), put.root / str(one) / f"to {other}")
    manifest = load_manifest(put.root, missing_captions="empty")
    assert 6 <= len(manifest) <= 600
    assert "link_loop" in manifest.ledger.counts()


def test_a_folder_that_vanishes_or_may_not_be_read_is_named(put, monkeypatch):
    put("a.jpg"), put("a.txt", "x"), put("b/c.jpg"), put("d/e.jpg")
    scandir = os.scandir

    def scan(place):
        if place.endswith("/b/"):
            raise PermissionError(13, "Permission denied", place)
        if place.endswith("/d/"):
            raise FileNotFoundError(2, "No such file or directory", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(ManifestError, match=r"/b: the folder can't be read: Permission denied"):
        load_manifest(put.root)
    manifest = load_manifest(put.root, on_error="skip")
    assert left_out(manifest, put.root) == {("bad_row", "b"), ("bad_row", "d")}
    assert load_manifest(put.root, exclude=["b", "d"]).ids.to_pylist() == ["a.jpg"]


# ------------------------------------------------------------------------------------------------------------ braces


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("s-{0..2}.tar", ["s-0.tar", "s-1.tar", "s-2.tar"]),
        ("{098..101}", ["098", "099", "100", "101"]),
        ("{3..1}{a,b}", ["3a", "3b", "2a", "2b", "1a", "1b"]),
        ("{0..10..5}", ["0", "5", "10"]),
        ("x{a,b{1..2}}", ["xa", "xb1", "xb2"]),
        ("{a}.tar", ["{a}.tar"]),
        ("{train,val}/*.tar", ["train/*.tar", "val/*.tar"]),
    ],
)
def test_braces_are_expanded(name, names):
    assert sorted(expand_braces(name)) == sorted(names)


def test_braces_without_end_are_an_error():
    for name in ("{0..99999999999}", "{0..9999}{0..9999}"):
        with pytest.raises(ManifestError, match="more than 100,000 files"):
            expand_braces(name)


def test_shards_by_braces_alone_and_in_a_list(put, tmp_path):
    for number in range(3):
        put(f"{number}.jpg"), put(f"{number}.txt", "x")
        with tarfile.open(tmp_path / f"s-{number:03}.tar", "w") as tar:
            for name in (f"{number}.jpg", f"{number}.txt"):
                tar.add(put.root / name, name)
    ids = [f"s-00{number}.tar!{number}.jpg" for number in range(3)]
    assert load_manifest(str(tmp_path / "s-{000..002}.tar")).ids.to_pylist() == ids
    assert load_manifest([str(tmp_path / "s-{000,002}.tar"), tmp_path / "s-001.tar"]).ids.to_pylist() == [
        ids[0],
        ids[2],
        ids[1],
    ]
    with pytest.raises(MissingPathError, match=r"2 of the 4 files that it expands to are not there: .*s-003\.tar, "):
        load_manifest(str(tmp_path / "s-{001..004}.tar"))
    (tmp_path / "s-000.tar").rename(tmp_path / "{0..2}.tar")
    assert load_manifest(str(tmp_path / "{0..2}.tar")).ids.to_pylist() == ["{0..2}.tar!0.jpg"]


# ------------------------------------------------------------------------------------------------------------- slips


def test_a_slip_in_a_folders_name_is_no_dataset_of_the_hub(put, monkeypatch):
    put("photos/cats/a.jpg"), put("rows.jsonl", "{}")
    monkeypatch.chdir(put.root)
    for slip, meant in {"phots": "photos", "photo/cats": "photos/cats", "photos/cat": "photos/cats"}.items():
        with pytest.raises(MissingPathError, match=f"did you mean '.*{meant}'"):
            load_manifest(slip)
    with pytest.raises(MissingPathError, match=r"did you mean 'rows.jsonl'"):
        load_manifest("rows.jsnl")


@pytest.mark.parametrize(("name", "said"), [("a" * 300, "too long"), ("d/" * 3000, "too long"), ("a\0b", "null byte")])
def test_a_path_that_is_none_is_one_short_line(name, said, tmp_path):
    for path in (name, str(tmp_path / name), [tmp_path / name]):
        with pytest.raises(ManifestError, match=said) as caught:
            load_manifest(path)
        assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_what_is_no_path_is_an_error():
    with pytest.raises(ConfigError, match="path: found 3"):
        load_manifest([3])


def test_the_longest_names_have_no_caption_files(put):
    name = "n" * 250 + ".jpg"
    put(name)
    assert load_manifest(put.root / name, missing_captions="empty").ids.to_pylist() == [name]


# ---------------------------------------------------------------------------------------------------------- archives


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("s-000.tar.gz", "gunzip "),
        ("s.tgz", "gunzip "),
        ("s.tar.zst", "unzstd "),
        ("a b.zip", "unzip '"),
        ("rows.jsonl.gz", "gunzip "),
        ("all.7z", "7z x "),
        ("B.RAR", "unrar x "),
    ],
)
def test_packed_files_are_named_with_the_command_to_use(put, name, command):
    put(name, "packed")
    with pytest.raises(
        ManifestError, match=rf"no row is left: .*{name}: packed files are not read; unpack it: {command}"
    ):
        load_manifest(put.root)
    put("a.jpg"), put("a.txt", "x")
    assert left_out(load_manifest(put.root), put.root) == {("archive", name)}


def test_names_that_are_no_text_are_named(put):
    put("a.jpg"), put("a.txt", "x")
    for name in (b"caf\xe9.zip", b"caf\xe9.xyz"):
        with open(os.fsencode(put.root) + b"/" + name, "wb"):
            pass
    assert left_out(load_manifest(put.root), put.root) == {("archive", "caf\\xe9.zip")}
    assert list_folder(put.root, True, lambda where, reason: None).others == [os.fsdecode(b"caf\xe9.xyz")]


def test_data_files_beside_the_shards_that_are_read_are_named(put):
    put("a.jpg"), put("a.txt", "x")
    with tarfile.open(put.root / "00000.tar", "w") as tar:
        tar.add(put.root / "a.jpg", "a.jpg"), tar.add(put.root / "a.txt", "a.txt")
    (put.root / "a.jpg").unlink(), (put.root / "a.txt").unlink()
    (
        put("00000_stats.json", "{}"),
        put("00000.parquet", ""),
        put("better captions.csv", "image,caption"),
        put("b.tgz", ""),
    )
    assert left_out(load_manifest(put.root), put.root) == {("unread_data", "better captions.csv"), ("archive", "b.tgz")}

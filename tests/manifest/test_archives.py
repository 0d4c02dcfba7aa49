"""WebDataset tar shards and LMDB environments."""

import gzip
import io
import json
import tarfile

import lmdb
import pytest
import webdataset

from calotype.errors import ManifestError, MissingDependencyError
from calotype.manifest import load_manifest


def write_tar(path, members, format=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def rows(manifest):
    return [(row.id, row.captions) for row in manifest]


def test_webdataset_shards(put, read, jpeg):
    """Shards that webdataset itself wrote."""
    put("x", "")
    with webdataset.ShardWriter(f"{put.root}/train-%03d.tar", maxcount=2, verbose=0) as sink:
        for number in range(3):
            sink.write({"__key__": f"s{number:03d}", "jpg": jpeg(number), "txt": f"caption {number}"})
    manifest = load_manifest(f"{put.root}/train-*.tar")
    assert rows(manifest) == [
        ("train-000.tar!s000.jpg", ("caption 0",)),
        ("train-000.tar!s001.jpg", ("caption 1",)),
        ("train-001.tar!s002.jpg", ("caption 2",)),
    ]
    assert [read(row.image) for row in manifest] == [jpeg(0), jpeg(1), jpeg(2)]
    assert rows(load_manifest(put.root)) == rows(manifest)
    assert manifest.describe()["format"] == "tar"


def test_a_text_that_is_the_first_caption_of_the_json(put, jpeg):
    several = json.dumps({"text": ["one\n", "two"], "artist": "x"}).encode()
    members = [("a.jpg", jpeg(1)), ("a.txt", b"one\n"), ("a.json", several)]
    (row,) = load_manifest(write_tar(put("s.tar", ""), members))
    assert row.captions == ("one\n", "two") and row.extra == {"artist": "x"}
    members[1] = ("a.txt", b"edited")
    (row,) = load_manifest(write_tar(put("s.tar", ""), members))
    assert row.captions == ("edited",) and row.extra == {"text": ["one\n", "two"], "artist": "x"}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_json_beside_images(put, read, jpeg, format):
    meta = {"caption": "from json", "width": 64, "height": 48, "url": "http://h/x", "nested": {"a": [1]}}
    long = "a-folder/" + "x" * 80
    members = [
        ("./1.jpg", jpeg(1)), ("./1.json", json.dumps(meta).encode()),
        ("./2.PNG", jpeg(2, "PNG")), ("./2.json", json.dumps(meta).encode()), ("./2.txt", b"from text\n"),
        (f"{long}.webp", jpeg(3, "WEBP")), (f"{long}.txt", "déjà".encode()), (f"{long}.cls", b"7"),
    ]  # fmt: skip
    manifest = load_manifest(write_tar(put("s.tar", ""), members, format))
    assert rows(manifest) == [
        ("s.tar!1.jpg", ("from json",)),
        ("s.tar!2.PNG", ("from text",)),
        (f"s.tar!{long}.webp", ("déjà",)),
    ]
    assert [read(row.image) for row in manifest] == [jpeg(1), jpeg(2, "PNG"), jpeg(3, "WEBP")]
    assert (manifest[0].width, manifest[0].height, manifest[2].width) == (64, 48, None)
    assert manifest[0].extra["nested"] == {"a": [1]} and manifest[0].extra["url"] == "http://h/x"


def test_two_images_of_one_key_and_things_that_are_none(put, jpeg):
    members = [
        ("a.jpg", jpeg(1)), ("a.png", jpeg(2, "PNG")), ("a.txt", b"both"), ("._a.jpg", b"x"), (".hidden.jpg", b"x"),
        ("a.seg.png", jpeg(2, "PNG")), ("__MACOSX/a.jpg", b"x"), ("lonely.txt", b"x"),
    ]  # fmt: skip
    manifest = load_manifest(write_tar(put("s.tar", ""), members))
    assert rows(manifest) == [("s.tar!a.jpg", ("both",))]
    assert [(entry.kind, entry.id) for entry in manifest.ledger] == [
        ("no_picture", "s.tar!lonely.txt"),
        ("companion", "s.tar!a.png"),
        ("companion", "s.tar!a.seg.png"),
    ]


def test_links_in_an_archive_lead_nowhere(put, jpeg):
    with tarfile.open(put("s.tar", ""), "w") as tar:
        for name, kind in (("evil.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("/etc/../../up.jpg")
        info.size = len(jpeg(1))
        tar.addfile(info, io.BytesIO(jpeg(1)))
    manifest = load_manifest(put.root / "s.tar", missing_captions="empty")
    assert [(row.id, row.image.path) for row in manifest] == [("s.tar!/up.jpg", str(put.root / "s.tar"))]


def test_damaged_archives_are_errors_and_not_short(put, jpeg):
    members = [(f"{number}.jpg", jpeg(number)) for number in range(4)]
    whole = write_tar(put("s.tar", ""), members).read_bytes()
    with tarfile.open(put.root / "s.tar") as tar:
        third = tar.getmembers()[2]
    cases = {
        "cut off in the middle of '2.jpg'": whole[: third.offset_data + 100],
        "cut off at byte .* in the middle of a header": whole[: third.offset + 100],
        "damaged at byte": whole[: third.offset] + b"garbage!" * 64 + whole[third.offset + 512 :],
        "not a tar archive": b"hello" * 300,
        "is compressed": gzip.compress(whole),
    }
    for message, content in cases.items():
        with pytest.raises(ManifestError, match=message):
            load_manifest(put("d.tar", content), missing_captions="empty")


@pytest.mark.parametrize("kept", [1, 2, 4])
def test_a_shard_cut_at_the_end_of_a_member_is_an_error(put, jpeg, kept):
    """Every writer ends with blocks of zeros; the first of them says that nothing is missing."""
    whole = write_tar(put("s.tar", ""), [(f"{number}.jpg", jpeg(number)) for number in range(4)]).read_bytes()
    with tarfile.open(put.root / "s.tar") as tar:
        last = tar.getmembers()[kept - 1]
    end = last.offset_data + (last.size + 511) // 512 * 512
    for cut in (end, end - 100) if kept < 4 else (end, end + 511):
        with pytest.raises(ManifestError, match=r"c\.tar: cut off"):
            load_manifest(put("c.tar", whole[:cut]), missing_captions="empty")
    if kept == 4:
        assert len(load_manifest(put("one.tar", whole[: end + 512]), missing_captions="empty")) == 4


def test_shards_put_one_behind_the_other_are_read_to_their_end(put, jpeg):
    """`cat a.tar b.tar`: other readers stop at the first one's end."""
    halves = [write_tar(put(f"{n}.tar", ""), [(f"{n}.jpg", jpeg(n)), (f"{n}.txt", b"x")]).read_bytes() for n in (1, 2)]
    manifest = load_manifest(put("both.tar", halves[0] + halves[1]))
    assert [row.id for row in manifest] == ["both.tar!1.jpg", "both.tar!2.jpg"]
    with pytest.raises(ManifestError, match="damaged at byte"):
        load_manifest(put("both.tar", halves[0] + b"rubbish!" * 64))


def test_a_checksum_of_signed_bytes_is_one_too(put, jpeg):
    """As some old writers have it."""
    with tarfile.open(put("s.tar", ""), "w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo("Zoë.jpg")
        info.size = len(jpeg(1))
        tar.addfile(info, io.BytesIO(jpeg(1)))
    data = bytearray((put.root / "s.tar").read_bytes())
    unsigned, signed = tarfile.calc_chksums(bytes(data[:512]))
    assert unsigned == signed + 2 * 256
    data[148:156] = b"%06o\0 " % signed
    (row,) = load_manifest(put("old.tar", bytes(data)), missing_captions="empty")
    assert row.id == "old.tar!Zoë.jpg"


def test_an_empty_shard_among_others_is_a_note(put, jpeg):
    write_tar(put("s-0.tar", ""), [])
    with pytest.raises(ManifestError, match=r"no images found: s-0\.tar is empty"):
        load_manifest(put.root)
    with webdataset.ShardWriter(f"{put.root}/s-%d.tar", start_shard=1, verbose=0) as sink:
        sink.write({"__key__": "a", "jpg": jpeg(1), "json": {"text": "a cat", "n": 1}})
    manifest = load_manifest(put.root)
    assert rows(manifest) == [("s-1.tar!a.jpg", ("a cat",))]
    assert manifest.describe()["notes"] == ["s-0.tar is empty"]
    with pytest.raises(ManifestError, match=r"s-2\.tar: the file is empty; copy the archive again"):
        load_manifest([put.root / "s-1.tar", put("s-2.tar", "")])


def test_an_image_twice_in_an_archive(put, jpeg):
    file = write_tar(put("s.tar", ""), [("a.jpg", jpeg(1)), ("a.txt", b"x"), ("a.jpg", jpeg(2))])
    with pytest.raises(ManifestError, match=r"s\.tar!a\.jpg: this image is in the archive twice"):
        load_manifest(file)
    assert rows(load_manifest(file, on_error="skip")) == [("s.tar!a.jpg", ("x",))]


def test_bad_texts_in_an_archive(put, jpeg):
    members = [("a.jpg", jpeg(1)), ("a.txt", b"caf\xe9"), ("b.jpg", jpeg(2)), ("b.json", b"[1"), ("c.jpg", jpeg(3))]
    file = write_tar(put("s.tar", ""), [*members, ("c.txt", b"fine")])
    with pytest.raises(ManifestError, match=r"s\.tar!a\.jpg: its caption can't be read"):
        load_manifest(file)
    manifest = load_manifest(file, on_error="skip")
    assert (rows(manifest), manifest.ledger.counts()) == ([("s.tar!c.jpg", ("fine",))], {"bad_row": 2})


def test_an_archive_is_indexed_once_and_again_when_it_changes(put, jpeg, monkeypatch):
    file = write_tar(put("s.tar", ""), [("a.jpg", jpeg(1)), ("a.txt", b"x")])
    assert len(load_manifest(file)) == 1
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", None)  # reading it again would fail
        assert len(load_manifest(file)) == 1
    write_tar(file, [("a.jpg", jpeg(1)), ("a.txt", b"x"), ("b.jpg", jpeg(1)), ("b.txt", b"y")])
    assert len(load_manifest(file)) == 2


def write_lmdb(path, items, subdir=True):
    with lmdb.open(str(path), map_size=1 << 24, subdir=subdir) as environment, environment.begin(write=True) as writing:
        for key, value in items.items():
            writing.put(key.encode(), value)
    return path


@pytest.mark.parametrize("subdir", [True, False])
def test_lmdb_by_suffix(put, read, jpeg, subdir):
    items = {
        "a.jpg": jpeg(1), "a.txt": b"an a", "deep/b.png": jpeg(2, "PNG"), "deep/b.json": b'{"caption": "a b", "k": 1}',
        "c": jpeg(3, "WEBP"), "c.txt": b"a c",
    }  # fmt: skip
    put("x", "")
    path = write_lmdb(put.root / "p.lmdb", items, subdir)
    manifest = load_manifest(path)
    assert rows(manifest) == [
        ("p.lmdb!a.jpg", ("an a",)),
        ("p.lmdb!c", ("a c",)),
        ("p.lmdb!deep/b.png", ("a b",)),
    ]
    assert [read(row.image) for row in manifest] == [jpeg(1), jpeg(3, "WEBP"), jpeg(2, "PNG")]
    assert (manifest[0].image.path, manifest[0].image.key) == (str(path), b"a.jpg")
    assert manifest[2].extra == {"k": 1}
    file = put("data.tsv", "p.lmdb!a.jpg\tanother\n")
    (row,) = load_manifest(file)
    assert (row.id, row.captions, read(row.image)) == ("p.lmdb!a.jpg", ("another",), jpeg(1))


def test_lmdb_that_someone_reads_from_can_be_loaded_again(put, jpeg):
    """LMDB refuses to open an environment twice in a process; training holds it open when validation is loaded."""
    put("x", "")
    items = {f"{n:02d}.jpg": jpeg(n) for n in range(30)} | {f"{n:02d}.txt": b"x" for n in range(30)}
    path = write_lmdb(put.root / "p", items)
    train = load_manifest(path, validation=0.4)
    with lmdb.open(train[0].image.path, readonly=True, lock=False):
        held = load_manifest(path, validation=0.4, split="validation")
        assert len(held) + len(train) == 30
    changed = write_lmdb(path, {"new.jpg": jpeg(31), "new.txt": b"y"})
    with lmdb.open(str(path), readonly=True, lock=False):
        assert len(load_manifest(changed)) == 31


def test_lmdb_by_prefix_and_in_a_folder(put, jpeg):
    items = {"num-samples": b"2"}
    for number in (1, 2):
        items |= {f"image-{number:09d}": jpeg(number), f"caption-{number:09d}": f"number {number}".encode()}
    put("deep/x", "")
    path = write_lmdb(put.root / "deep" / "p", items)
    expected = ["image-000000001", "image-000000002"]
    assert rows(load_manifest(path)) == [(f"p!{name}", (f"number {n}",)) for n, name in enumerate(expected, 1)]
    assert [row.id for row in load_manifest(put.root)] == [f"deep/p!{name}" for name in expected]


def test_lmdb_that_is_none_or_empty_or_not_installed(put, monkeypatch):
    with pytest.raises(ManifestError, match="not an LMDB environment"):
        load_manifest(put("a.lmdb", "not this"))
    with pytest.raises(ManifestError, match=r"no images found in it; .* found a"):
        load_manifest(write_lmdb(put.root / "b.lmdb", {"a": b"text"}))
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    with pytest.raises(MissingDependencyError, match=r"calotype\[lmdb\]"):
        load_manifest(put.root / "a.lmdb")


def test_other_archives_say_what_to_do(put):
    for name, command in {"a.zip": "unzip .*/a.zip -d .*/a$", "a.tar.gz": "gunzip .*/a.tar.gz"}.items():
        with pytest.raises(ManifestError, match=f"packed files are not read. Unpack it: {command}"):
            load_manifest(put(name, "x"))
    with pytest.raises(ManifestError, match="a file of this kind is not read"):
        load_manifest(put("list.txt", "a.jpg\tx"))

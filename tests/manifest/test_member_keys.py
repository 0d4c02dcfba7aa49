"""Which members of an archive are one sample; every other member is named."""

import io
import tarfile

import lmdb
import pytest
import webdataset

from calotype.errors import ConfigError, ManifestError
from calotype.manifest import load_manifest


@pytest.fixture
def shard(put, jpeg):
    """shard("a.jpg", "a.txt"): images are photos, texts hold their own names."""

    def shard(*names, name="s.tar"):
        with tarfile.open(put(name, ""), "w") as tar:
            for number, each in enumerate(names):
                data = jpeg(number) if each.endswith(("jpg", "png", "webp")) else each.encode()
                info = tarfile.TarInfo(each)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return put.root / name

    return shard


def samples(manifest):
    return {row.id.partition("!")[2]: row.captions for row in manifest}


def named(manifest):
    return {entry.id.partition("!")[2]: entry.kind for entry in manifest.ledger}


@pytest.mark.parametrize(
    ("members", "expected", "left_out"),
    [
        pytest.param(
            "img0.jpg img0.txt v1.3-track.jpg v1.3-track.txt v1.4-track.jpg v1.4-track.txt",
            {"img0.jpg": "img0.txt", "v1.3-track.jpg": "v1.3-track.txt", "v1.4-track.jpg": "v1.4-track.txt"},
            {},
            id="names with dots",
        ),
        pytest.param("d/a.v1.jpg d/a.v1.txt", {"d/a.v1.jpg": "d/a.v1.txt"}, {}, id="one name with a dot"),
        pytest.param(
            "a..b.webp a..b.caption x.2.jpg x.2.txt x.jpg x.txt",
            {"a..b.webp": "a..b.caption", "x.2.jpg": "x.2.txt", "x.jpg": "x.txt"},
            {},
            id="versions of one name",
        ),
        pytest.param("sample.input.jpg sample.outputs.txt", {"sample.input.jpg": "sample.outputs.txt"}, {}, id="parts"),
        pytest.param(
            "a.jpg a.left.jpg a.right.jpg a.txt b.jpg b.left.jpg b.txt",
            {"a.jpg": "a.txt", "b.jpg": "b.txt"},
            {"a.left.jpg": "companion", "a.right.jpg": "companion"},
            id="views",
        ),
        pytest.param(
            "a.mask.png a.png a.jpg a.txt b-masklabel.png b.png b.webp b.txt c_mask.jpg c.jpg c.txt",
            {"a.jpg": "a.txt", "b.webp": "b.txt", "c.jpg": "c.txt"},
            dict.fromkeys(("a.png", "a.mask.png", "b-masklabel.png", "c_mask.jpg"), "companion"),
            id="masks",
        ),
        pytest.param(
            "a.jpg a.jpg.txt a.txt b.jpg b.txt b.negative.txt b.cls c.cls c.npy.gz",
            {"a.jpg": "a.jpg.txt", "b.jpg": "b.txt"},
            {
                **dict.fromkeys(("a.txt", "b.negative.txt"), "unused_captions"),
                **dict.fromkeys(("b.cls", "c.npy.gz"), "unused_member"),
            },
            id="texts and other kinds",
        ),
        pytest.param(
            "a.jpg a.txt masks/a.png reg/1.jpg reg/1.txt",
            {"a.jpg": "a.txt"},
            {"masks/a.png": "companion", "reg/1.jpg": "regularisation"},
            id="folders in it",
        ),
        pytest.param("i_mask.jpg i_mask.txt", {"i_mask.jpg": "i_mask.txt"}, {}, id="none"),
    ],
)  # fmt: skip
def test_each_member_is_a_sample_part_of_one_or_named(shard, members, expected, left_out):
    manifest = load_manifest(shard(*members.split()))
    assert samples(manifest) == {image: (text,) for image, text in expected.items()}
    assert named(manifest) == left_out


def test_one_entry_names_all_members_that_are_alike(shard):
    manifest = load_manifest(shard(*(f"{n}.{kind}" for n in range(9) for kind in ("jpg", "txt", "npy", "seg.png"))))
    assert [(entry.kind, entry.id, "9 members like it" in entry.reason) for entry in manifest.ledger] == [
        ("unused_member", "s.tar!0.npy", True),
        ("companion", "s.tar!0.seg.png", True),
    ]


def test_what_is_read_though_its_name_is_that_of_a_companion_is_noted(shard):
    manifest = load_manifest(shard("a.jpg", "a.txt", "masks/b.jpg", "masks/b.txt"))
    assert len(manifest) == 2 and "masks/ has the name of a folder of masks" in " ".join(manifest.describe()["notes"])


def test_images_that_cannot_be_distinguished(shard):
    file = shard("a.input.jpg", "a.target.jpg", "a.txt", "b.jpg", "b.txt")
    with pytest.raises(ManifestError, match=r"s\.tar!a: .* members \.input\.jpg, \.target\.jpg, \.txt; member_key"):
        load_manifest(file)
    manifest = load_manifest(file, on_error="skip")
    assert samples(manifest) == {"b.jpg": ("b.txt",)} and named(manifest) == {"a": "bad_row"}


def test_the_key_can_be_set(shard, put):
    file = shard("a.x.jpg", "a.x.txt", "a.jpg", "a.txt")
    assert samples(load_manifest(file)) == {"a.x.jpg": ("a.x.txt",), "a.jpg": ("a.txt",)}
    first = load_manifest(file, member_key="first_dot")
    assert samples(first) == {"a.jpg": ("a.txt",)}
    assert named(first) == {"a.x.jpg": "companion", "a.x.txt": "unused_captions"}
    frames = shard("v.01.jpg", "v.02.jpg", "v.01.mask.jpg", name="t.tar")
    last = load_manifest(frames, member_key="last_dot", missing_captions="empty")
    assert set(samples(last)) == {"v.01.jpg", "v.02.jpg"} and named(last) == {"v.01.mask.jpg": "companion"}
    with pytest.raises(ConfigError, match=r"member_key: found 'dot'; expected 'auto', 'first_dot', 'last_dot'"):
        load_manifest(file, member_key="dot")
    with pytest.raises(ConfigError, match=r"member_key: .* holds no tar or LMDB that it could have an effect on"):
        load_manifest(put("a.jsonl", '{"image": "a.jpg", "text": "t"}'), member_key="last_dot")


def test_an_archive_without_images_lists_its_members(shard):
    with pytest.raises(ManifestError, match=r"s\.tar: no images found in it; .* found \.mp4, \.npy, \.txt"):
        load_manifest(shard("a.mp4", "a.txt", "b.npy"))
    shard("b.jpg", "b.txt", name="t.tar")
    manifest = load_manifest(shard("a.mp4").parent, on_error="skip")
    assert samples(manifest) == {"b.jpg": ("b.txt",)}
    assert named(manifest) == {"": "bad_row", "a.mp4": "unused_member"}


def test_links_and_long_texts_are_named_and_hard_links_are_images(put, jpeg, read):
    with tarfile.open(put("s.tar", ""), "w") as tar:
        for name, data in (("a.jpg", jpeg(1)), ("a.txt", b"x" * ((1 << 20) + 1)), ("a.caption", b"short")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, kind in (("b.jpg", tarfile.LNKTYPE), ("c.jpg", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a.jpg"
            tar.addfile(info)
    manifest = load_manifest(put.root / "s.tar", missing_captions="empty")
    assert samples(manifest) == {"a.jpg": ("short",), "b.jpg": ("",)}
    assert read(manifest[1].image) == jpeg(1)
    reasons = {entry.id: entry.reason for entry in manifest.ledger}
    assert reasons == {
        "s.tar!a.txt": "a text of more than 1 MiB",
        "s.tar!c.jpg": "a symbolic link; only plain files are read",
    }


def test_two_texts_of_one_name(put, jpeg):
    with tarfile.open(put("s.tar", ""), "w") as tar:
        for name, data in (("a.jpg", jpeg(1)), ("a.txt", b"one"), ("a.txt", b"two")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(ManifestError, match=r"s\.tar!a\.txt: this text is in the archive twice"):
        load_manifest(put.root / "s.tar")


def test_lmdb_keys(put, jpeg):
    put("x", "")
    items = {
        "a.b.jpg": jpeg(1), "a.b.txt": b"dots", "image-1": jpeg(2), "caption-1": b"prefix", "mask-1": jpeg(3),
        "c.png": jpeg(4), "c.txt": b"c", "c-masklabel.png": jpeg(5), "label-2": b"no image", "num-samples": b"3",
        "entropy-1": b"0.3", "d.jpg": jpeg(6), "d.txt": b"x" * ((1 << 20) + 1), "d.caption": b"short",
    }  # fmt: skip
    with lmdb.open(f"{put.root}/p.lmdb", map_size=1 << 24) as opened, opened.begin(write=True) as writing:
        for key, value in items.items():
            writing.put(key.encode(), value)
    manifest = load_manifest(put.root / "p.lmdb")
    assert samples(manifest) == {"a.b.jpg": ("dots",), "c.png": ("c",), "d.jpg": ("short",), "image-1": ("prefix",)}
    assert named(manifest) == {
        "mask-1": "companion",
        "c-masklabel.png": "companion",
        "-2.txt": "no_picture",
        "entropy-1": "unused_member",
        "d.txt": "unused_member",
    }


def test_parts_as_webdataset_writes_them(put, jpeg):
    """Its `ShardWriter` takes any name of a part; readers get them by `rename(image="input.jpg", …)`."""
    put("x", "")
    with webdataset.ShardWriter(f"{put.root}/s-%d.tar", verbose=0) as sink:
        for number in range(2):
            sink.write({
                "__key__": f"deep/{number}", "input.jpg": jpeg(number), "prompt.txt": f"caption {number}",
                "meta.json": {"author": "x"}, "embedding.npy": b"\x93NUMPY", "n.cls": 3,
            })  # fmt: skip
    manifest = load_manifest(put.root / "s-0.tar")
    assert samples(manifest) == {"deep/0.input.jpg": ("caption 0",), "deep/1.input.jpg": ("caption 1",)}
    assert manifest[0].extra == {"author": "x"}
    assert named(manifest) == {"deep/0.embedding.npy": "unused_member", "deep/0.n.cls": "unused_member"}

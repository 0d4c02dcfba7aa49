"""`scan_facts`: what is known of each image, remembered until it changes."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import xxhash
from PIL import Image

from calotype.check.check import _facts
from calotype.check.facts import Facts, scan_facts
from calotype.check.pixel_facts import is_grey, perceptual_hash
from calotype.errors import FetchError, ImageError
from calotype.images import Fetcher, ImageReader
from calotype.progress import silent
from calotype.types import ImageRef

READER = ImageReader()


class Counting(ImageReader):
    """A reader that counts what it is asked for."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.examined = self.decoded = self.fetched = 0

    def examine(self, ref, **options):
        self.examined += 1
        return super().examine(ref, **options)

    def read(self, ref, **options):
        self.decoded += 1
        return super().read(ref, **options)

    def read_bytes(self, ref):
        self.fetched += 1
        return super().read_bytes(ref)

    @property
    def asked(self) -> tuple[int, int, int]:
        return self.examined, self.fetched, self.decoded


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def folder(photos, tmp_path) -> Path:
    """12 good photos and a copy of one."""
    made = tmp_path / "photos"
    made.mkdir()
    for photo in photos.glob("*.jpg"):
        shutil.copy(photo, made)
    shutil.copy(made / "03.jpg", made / "12.jpg")
    return made


def refs_of(folder: Path) -> list[ImageRef]:
    return [ImageRef(name=path.name, path=str(path)) for path in sorted(folder.iterdir())]


def scan(refs, reader=READER, *, deep=False, threads=2, **options) -> list[Facts]:
    return scan_facts(refs, reader, deep=deep, threads=threads, **options)


def by_hand(ref: ImageRef) -> Facts:
    """The slow obvious way to a deep look at one good image."""
    data = Path(str(ref.path)).read_bytes()
    decoded = READER.read(ref)
    return Facts(
        header=READER.header(ref),
        content=xxhash.xxh3_128_digest(data),
        pixels=xxhash.xxh3_128_digest(repr(decoded.pixels.shape).encode() + decoded.pixels.tobytes()),
        phash=perceptual_hash(decoded.pixels),
        notes=decoded.notes,
    )


def distance(one: int | None, other: int | None) -> int:
    assert one is not None
    assert other is not None
    return (one ^ other).bit_count()


# ---------------------------------------------------------------------------------------------------------- right


def test_a_deep_look_is_that_by_hand(folder):
    refs = refs_of(folder)
    for found, ref in zip(scan(refs, deep=True), refs, strict=True):
        expected = by_hand(ref)
        assert found == expected


def test_a_look_hashes_only_what_could_be_equal(folder):
    refs = refs_of(folder)
    reader = Counting()
    found = scan(refs, reader)
    assert [one.header for one in found] == [READER.header(ref) for ref in refs]
    assert [index for index, one in enumerate(found) if one.content is not None] == [3, 12]
    assert found[3].content == found[12].content == xxhash.xxh3_128_digest((folder / "03.jpg").read_bytes())
    assert all((one.problem, one.pixels, one.phash, one.notes) == (None, None, None, ()) for one in found)
    assert reader.asked == (13, 2, 0)


def test_hashes_of_equal_length_are_compared_whole(tmp_path, skimage_data):
    """The same length, beginning and end, and one pixel that differs in the middle."""
    data = bytearray((skimage_data / "astronaut.png").read_bytes())
    image = Image.open(skimage_data / "astronaut.png").convert("RGB")
    image.save(tmp_path / "a.bmp")
    data = bytearray((tmp_path / "a.bmp").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "b.bmp").write_bytes(data)
    one, other = scan([ImageRef(name=n, path=str(tmp_path / n)) for n in ("a.bmp", "b.bmp")])
    assert one.content is not None
    assert other.content is not None
    assert one.content != other.content


RECORDED = {
    "astronaut.png": "c2924c5532bddfc8",
    "brick.png": "a2898b1566fd46f1",
    "camera.png": "bff1c1c0434e8cbc",
    "chelsea.png": "b15fe6465121175e",
    "chessboard_RGB.png": "8055005500550055",
    "coffee.png": "bb8320376c0f3637",
    "coins.png": "e0d5b5a92bd4523a",
    "hubble_deep_field.jpg": "84cc4b96ba4d333e",
    "motorcycle_left.png": "c507c66b9370aa73",
    "retina.jpg": "c0cd1f977ac02d0f",
    "text.png": "b620ba8e2371cddc",
}
"""`imagehash.phash` 4.3.2 of scikit-image's photos, reduced as `perceptual_hash` does."""


def test_the_perceptual_hash_is_that_of_imagehash(skimage_data):
    for name, expected in RECORDED.items():
        pixels = READER.read(ImageRef(name=name, path=str(skimage_data / name))).pixels
        assert f"{perceptual_hash(pixels):016x}" == expected, name
    ramp = np.broadcast_to(np.linspace(0, 255, 300).astype(np.uint8)[None, :, None], (200, 300, 3))
    flat = {0: 0, 128: 1 << 63, 255: 1 << 63}
    assert {level: perceptual_hash(np.full((200, 300, 3), level, np.uint8)) for level in flat} == flat
    assert perceptual_hash(np.ascontiguousarray(ramp)) == 1 << 63


def test_a_perceptual_hash_sees_the_same_in_other_sizes_and_something_else_in_another_photo(folder):
    photo = Image.open(folder / "03.jpg")
    first = perceptual_hash(np.asarray(photo))
    for size in ((160, 160), (777, 777), (1500, 1500)):
        assert distance(first, perceptual_hash(np.asarray(photo.resize(size)))) <= 6
    assert distance(first, perceptual_hash(np.asarray(Image.open(folder / "01.jpg")))) > 10


def test_grey_is_told_exactly():
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (50, 70, 1), np.uint8), 3, axis=2)
    assert is_grey(grey)
    for y, x, channel in ((0, 0, 0), (49, 69, 1), (17, 3, 2)):
        tinted = grey.copy()
        tinted[y, x, channel] ^= 1
        assert not is_grey(tinted)


# -------------------------------------------------------------------------------------------------------- broken


@pytest.fixture
def broken(folder, tmp_path) -> dict[str, ImageRef]:
    """Real files, broken in the ways that files break."""
    data = (folder / "05.jpg").read_bytes()
    noise = bytearray(data)
    spot = random.Random(0)
    for _ in range(60):
        noise[spot.randrange(len(data) // 2, len(data) - 20)] = 0xFF  # markers in the middle of the pixels
    png = io.BytesIO()
    Image.open(folder / "05.jpg").save(png, "PNG")
    flipped = bytearray(png.getvalue())
    flipped[len(flipped) // 2] ^= 0x55
    bomb = data.index(b"\xff\xc0") + 5
    files = {
        "good.jpg": data,
        "half.jpg": data[: len(data) // 2],
        "end.jpg": data[:-2],
        "head.jpg": data[:200],
        "empty.jpg": b"",
        "page.jpg": b"<!DOCTYPE html><html>404",
        "noise.jpg": bytes(noise),
        "flipped.png": bytes(flipped),
        "unended.png": png.getvalue()[:-12],
        "bomb.jpg": data[:bomb] + b"\xea\x60\xea\x60" + data[bomb + 4 :],
    }
    place = tmp_path / "broken"
    place.mkdir()
    for name, content in files.items():
        (place / name).write_bytes(content)
    os.mkfifo(place / "pipe.jpg")
    (place / "folder.jpg").mkdir()
    refs = {path.name: ImageRef(name=path.name, path=str(path)) for path in place.iterdir()}
    return refs | {"gone.jpg": ImageRef(name="gone.jpg", path=str(place / "gone.jpg"))}


SHALLOW = {
    "good.jpg": None,
    "half.jpg": "truncated",
    "end.jpg": "truncated",
    "head.jpg": "truncated",
    "empty.jpg": "empty_file",
    "page.jpg": "not_an_image",
    "noise.jpg": None,
    "flipped.png": None,
    "unended.png": "truncated",
    "bomb.jpg": "too_many_pixels",
    "pipe.jpg": "unreadable",
    "folder.jpg": "unreadable",
    "gone.jpg": "missing_file",
}
DEEP = SHALLOW | {"noise.jpg": "damaged", "flipped.png": "damaged", "unended.png": None}


@pytest.mark.parametrize(("deep", "expected"), [(False, SHALLOW), (True, DEEP)])
def test_problems_are_found_and_the_second_time_too(broken, deep, expected):
    for _ in range(2):
        found = dict(zip(broken, scan(list(broken.values()), deep=deep), strict=True))
        assert {name: one.problem and one.problem[0] for name, one in found.items()} == expected
        assert all(one.problem is None or len(one.problem[1]) > 8 for one in found.values())
    if deep:
        assert found["unended.png"].notes == ("incomplete: it has no IEND chunk",)
        assert found["good.jpg"].pixels is not None


def test_a_deep_look_finds_just_what_training_could_not_read(broken):
    found = dict(zip(broken, scan(list(broken.values()), deep=True), strict=True))
    for name, ref in broken.items():
        try:
            READER.read(ref)
        except ImageError as error:
            assert found[name].problem == (error.kind, found[name].problem[1])  # type: ignore[index]
            assert found[name].pixels is None
        else:
            assert found[name].problem is None


def test_what_lasts_is_not_tried_again_and_what_may_pass_is(broken):
    refs = list(broken.values())
    scan(refs, deep=True)
    reader = Counting()
    again = scan(refs, reader, deep=True)
    # The bomb, the pipe, the folder and the missing one: limits, rights and disks change without the file.
    assert reader.asked == (1, 4, 0)
    Path(str(broken["gone.jpg"].path)).write_bytes(Path(str(broken["good.jpg"].path)).read_bytes())
    assert scan([broken["gone.jpg"]], deep=True)[0] == again[list(broken).index("good.jpg")]


def test_another_limit_of_pixels_is_kept_to(folder):
    refs = refs_of(folder)
    scan(refs, deep=True)
    found = scan(refs, ImageReader(max_pixels=320 * 320), deep=True)
    assert {one.problem and one.problem[0] for one in found} == {None, "too_many_pixels"}
    reader = Counting()
    assert all(one.problem is None for one in scan(refs, reader, deep=True))
    assert reader.asked == (0, 0, 0)


# ------------------------------------------------------------------------------------------------------- remembered


@pytest.mark.parametrize("deep", [False, True])
def test_a_second_run_reads_no_file(folder, deep):
    refs = refs_of(folder)
    first = scan(refs, deep=deep)
    reader = Counting()
    assert scan(refs, reader, deep=deep) == first
    assert reader.asked == (0, 0, 0)


def test_touched_copied_and_moved_files_are_hashed_and_not_decoded(folder, tmp_path):
    refs = refs_of(folder)
    first = scan(refs, deep=True)
    os.utime(folder / "00.jpg", ns=(1, 1))
    (folder / "01.jpg").rename(folder / "0l.jpg")
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    refs[1] = ImageRef(name="0l.jpg", path=str(folder / "0l.jpg"))
    reader = Counting()
    assert scan(refs, reader, deep=True) == first
    assert reader.asked == (2, 2, 0)
    copies = [ImageRef(name=ref.name, path=ref.path.replace(str(folder), str(tmp_path / "copy"))) for ref in refs]
    reader = Counting()
    assert scan(copies, reader, deep=True) == first
    assert reader.asked == (13, 13, 0)


def test_a_changed_file_and_another_background_are_decoded_again(folder):
    refs = refs_of(folder)
    first = scan(refs, deep=True)
    Image.open(folder / "02.jpg").rotate(180).save(folder / "02.jpg", quality=93)
    reader = Counting()
    found = scan(refs, reader, deep=True)
    assert reader.asked == (1, 1, 1)
    assert [index for index in range(13) if found[index] != first[index]] == [2]
    reader = Counting(background=(0, 0, 0))
    scan(refs, reader, deep=True)
    assert reader.asked == (0, 13, 13)


def test_headers_first_and_pixels_later_come_to_the_same(folder, tmp_path, monkeypatch):
    refs = refs_of(folder)
    scan(refs)
    reader = Counting()
    found = scan(refs, reader, deep=True)
    assert reader.asked == (0, 13, 13)  # two of them are one image, which two threads may meet at once
    monkeypatch.setenv("CALOTYPE_CACHE", str(tmp_path / "another"))
    assert scan(refs, deep=True) == found


def test_any_number_of_threads_and_no_memory_at_all_come_to_the_same(folder, tmp_path, monkeypatch):
    refs = refs_of(folder) * 3
    expected = scan(refs, deep=True)
    (tmp_path / "file").write_text("in the way")
    damaged = tmp_path / "damaged" / "facts"
    damaged.mkdir(parents=True)
    (damaged / "facts.sqlite3").write_bytes(b"not a database" * 100)
    for place, threads in (("file", 1), ("damaged", 5)):
        monkeypatch.setenv("CALOTYPE_CACHE", str(tmp_path / place))
        assert scan(refs, deep=True, threads=threads) == expected


def test_members_of_one_file_are_told_apart(folder, tmp_path):
    parts = [path.read_bytes() for path in sorted(folder.iterdir())[:3]]
    parts.append(parts[0])
    (tmp_path / "shard.tar").write_bytes(b"".join(parts))
    offsets = np.cumsum([0, *map(len, parts)]).tolist()
    members = [
        ImageRef(name=f"m{n}", path=str(tmp_path / "shard.tar"), offset=offsets[n], size=len(part))
        for n, part in enumerate(parts)
    ]
    found = scan(members)
    assert [one.header and one.header.bytes for one in found] == list(map(len, parts))
    assert [one.content for one in found] == [xxhash.xxh3_128_digest(parts[0]), None, None, found[0].content]
    reader = Counting()
    assert scan(members, reader) == found
    assert reader.asked == (0, 0, 0)


def test_interrupted_it_keeps_what_it_has_done(folder):
    refs = refs_of(folder) * 4  # 52
    calls = []

    def interrupt(done: int, total: int) -> None:
        calls.append(done)
        if done >= 16:
            raise KeyboardInterrupt

    for index, ref in enumerate(refs):
        copy = folder.parent / f"{index}.jpg"
        copy.write_bytes(Path(str(ref.path)).read_bytes() + bytes(index))  # other bytes behind the same pixels
        refs[index] = ImageRef(name=copy.name, path=str(copy))
    with pytest.raises(KeyboardInterrupt):
        scan(refs, deep=True, progress=interrupt)
    reader = Counting()
    found = scan(refs, reader, deep=True)
    assert len({one.pixels for one in found}) == 12
    assert 0 < reader.decoded <= 36


def test_progress_ends_at_the_whole(folder):
    seen: list[tuple[int, int]] = []
    scan(refs_of(folder) * 50, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) > 10
    assert seen == sorted(seen)
    assert seen[-1] == (1300, 1300)  # all were copies: 650 looked at, 650 compared
    seen.clear()
    scan(refs_of(folder), deep=True, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (13, 13)
    assert scan([]) == []


def test_rows_of_other_decoders_are_not_believed(folder, own_cache):
    refs = refs_of(folder)
    scan(refs, deep=True)
    with sqlite3.connect(own_cache / "facts" / "facts.sqlite3") as database:
        for table in ("files_2", "pixels_1"):
            database.execute(f"UPDATE {table} SET made_by = 'another Pillow'")
    reader = Counting()
    scan(refs, reader, deep=True)
    assert reader.asked == (13, 13, 13)


def test_urls_are_fetched_by_the_readers_own_fetcher(folder):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    handler = lambda *args: Quiet(*args, directory=str(folder))  # noqa: E731
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            base = f"http://127.0.0.1:{server.server_address[1]}"
            urls = [ImageRef(name=name, url=f"{base}/{name}") for name in ("00.jpg", "03.jpg", "gone.jpg")]
            reader = ImageReader(fetcher=Fetcher(allow_private=True, retries=0))
            refused = scan(urls[:1])
            found = scan(urls, reader)
            deep = scan(urls, reader, deep=True)
        finally:
            server.shutdown()
            thread.join()
    # A second run fetches nothing again but what failed; `refetch` does.
    assert scan(urls, reader, deep=True)[:2] == deep[:2] and scan(urls, reader)[:2] == found[:2]
    assert [one.problem and one.problem[0] for one in scan(urls, reader, refetch=True)] == ["fetch_failed"] * 3
    assert [one.problem and one.problem[0] for one in found] == [None, None, "fetch_failed"]
    assert [one.problem and one.problem[0] for one in refused] == ["fetch_failed"]
    local = scan(refs_of(folder), deep=True)
    assert deep[:2] == [local[0], local[3]]
    assert found[0].content == local[0].content


def test_several_processes_share_the_memory(folder):
    code = (
        "import sys\nfrom calotype.images import ImageReader\nfrom calotype.types import ImageRef\n"
        "from calotype.check.facts import scan_facts\n"
        "refs = [ImageRef(name=p, path=p) for p in sys.argv[1:]]\n"
        "found = scan_facts(refs, ImageReader(), deep=True, threads=2)\n"
        "import json; print(json.dumps([one.phash for one in found]))\n"
    )
    refs = refs_of(folder)
    command = [sys.executable, "-c", code, *(str(ref.path) for ref in refs)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    said = []
    for process in running:
        out, complaints = process.communicate(timeout=60)
        assert process.returncode == 0, complaints
        assert b"not cached" not in complaints
        said.append(json.loads(out))
    reader = Counting()
    assert said == [[one.phash for one in scan(refs, reader, deep=True)]] * 2
    assert reader.asked == (0, 0, 0)


@pytest.mark.parametrize("deep", [False, True])
def test_urls_are_read_as_many_at_a_time_as_there_are_connections(photos, deep):
    gathered = threading.Barrier(9, timeout=20)
    photo = (photos / "00.jpg").read_bytes()

    class Together(ImageReader):
        def read_bytes(self, ref):
            gathered.wait()
            if "gone" in ref.name:
                raise FetchError(ref.name, "gone", why="404")
            return photo

    refs = [ImageRef(name=url, url=url) for url in (f"http://a/{n}{'gone' * (n == 3)}" for n in range(18))]
    seen = []
    reader = Together(fetcher=Fetcher(connections=9))
    facts = scan_facts(refs, reader, deep=deep, threads=1, progress=lambda done, total: seen.append((done, total)))
    assert [fact.problem is not None for fact in facts] == [n == 3 for n in range(18)]
    assert facts[3].problem == ("fetch_failed", "gone")
    assert seen[-1] == (18, 18) and seen == sorted(seen)


@pytest.mark.parametrize(("shallow", "deep"), [(10**9, True), (1, False)])
def test_a_url_is_fetched_whole_once_whatever_is_looked_at(photos, monkeypatch, shallow, deep):
    monkeypatch.setattr("calotype.check.check._SHALLOW", shallow)
    photo, read, sized = (photos / "00.jpg").read_bytes(), [], []

    class Counting(ImageReader):
        def read_bytes(self, ref):
            read.append(ref.name)
            return photo

        def size(self, ref):
            sized.append(ref.name)
            return Image.open(io.BytesIO(photo)).size[::-1]

    refs = [ImageRef(name=url, url=url) for url in ("http://a/1", "http://a/2", "http://a/3")]
    facts, decoded = _facts(refs, Counting(), None, 2, silent)
    assert decoded is deep and all(fact.header is not None for fact in facts)
    assert sorted(read) == sorted(sized) == [ref.name for ref in refs]
    # Sizes that the data file has are not fetched.
    sized.clear()
    others = [ImageRef(name=url, url=url) for url in ("http://b/1", "http://b/2", "http://b/3")]
    listed = np.array([(10, 20), (0, 0), (30, 40)], np.int32)
    assert _facts(others, Counting(), None, 2, silent, listed=listed)[1] is deep
    assert sized == ["http://b/2"]

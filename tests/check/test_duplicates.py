"""Images that come twice: found at their strongest level, all of them, and nothing else."""

import io
import itertools
import math

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from calotype.check.duplicates import NEAR, duplicate_findings
from calotype.check.facts import Facts, scan_facts
from calotype.check.near import pairs_within
from calotype.check.pixel_facts import perceptual_hash
from calotype.images import ImageReader
from calotype.types import ImageRef


def all_pairs(hashes, distance):
    """The slow, obvious way."""
    numbers = [int(one) for one in hashes]
    pairs = itertools.combinations(range(len(numbers)), 2)
    return [
        (i, j, (numbers[i] ^ numbers[j]).bit_count())
        for i, j in pairs
        if (numbers[i] ^ numbers[j]).bit_count() <= distance
    ]


def planted(count, seed, distance):
    """Random hashes, and near ones of some of them at every distance up to a little more than asked for."""
    rng = np.random.default_rng(seed)
    hashes = [int(one) for one in rng.integers(0, 2**64, count, dtype=np.uint64)]
    for n, base in enumerate(hashes[: count // 2]):
        flips = rng.choice(64, n % (distance + 3), replace=False)
        hashes.append(base ^ sum(1 << int(bit) for bit in flips))
    return np.array(sorted(set(hashes)), np.uint64)


@pytest.mark.parametrize("distance", [0, 1, 3, 4, 6, 7, 8])
def test_pairs_are_those_of_comparing_all(distance):
    hashes = planted(400, distance, distance)
    pairs, bits = pairs_within(hashes, distance)
    found = [(*pair, apart) for pair, apart in zip(pairs.tolist(), bits.tolist(), strict=True)]
    assert found == all_pairs(hashes, distance)
    assert len(found) >= 50 or distance == 0


def test_pairs_when_many_share_a_quarter():
    """All the same upper 48 bits: the worst case for the quarters."""
    hashes = (np.arange(3000, dtype=np.uint64) * np.uint64(21)) | np.uint64(0xABCD << 48)
    pairs, bits = pairs_within(hashes, 2)
    assert [(*p, b) for p, b in zip(pairs.tolist(), bits.tolist(), strict=True)] == all_pairs(hashes, 2)


@pytest.mark.parametrize("count", [0, 1])
def test_no_pairs_of_nothing(count):
    assert pairs_within(np.arange(count, dtype=np.uint64), 6)[0].shape == (0, 2)


def test_a_distance_out_of_range():
    with pytest.raises(ValueError, match="found 16"):
        pairs_within(np.arange(3, dtype=np.uint64), 16)


def facts(content=None, pixels=None, phash=None, problem=None):
    return Facts(
        header=None,
        problem=problem,
        content=bytes([content] * 16) if content is not None else None,
        pixels=bytes([pixels] * 16) if pixels is not None else None,
        phash=phash,
    )


def found(train, held_out=()):
    names = [f"{n}" for n in range(len(train))]
    theirs = [f"v{n}" for n in range(len(held_out))]
    findings = duplicate_findings(names, train, held_out_ids=theirs, held_out=held_out)
    return [(one.kind, one.where, *one.others) for one in findings]


P = 0x0F0F_0F0F_3333_5555
"""A hash with 32 bits set."""
Q = 0xFF00_FF00_AAAA_CCCC


def test_each_group_once_at_its_strongest_level():
    train = [
        facts(1, 1, P),
        facts(1, 1, P),
        facts(2, 1, P),
        facts(3, 3, P ^ 1),
        facts(4, 4, Q),
        facts(5, 5, P ^ 0b111),
    ]
    assert found(train) == [
        ("same_file", "0", "1"),
        ("same_pixels", "0", "2"),
        ("near_duplicate", "0", "3", "5"),
    ]


def test_a_chain_is_one_group():
    steps = [P, P ^ 0x3F, P ^ 0x3F ^ 0xFC0, P ^ 0x3F ^ 0xFC0 ^ 0x3F000]
    assert found([facts(n, n, phash) for n, phash in enumerate(steps)]) == [("near_duplicate", "0", "1", "2", "3")]


def test_two_chains_that_meet_late_are_one_group():
    order = [P, Q, P ^ 0x3F, Q ^ 1]
    assert found([facts(n, n, phash) for n, phash in enumerate(order)]) == [
        ("near_duplicate", "0", "2"),
        ("near_duplicate", "1", "3"),
    ]


def test_a_file_twice_that_is_near_another_counts_once():
    assert found([facts(1, 1, P), facts(1, 1, P), facts(2, 2, P ^ 1), facts(2, 2, P ^ 1)]) == [
        ("same_file", "0", "1"),
        ("same_file", "2", "3"),
        ("near_duplicate", "0", "2"),
    ]


def test_flat_pictures_are_not_near_each_other():
    assert found([facts(1, 1, 1), facts(2, 2, 3), facts(3, 3, 2**64 - 1), facts(4, 4, 2**64 - 2)]) == []


def test_what_cannot_be_used_is_left_aside():
    assert found([facts(1), facts(1, problem=("truncated", "x"))]) == []


def test_unknown_hashes_are_equal_to_nothing():
    assert found([facts(), facts(), facts(1), facts(2)]) == []


def test_leaks_are_errors_and_nothing_else():
    train = [facts(1, 1, P), facts(2, 2, Q), facts(3, 3, Q ^ 2), facts(9, 9, 0xF0F0F0F0_0F0F0F0F)]
    held_out = [facts(1, 1, P), facts(7, 2, Q ^ 1), facts(8, 8, Q ^ 4)]
    findings = duplicate_findings(list("0123"), train, held_out_ids=["v0", "v1", "v2"], held_out=held_out)
    leaks = [one for one in findings if one.kind == "leak"]
    assert {one.level for one in leaks} == {"error"}
    assert [(one.where, set(one.others)) for one in leaks] == [("0", {"v0"}), ("1", {"v1", "v2"}), ("2", {"v1", "v2"})]
    assert leaks[1].others[0] == "v1"  # the strongest first
    assert "the same file as v0" in leaks[0].detail and "the same pixels as v1" in leaks[1].detail
    assert "2 of 64 bits" in leaks[2].detail
    assert [(one.kind, one.where, *one.others) for one in findings[3:]] == [("near_duplicate", "1", "2")]


def test_duplicates_among_the_held_out_alone_are_nobodys_business():
    assert found([facts(1, 1, P)], [facts(2, 2, Q), facts(2, 2, Q)]) == []


PHOTOS = (
    "astronaut brick camera cell chelsea clock_motion coffee coins grass gravel horse hubble_deep_field ihc moon rocket"
)


@pytest.fixture(scope="module")
def pictures(skimage_data):
    def load(name):
        (file,) = skimage_data.glob(f"{name}.*")
        with Image.open(file) as image:
            return image.convert("RGB")

    return {name: load(name) for name in PHOTOS.split()}


def jpeg(picture, quality):
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    with Image.open(out) as image:
        return image.convert("RGB")


CHANGES = {
    "quality 95": lambda p: jpeg(p, 95),
    "quality 40": lambda p: jpeg(p, 40),
    "half": lambda p: p.resize((p.width // 2, p.height // 2), Image.Resampling.LANCZOS),
    "grey": lambda p: p.convert("L").convert("RGB"),
    "contrast": lambda p: ImageEnhance.Contrast(p).enhance(0.8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_threshold_on_real_photos(pictures, change):
    """What `NEAR` rests on: changed photos stay within it, different photos don't come near it."""

    def hashed(picture):
        return perceptual_hash(np.asarray(picture))

    hashes = {name: hashed(picture) for name, picture in pictures.items()}
    apart = [(hashes[name] ^ hashed(CHANGES[change](picture))).bit_count() for name, picture in pictures.items()]
    assert max(apart) <= NEAR
    different = [(one ^ two).bit_count() for one, two in itertools.combinations(hashes.values(), 2)]
    assert min(different) >= 18


def test_real_files_from_end_to_end(pictures, tmp_path):
    """Photos, a copy, a PNG of a JPEG's pixels, and a smaller JPEG: found from the files alone."""
    names = list(pictures)[:6]
    for name in names:
        pictures[name].save(tmp_path / f"{name}.jpg", quality=92)
    (tmp_path / "copy.jpg").write_bytes((tmp_path / f"{names[0]}.jpg").read_bytes())
    with Image.open(tmp_path / f"{names[1]}.jpg") as image:
        image.save(tmp_path / "same.png")
    small = pictures[names[2]].resize([math.ceil(side * 0.6) for side in pictures[names[2]].size])
    small.save(tmp_path / "small.jpg", quality=60)
    ids = [*(f"{name}.jpg" for name in names), "copy.jpg", "same.png", "small.jpg"]
    refs = [ImageRef(name=id, path=str(tmp_path / id)) for id in ids]
    known = scan_facts(refs, ImageReader(), deep=True, threads=2, progress=None)
    assert [(one.kind, one.where, *one.others) for one in duplicate_findings(ids, known)] == [
        ("same_file", ids[0], "copy.jpg"),
        ("same_pixels", ids[1], "same.png"),
        ("near_duplicate", ids[2], "small.jpg"),
    ]
    headers = scan_facts(refs, ImageReader(), deep=False, threads=2, progress=None)
    assert [one.kind for one in duplicate_findings(ids, headers)] == ["same_file"]

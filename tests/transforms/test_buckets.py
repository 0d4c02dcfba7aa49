"""Aspect buckets: which sizes there are, and which image goes where."""

from __future__ import annotations

import time

import numpy as np
import pytest

from calotype.errors import ConfigError
from calotype.transforms import Buckets


@pytest.mark.parametrize("resolution", [256, 512, 768, 1000, 1024, 1536, (832, 1216)])
@pytest.mark.parametrize("multiple", [8, 16, 64])
@pytest.mark.parametrize("max_aspect", [1.0, 1.5, 2.0, 4.0])
def test_sizes_keep_the_area_the_multiple_and_the_aspect(resolution, multiple, max_aspect):
    buckets = Buckets(resolution=resolution, multiple=multiple, max_aspect=max_aspect)
    area = np.prod(buckets.resolution)
    for height, width in buckets.sizes:
        assert height % multiple == width % multiple == 0
        assert height * width <= area
        # The long side could not be one multiple longer.
        square = height == width
        assert square or min(height, width) * (max(height, width) + multiple) > area
        assert max(height, width) <= max_aspect * min(height, width)
        assert (width, height) in buckets.sizes
    assert len(set(buckets.sizes)) == len(buckets.sizes)
    aspects = [height / width for height, width in buckets.sizes]
    assert aspects == sorted(set(aspects))
    side = int(area**0.5) // multiple * multiple
    assert (side, side) in buckets.sizes


def test_the_sizes_of_sdxl():
    """Those of SDXL's paper (appendix I) between 1:2 and 2:1, where its area is within the square's."""
    wide = [(768, 1344), (832, 1216), (896, 1152), (960, 1088), (1024, 1024)]
    assert Buckets(resolution=1024).sizes == (*wide, *[(width, height) for height, width in reversed(wide[:-1])])


def test_a_rectangle_is_among_its_own_sizes():
    assert (832, 1216) in Buckets(resolution=(832, 1216)).sizes


def test_assign_is_the_nearest_by_log_aspect():
    buckets = Buckets(resolution=1024)
    sizes = np.random.default_rng(0).integers(200, 4000, (5000, 2))
    aspects = np.log([height / width for height, width in buckets.sizes])
    slow = [int(np.argmin(np.abs(aspects - np.log(height / width)))) for height, width in sizes]
    assert buckets.assign(sizes).tolist() == slow


def test_a_size_of_its_own_goes_to_itself_and_turned_images_to_turned_buckets():
    buckets = Buckets(resolution=1024, multiple=16)
    assert buckets.assign(buckets.sizes).tolist() == list(range(len(buckets.sizes)))
    sizes = np.array([(400, 600), (427, 640), (3000, 2000), (4032, 3024)])
    turned = [buckets.sizes[i][::-1] for i in buckets.assign(sizes[:, ::-1])]
    assert [buckets.sizes[i] for i in buckets.assign(sizes)] == turned
    assert buckets.sizes[buckets.assign([(3000, 2000)])[0]][0] > 1024


def test_a_tie_goes_to_the_wider_bucket():
    buckets = Buckets(resolution=512, multiple=256, max_aspect=4)
    assert buckets.sizes == ((256, 1024), (512, 512), (1024, 256))
    # 1:2 and 2:1 are exactly half way by log aspect.
    assert buckets.assign([(100, 200), (200, 100), (100, 199), (199, 100)]).tolist() == [0, 1, 1, 1]


def test_beyond_the_most_extreme_bucket():
    buckets = Buckets(resolution=1024)
    assert buckets.assign([(1, 5000), (5000, 1)]).tolist() == [0, len(buckets.sizes) - 1]


def test_a_million_rows_are_quick():
    buckets = Buckets(resolution=1024, multiple=16)
    sizes = np.random.default_rng(0).integers(200, 4000, (10**6, 2))
    best = min(_seconds(buckets.assign, sizes) for _ in range(3))
    assert best < 0.5  # 0.05 s on a quiet machine


def _seconds(function, *args):
    """Of this process: what else the machine does is not in them."""
    start = time.process_time()
    function(*args)
    return time.process_time() - start


def test_upscale_is_what_covering_the_bucket_takes():
    buckets = Buckets(resolution=1024)
    sizes = [(512, 512), (2048, 1024), (1024, 1024), (500, 700)]
    assigned = buckets.assign(sizes)
    expected = [
        max(buckets.sizes[b][0] / h, buckets.sizes[b][1] / w) for (h, w), b in zip(sizes, assigned, strict=True)
    ]
    assert buckets.upscale(sizes, assigned) == pytest.approx(expected)
    assert buckets.upscale(sizes, assigned)[0] == 2.0
    assert buckets.upscale(sizes, assigned)[1] < 1.0


def test_describe():
    buckets = Buckets(resolution=1024)
    text = buckets.describe(buckets.assign([(1000, 1000), (1000, 1000), (832, 1216)]))
    assert text.split("\n") == ["  1024×1024         2 images", "   832×1216         1 image"]


def test_no_images():
    buckets = Buckets(resolution=1024)
    assert buckets.assign(np.empty((0, 2))).shape == (0,)
    assert buckets.describe(buckets.assign(np.empty((0, 2)))) == ""


def test_a_size_below_one_pixel_is_an_error():
    with pytest.raises(ValueError, match=r"row 1 is \(0, 5\); expected \(height, width\) of at least 1"):
        Buckets(resolution=1024).assign([(5, 5), (0, 5)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 0}, "resolution: found 0"),
        ({"resolution": (1024,)}, r"resolution: found \(1024,\), expected one number or \[height, width\]"),
        ({"resolution": 32}, r"resolution: 32×32 pixels hold no size .* multiples of 64; raise resolution"),
        ({"resolution": 1024, "multiple": 0}, "multiple: found 0"),
        (
            {"resolution": 1024, "max_aspect": 0.5},
            r"max_aspect: found 0\.5, expected a number of at least 1, such as 2\.0",
        ),
        ({"resolution": 1024, "max_upscale": "2"}, r"max_upscale: found '2', expected a number of at least 0"),
    ],
)
def test_a_wrong_option_is_an_error(options, message):
    with pytest.raises(ConfigError, match=message):
        Buckets(**options)

"""The recipe of a key: each of its parts changes it, and what users have keeps its key."""

from dataclasses import replace

import pytest

from calotype.core.rng import Variant
from calotype.encodings.keys import ImageKeys, record_key, scaling_key, text_key, unreadable_key
from calotype.images import ImageReader
from calotype.transforms import ImageTransform, resample
from calotype.types import Geometry

CONTENT = b"c" * 16
GEOMETRY = Geometry(
    original_size=(300, 400),
    box=(10, 20, 256, 256),
    target_size=(64, 64),
    crop_top_left=(3, 5),
    rotate=1.5,
    flip=(True, False),
)
JITTER = {"hue": 0.1, "brightness": [0.8, 1.2]}


def key(fingerprint="vae", content=CONTENT, variant=None, program=None, reader=None, **geometry):
    keys = ImageKeys(fingerprint, ImageTransform(**program or {}), ImageReader(**reader or {}))
    return keys.key(content, replace(GEOMETRY, **geometry), variant)


def test_keys_of_stores_that_users_have_stay():
    """Recorded with the first release's recipe, on a torch that has Lanczos."""
    assert key().hex() == "28132f6ea1b44225a277f6ab65a773d6"
    options = {"color_jitter": JITTER, "interpolation": "bicubic"}
    reader = {"decode": "fast", "background": (1, 2, 3)}
    assert key(variant=Variant(7, 2), program=options, reader=reader).hex() == "47fec4e6188f44398240a397bbb902a5"
    assert text_key("t5", "A Photo").hex() == "9d3124e9e5a50e7e2914803acf82a675"
    assert scaling_key("vae").hex() == "db834729f171961ad2959f778731e6ef"
    assert unreadable_key(CONTENT).hex() == "01a1529f4c38066473ff704f53538907"


def test_every_part_of_the_recipe_changes_an_image_s_key():
    several = [
        key(),
        key(fingerprint="other"),
        key(content=b"d" * 16),
        key(original_size=(301, 400)),
        key(original_size=(300, 401)),
        *(key(box=tuple(side + (place == at) for place, side in enumerate(GEOMETRY.box))) for at in range(4)),
        key(target_size=(65, 64)),
        key(target_size=(64, 65)),
        key(crop_top_left=(4, 5)),
        key(crop_top_left=(3, 6)),
        key(rotate=1.25),
        key(rotate=-1.5),
        key(flip=(False, False)),
        key(flip=(True, True)),
        key(reader={"decode": "fast"}),
        key(reader={"background": (255, 255, 254)}),
        key(program={"interpolation": "bicubic"}),
        key(program={"interpolation": "bilinear"}),
        *(key(program={"color_jitter": {name: 0.1}}) for name in ("brightness", "contrast", "saturation", "hue")),
        key(program={"color_jitter": {"hue": 0.2}}),
        key(program={"color_jitter": {"hue": [-0.1, 0.2]}}),
        key(program={"color_jitter": {"hue": [-0.2, 0.1]}}),
        key(program={"color_jitter": JITTER}),
        *(key(program={"color_jitter": JITTER}, variant=Variant(5, number)) for number in (0, 1, 256)),
        key(program={"custom": [abs]}),
        key(program={"custom": [all]}),
        key(program={"custom": [abs, all]}),
        key(program={"custom": [all, abs]}),
        key(program={"custom": [abs]}, variant=Variant(5, 1)),
        ImageKeys("vae", ImageTransform.from_config([abs]), ImageReader()).key(CONTENT, GEOMETRY, None),  # whole
    ]
    assert len(set(several)) == len(several)


def test_what_does_not_change_an_image_is_no_part_of_its_key():
    # Which crop a variant drew stands in the geometry; two variants that draw the same one are one record.
    drawn = {"random_crop": True, "rotate": 3, "horizontal_flip": 0.5}
    assert key(variant=Variant(5, 1), program=drawn) == key(variant=Variant(6, 2)) == key()
    jitter = {"color_jitter": JITTER}
    assert key(variant=Variant(5, 1), program=jitter) == key(variant=Variant(6, 1), program=jitter)
    assert key(program={"color_jitter": dict(reversed(JITTER.items()))}) == key(program=jitter)
    assert key(reader={"max_pixels": 200_000}) == key()


def test_the_key_names_the_resampler_that_is_really_used(monkeypatch):
    lanczos, bicubic = key(), key(program={"interpolation": "bicubic"})
    monkeypatch.setattr(resample, "_torch_has_lanczos", lambda: False)
    assert key() == bicubic != lanczos
    assert key(program={"interpolation": "bilinear"}) not in (lanczos, bicubic)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "bc"), ("ab", "c")),
        (("a",), ("a", "")),
        (("A photo",), ("a photo",)),
        (("a photo ",), ("a photo",)),
        (("é",), ("e\u0301",)),
        ((), ("",)),
    ],
)
def test_texts_and_parts_are_told_apart_byte_for_byte(one, other):
    assert record_key("kind", *one) != record_key("kind", *other)
    assert record_key("kind", *one) != record_key("other", *one)
    assert text_key("t5", "".join(one)) != text_key("T5", "".join(one))
    if "".join(one) != "".join(other):
        assert text_key("t5", "".join(one)) != text_key("t5", "".join(other))

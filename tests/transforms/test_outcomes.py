"""Outcomes: what is drawn without end becomes a finite list, and is drawn from it as often as online."""

from collections import Counter

import numpy as np
import pytest
import torch

from calotype.core.rng import Variant
from calotype.transforms import CaptionTransform, ImageTransform
from calotype.types import SampleKey

EPOCHS = 4000


def frequencies(outcomes):
    counts = Counter(outcomes)
    return {what: count / EPOCHS for what, count in counts.items()}


def tolerance(probability):
    """Five standard deviations of a frequency over all epochs."""
    return 5 * (probability * (1 - probability) / EPOCHS) ** 0.5 + 1e-9


CAPTIONS = ("a cat, on a mat, asleep", "two dogs, in the rain")


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 2),
        ({"drop": 0.1}, 3),
        ({"choose": [3, 1]}, 2),
        ({"choose": "longest", "trigger": "sks"}, 1),
        ({"shuffle_parts": 0.3, "drop": 0.05}, None),
        ({"drop_parts": 0.4, "keep_parts": 1}, None),
        ({"custom": lambda text, rng: f"{text} {rng.integers(3)}"}, None),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else str(value),
)
def test_captions_come_as_often_as_their_outcomes_say(options, count):
    transform = CaptionTransform(**options)
    listed = transform.outcomes(CAPTIONS, variants=3)
    assert sum(listed.values()) == pytest.approx(1.0)
    assert count is None or len(listed) == count
    found = frequencies(transform.draw(CAPTIONS, SampleKey(5, epoch), 7, variants=3).text for epoch in range(EPOCHS))
    assert found.keys() <= listed.keys()
    for text, probability in listed.items():
        assert found.get(text, 0.0) == pytest.approx(probability, abs=tolerance(probability)), text


@pytest.mark.parametrize("options", [{}, {"drop": 0.3}, {"choose": [3, 1], "trigger": "sks"}], ids=str)
def test_what_can_be_listed_is_drawn_just_as_online(options):
    transform = CaptionTransform(**options)
    for epoch in range(50):
        key = SampleKey(3, epoch)
        assert transform.draw(CAPTIONS, key, 1, variants=2) == transform.draw(CAPTIONS, key, 1)


def test_captions_are_dropped_and_shuffled_in_the_very_epochs_in_which_they_would_be_online():
    transform = CaptionTransform(shuffle_parts=0.5, drop=0.2)
    for epoch in range(200):
        key = SampleKey(0, epoch)
        online, kept = transform.draw(CAPTIONS, key, 1), transform.draw(CAPTIONS, key, 1, variants=4)
        assert online.dropped == kept.dropped and online.raw == kept.raw
        assert online.text != online.raw or kept.text == kept.raw or online.dropped or "moved" in str(kept.parts)


def test_variants_of_a_caption_know_nothing_of_row_or_seed():
    transform = CaptionTransform(shuffle_parts=True)
    texts = {
        frozenset(transform.draw(CAPTIONS[:1], SampleKey(index, epoch), seed, variants=2).text for epoch in range(40))
        for index in (0, 9)
        for seed in (0, 1)
    }
    assert len(texts) == 1 and texts == {frozenset(transform.outcomes(CAPTIONS[:1], variants=2))}


def test_drop_changes_no_other_text():
    low, high = (CaptionTransform(shuffle_parts=0.5, drop=drop).outcomes(CAPTIONS, variants=4) for drop in (0.05, 0.1))
    assert low.keys() == high.keys() and high[""] == 0.1


SIZE = (60, 90)
FREE = {"random_crop": {"scale": [0.5, 1.0]}, "horizontal_flip": 0.3, "rotate": 5, "resize": [32, 32]}


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"resize": [32, 32], "center_crop": True}, 1),
        ({"resize": [32, 32], "center_crop": True, "horizontal_flip": 0.25}, 2),
        ({"resize": [32, 32], "center_crop": True, "horizontal_flip": 0.25, "vertical_flip": 0.5}, 4),
        ({"resize": [32, 32], "center_crop": True, "horizontal_flip": 1.0}, 1),
        (FREE, 6),
    ],
    ids=str,
)
def test_images_come_as_often_as_their_outcomes_say(options, count):
    transform = ImageTransform(**options)
    listed = {o.geometry: o.probability for o in transform.outcomes(SIZE, SampleKey(0), content=42, variants=3)}
    assert len(listed) == count and sum(listed.values()) == pytest.approx(1.0)
    found = frequencies(draw(transform, SampleKey(5, epoch), 3) for epoch in range(EPOCHS))
    assert found.keys() <= listed.keys()
    for geometry, probability in listed.items():
        assert found[geometry] == pytest.approx(probability, abs=tolerance(probability))


def draw(transform, key, variants):
    from calotype.core.rng import Stream

    variant = Variant.sampled(42, variants, key, 7, Stream.IMAGE_VARIANT) if transform.non_enumerable else None
    return transform.draw(SIZE, key, 7, variant=variant)


def test_flips_are_those_of_the_same_epoch_online():
    transform = ImageTransform(**FREE)
    for epoch in range(50):
        key = SampleKey(2, epoch)
        assert draw(transform, key, 3).flip == transform.draw(SIZE, key, 7).flip


def test_colours_of_a_variant_are_the_same_every_epoch():
    transform = ImageTransform(color_jitter={"brightness": 0.5, "hue": 0.1})
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 16, 16), np.uint8))
    geometry = transform.draw((16, 16), SampleKey(0), 0)
    made = [
        transform.finish(image, geometry, SampleKey(index, epoch), seed, variant=Variant(8, number))
        for number in (0, 1)
        for index, epoch, seed in ((0, 0, 0), (4, 7, 2))
    ]
    assert torch.equal(made[0], made[1]) and torch.equal(made[2], made[3]) and not torch.equal(made[0], made[2])


@pytest.mark.parametrize(
    ("transform", "names"),
    [
        (ImageTransform(horizontal_flip=0.5, vertical_flip=0.5), ()),
        (ImageTransform(rotate=[3, 3]), ()),
        (ImageTransform(rotate=3, random_crop=True), ("random_crop", "rotate")),
        (ImageTransform(color_jitter={"hue": 0.1}, custom=lambda image: image), ("color_jitter", "custom")),
        (CaptionTransform(drop=0.5, trigger="sks", custom=str.upper), ()),
        (CaptionTransform(shuffle_parts=0.1, drop_parts=0.1), ("shuffle_parts", "drop_parts")),
        (CaptionTransform(custom=lambda text, rng: text), ("custom",)),
    ],
    ids=["flips", "quarter turns", "crop", "colours", "drop", "parts", "custom"],
)
def test_endless_options_are_named(transform, names):
    assert transform.non_enumerable == names


@pytest.mark.parametrize(
    ("options", "captions"),
    [
        ({}, CAPTIONS),
        ({}, CAPTIONS[:1]),
        ({}, ()),
        ({"choose": "first", "trigger": "sks"}, CAPTIONS),
        ({"choose": [0, 1]}, CAPTIONS),
        ({"drop": 0.3}, CAPTIONS[:1]),
        ({"shuffle_parts": 0.5}, CAPTIONS[:1]),
        ({"custom": str.upper}, CAPTIONS[:1]),
        ({"custom": lambda text, rng: f"{text} {rng.integers(3)}"}, CAPTIONS[:1]),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else str(len(value)),
)
def test_a_caption_is_fixed_when_no_draw_changes_it(options, captions):
    transform = CaptionTransform(**options)
    texts = {transform.draw(captions, SampleKey(5, epoch), 7).text for epoch in range(100)}
    assert transform.fixed(captions) == (len(texts) == 1)


@pytest.mark.parametrize("options", [{}, {"horizontal_flip": 0.5}, {"horizontal_flip": 0.3, "vertical_flip": 1.0}])
def test_the_flip_alone_is_that_of_the_whole_geometry(options):
    for more in ({}, {"random_crop": {"scale": [0.5, 1.0]}}, {"rotate": 10}):
        transform = ImageTransform(resize=(64, 64), **options, **more)
        for epoch in range(50):
            key = SampleKey(3, epoch)
            assert transform.drawn_flip(key, 7) == transform.draw((100, 80), key, 7).flip

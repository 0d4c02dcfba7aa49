"""Custom steps: anyone's transforms, repeatable and without a touch on global generators."""

from __future__ import annotations

import copy
import pickle
import random
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms as v1
from torchvision.transforms import v2

from calotype.errors import ConfigError
from calotype.transforms import ImageTransform
from calotype.transforms.seeded import SeededDraws
from calotype.types import SampleKey

COFFEE = skimage.data.coffee()[:96, :128]
PICTURE = torch.from_numpy(np.array(COFFEE)).permute(2, 0, 1).contiguous()

RANDOM_TRANSFORMS = {
    "ColorJitter": v2.ColorJitter(0.4, 0.4, 0.4, 0.2),
    "RandomPerspective": v2.RandomPerspective(0.5, p=1.0),
    "ElasticTransform": v2.ElasticTransform(),
    "GaussianBlur": v2.GaussianBlur(5, (0.1, 3.0)),
    "AutoAugment": v2.AutoAugment(),
    "RandAugment": v2.RandAugment(),
    "AugMix": v2.AugMix(),
    "RandomErasing": v2.RandomErasing(p=1.0),
    "GaussianNoise": v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.GaussianNoise(), v2.ToDtype(torch.uint8, scale=True)]
    ),
    "RandomChoice": v2.RandomChoice([v2.RandomHorizontalFlip(1.0), v2.RandomInvert(1.0), v2.RandomPosterize(2, 1.0)]),
    "RandomOrder": v2.RandomOrder([v2.RandomAffine(20), v2.RandomAdjustSharpness(3), v2.RandomSolarize(100)]),
    "v1": v1.Compose([v1.RandomRotation(30), v1.RandomHorizontalFlip(), v1.ColorJitter(0.3)]),
    "dropout": lambda image: (F.dropout(torch.ones(image.shape[1:]), 0.2, training=True) * image).clamp(0, 255).byte(),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread_an_operation():
    """As in the loader's threads; small images are quicker so, and the machine may be shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def results(function, n=12):
    image = ImageTransform(custom=function)
    geometry = image.draw(tuple(PICTURE.shape[1:]), SampleKey(0), 0)
    return [image.finish(PICTURE, geometry, SampleKey(i), 0) for i in range(n)]


@pytest.mark.parametrize("name", RANDOM_TRANSFORMS)
def test_draws_follow_from_the_key_and_leave_the_global_generators_alone(name):
    function = RANDOM_TRANSFORMS[name]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    first = results(function)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2][1])  # noqa: NPY002
    torch.manual_seed(1234)
    again = results(copy.deepcopy(function))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    # They do draw: different keys give different images.
    assert len({a.numpy().tobytes() for a in first}) > 2


def test_results_are_equal_across_threads():
    image = ImageTransform(custom=[RANDOM_TRANSFORMS["ColorJitter"], RANDOM_TRANSFORMS["AugMix"]])
    geometry = image.draw(tuple(PICTURE.shape[1:]), SampleKey(0), 0)

    def one(i):
        return image.finish(PICTURE, geometry, SampleKey(i), 0)

    alone = [one(i) for i in range(16)]
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(a, b) for a, b in zip(alone, pool.map(one, range(16)), strict=True))


def test_one_step_does_not_change_another_ones_draws():
    noise = RANDOM_TRANSFORMS["GaussianNoise"]
    with_second = results([noise, v2.RandomHorizontalFlip(0.0)])
    assert all(torch.equal(a, b) for a, b in zip(results([noise]), with_second, strict=True))
    image = ImageTransform(custom=noise, color_jitter={"hue": 0.0}, horizontal_flip=0.0, vertical_flip=0.0)
    geometry = image.draw(tuple(PICTURE.shape[1:]), SampleKey(0), 0)
    assert torch.equal(image.finish(PICTURE, geometry, SampleKey(0), 0), results(noise)[0])


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.rand(3),
        lambda: torch.randn(2, 2, dtype=torch.float64),
        lambda: torch.randint(10, (5,)),
        lambda: torch.randint(3, 10, (5,)),
        lambda: torch.randperm(20),
        lambda: torch.normal(0.0, 1.0, (3,)),
        lambda: torch.normal(torch.zeros(3), 1.0),
        lambda: torch.rand_like(torch.zeros(3)),
        lambda: torch.randn_like(torch.zeros(3)),
        lambda: torch.randint_like(torch.zeros(3), 1000),
        lambda: torch.bernoulli(torch.full((40,), 0.5)),
        lambda: torch.multinomial(torch.ones(50), 5),
        lambda: torch.empty(3).uniform_(),
        lambda: torch.empty(3).normal_(),
        lambda: torch.empty(3).exponential_(),
        lambda: torch.empty(3).cauchy_(),
        lambda: torch.empty(3).log_normal_(),
        lambda: torch.empty(40).bernoulli_(0.5),
        lambda: torch.empty(3).random_(),
        lambda: torch.empty(3).geometric_(0.01),
        lambda: torch.poisson(torch.full((5,), 100.0)),
        lambda: torch.distributions.Beta(torch.tensor(2.0), torch.tensor(2.0)).sample((3,)),
        lambda: torch.distributions.Gamma(torch.tensor(2.0), torch.tensor(2.0)).sample((3,)),
        lambda: torch.distributions.Categorical(torch.ones(1000)).sample((3,)),
        lambda: F.gumbel_softmax(torch.zeros(5)),
        lambda: F.dropout(torch.ones(60), 0.5),
        lambda: F.alpha_dropout(torch.ones(60), 0.5, training=True),
        lambda: torch.nn.init.trunc_normal_(torch.empty(4)),
    ],
)
def test_every_random_operation_follows_from_the_seed(draw):
    state = torch.get_rng_state()

    def seeded(seed):
        with SeededDraws(seed):
            return draw()

    assert torch.equal(seeded(3), seeded(3))
    assert not torch.equal(seeded(3), seeded(4))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_generator_of_the_users_own_is_left_in_place():
    with SeededDraws(3):
        own = torch.rand(3, generator=torch.Generator().manual_seed(9))
    assert torch.equal(own, torch.rand(3, generator=torch.Generator().manual_seed(9)))


@pytest.mark.parametrize("function", [ImageOps.solarize, lambda im: im.filter(ImageFilter.BLUR), ImageOps.mirror])
def test_a_step_may_work_on_pillow_images(function):
    image = ImageTransform(custom=function)
    geometry = image.draw(tuple(PICTURE.shape[1:]), SampleKey(0), 0)
    expected = np.asarray(function(Image.fromarray(COFFEE)))
    for i in range(3):
        result = image.finish(PICTURE, geometry, SampleKey(i), 0)
        assert np.array_equal(result.permute(1, 2, 0).numpy(), expected)


def test_what_a_step_takes_is_found_out_anew_for_each_image():
    """One image that it can't take as a tensor changes nothing for the others, whichever comes first."""
    bright = torch.full_like(PICTURE, 255)

    def step(picture):
        if isinstance(picture, Image.Image):
            return ImageOps.invert(picture)
        if picture.min() == 255:
            raise ValueError("as a tensor, it is too bright for me")
        return picture // 2

    def run(*pictures):
        image = ImageTransform(custom=step)
        geometry = image.draw(tuple(PICTURE.shape[1:]), SampleKey(0), 0)
        return [image.finish(picture, geometry, SampleKey(0), 0) for picture in pictures]

    for pictures in ([PICTURE, bright, PICTURE], [bright, PICTURE, bright]):
        for picture, result in zip(pictures, run(*pictures), strict=True):
            assert torch.equal(result, 255 - picture if picture is bright else picture // 2)


@pytest.mark.parametrize("error", [MemoryError("full"), torch.OutOfMemoryError("full"), OSError(28, "full")])
def test_a_failure_of_the_machine_is_not_taken_for_a_step_s_taste(error):
    def step(picture):
        if isinstance(picture, torch.Tensor):
            raise error
        return picture

    with pytest.raises(type(error), match="full"):
        results(step)


def test_a_step_that_writes_into_its_input_does_not_change_what_is_kept():
    image = ImageTransform(custom=lambda picture: picture.zero_())
    geometry = image.draw(tuple(PICTURE.shape[1:]), SampleKey(0), 0)
    before = PICTURE.clone()
    assert image.finish(PICTURE, geometry, SampleKey(0), 0).sum() == 0
    assert torch.equal(PICTURE, before)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (v2.ToDtype(torch.float32, scale=True), r"a float32 tensor of shape \(3, 96, 128\)"),
        (v1.Compose([v1.ToPILImage(), v1.ToTensor()]), "a float32 tensor"),
        (v2.Grayscale(1), r"a uint8 tensor of shape \(1, 96, 128\)"),
        (lambda picture: None, "a NoneType"),
    ],
)
def test_a_step_must_give_a_image(function, found):
    with pytest.raises(
        ConfigError, match=rf"returned {found}.*; expected a uint8 tensor.*leave out ToDtype and Normalize"
    ):
        results(function)


def test_a_step_that_fails_says_why_itself():
    def broken(picture):
        raise KeyError("of mine")

    with pytest.raises(KeyError, match="of mine") as raised:
        results(broken)
    assert raised.value.__notes__ == ["img_transform.custom[0] (broken) raised this for a uint8 image (3, 96, 128)"]


def test_a_step_for_floats_is_named_with_what_steps_get():
    steps = [v2.Grayscale(3), v2.Normalize([0.5] * 3, [0.5] * 3)]
    with pytest.raises(
        ConfigError,
        match=r"^img_transform\.custom\[1\] \(Normalize\): takes float images, and steps get uint8.*normalizes",
    ):
        results(steps)


def test_a_step_may_not_change_a_size_that_was_asked_for():
    image = ImageTransform(resize=[96, 128], custom=v2.Resize(32))
    geometry = image.draw((96, 128), SampleKey(0), 0)
    with pytest.raises(ConfigError, match=r"custom: the steps returned 32×42 pixels .*; expected 96×128"):
        image.finish(PICTURE, geometry, SampleKey(0), 0)


@pytest.mark.parametrize(
    "draw", [random.random, np.random.random, iter(np.linspace(0, 1, 100)).__next__], ids=["random", "numpy", "state"]
)
def test_a_step_that_draws_from_elsewhere_is_named(draw):
    def darken(picture):
        return (picture * draw()).byte()

    with pytest.warns(UserWarning, match=r"darken.*returned two different images for the same seed"):
        results(darken)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results(RANDOM_TRANSFORMS["ElasticTransform"], n=10)


@pytest.mark.parametrize(
    "config",
    [
        v2.RandomHorizontalFlip(1.0),
        {"_component_": "torchvision.transforms.v2.RandomHorizontalFlip", "p": 1.0},
        [v2.RandomHorizontalFlip(1.0)],
        [
            v2.RandomVerticalFlip(1.0),
            {"_component_": "torchvision.transforms.v2.RandomRotation", "degrees": [180, 180]},
        ],
    ],
)
def test_a_callable_alone_is_the_whole_transform(config):
    image = ImageTransform.from_config(config)
    geometry = image.draw(COFFEE.shape[:2], SampleKey(0), 0)
    assert (image.whole, image.fixed_geometry, image.output_size) == (True, False, None)
    assert (geometry.box, geometry.target_size) == ((0, 0, 96, 128), (96, 128))
    assert image.needed_size(geometry) == (96, 128)
    result = image.finish(image.resample(np.array(COFFEE), geometry), geometry, SampleKey(0), 0)
    assert np.array_equal(result.permute(1, 2, 0).numpy(), COFFEE[:, ::-1])


def test_a_transform_of_callables_decides_its_size_but_not_against_a_bucket():
    image = ImageTransform.from_config(v2.RandomCrop((32, 48)))
    geometry = image.draw(COFFEE.shape[:2], SampleKey(0), 0)
    pixels = image.resample(np.array(COFFEE), geometry)
    assert image.finish(pixels, geometry, SampleKey(0), 0).shape == (3, 32, 48)
    with pytest.raises(ConfigError, match=r"returned 32×48 .*; expected 64×64"):
        image.finish(pixels, geometry, SampleKey(0, size=(64, 64)), 0)


def test_options_and_callables_in_one_list():
    image = ImageTransform.from_config([{"resize": [48, 64], "horizontal_flip": 1.0}, v2.RandomHorizontalFlip(1.0)])
    plain = ImageTransform(resize=[48, 64])
    geometry = image.draw(COFFEE.shape[:2], SampleKey(0), 0)
    pixels = image.resample(np.array(COFFEE), geometry)
    assert not image.whole
    assert torch.equal(image.finish(pixels, geometry, SampleKey(0), 0), plain.resample(np.array(COFFEE), geometry))


def test_a_transform_travels_to_another_process():
    image = ImageTransform.from_config({"resize": 32, "custom": [v2.GaussianBlur(3)], "color_jitter": {"hue": 0.1}})
    twin = pickle.loads(pickle.dumps(image))
    key = SampleKey(3)
    geometry = image.draw(COFFEE.shape[:2], key, 0)
    assert twin.draw(COFFEE.shape[:2], key, 0) == geometry
    pixels = image.resample(np.array(COFFEE), geometry)
    assert torch.equal(twin.finish(pixels, geometry, key, 0), image.finish(pixels, geometry, key, 0))

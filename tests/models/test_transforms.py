"""Each model's transform: keys, shapes and dtypes, two halves that make a whole, and nothing cut in silence."""

from __future__ import annotations

import copy
import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.config.instantiate import build
from calotype.errors import ConfigError, MissingTokenizerError
from calotype.models import (
    FluxTransform,
    PixelsTransform,
    SD3Transform,
    SD15Transform,
    SDXLTransform,
    build_model_transform,
    load_tokenizer,
)
from calotype.types import Geometry, ModelTransform, Sample

CLIP = ((77,), torch.int64)
KEYS = {
    "flux.1-dev": {"clip_text_tokens": CLIP, "t5_text_tokens": ((512,), torch.int64)},
    "flux.1-schnell": {"clip_text_tokens": CLIP, "t5_text_tokens": ((256,), torch.int64)},
    "sdxl": {
        "clip_l_text_tokens": CLIP,
        "clip_g_text_tokens": CLIP,
        "original_size": ((2,), torch.int64),
        "crop_top_left": ((2,), torch.int64),
        "target_size": ((2,), torch.int64),
    },
    "sd3.5-large": {
        "clip_l_text_tokens": CLIP,
        "clip_g_text_tokens": CLIP,
        "t5_text_tokens": ((256,), torch.int64),
    },
    "sd-1.5": {"clip_text_tokens": CLIP},
}
FAMILIES = {"flux.1-dev": "flux.1", "flux.1-schnell": "flux.1", "sdxl": "sdxl", "sd3.5-large": "sd3", "sd-1.5": "sd-1"}


@pytest.fixture(scope="module")
def transforms(pipelines):
    built = {name: build_model_transform(name, tokenizers=pipelines(family)) for name, family in FAMILIES.items()}
    return built | {"pixels": PixelsTransform()}


@pytest.fixture(scope="module")
def flux(transforms):
    return transforms["flux.1-dev"]


def a_sample(height=48, width=32, text="a photo of a tabby cat", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)
    return Sample(
        image=torch.from_numpy(pixels),
        text=text,
        id="cats/a.jpg",
        geometry=Geometry(
            original_size=(4 * height, 6 * width),
            box=(0, width, 4 * height, 4 * width),
            crop_top_left=(0, 8),
            target_size=(height, width),
        ),
    )


def same(ours, theirs):
    assert list(ours) == list(theirs)
    for key, value in ours.items():
        assert value.dtype == theirs[key].dtype and torch.equal(value, theirs[key]), key


@pytest.mark.parametrize("name", [*KEYS, "pixels"])
class TestEveryTransform:
    """What `ModelTransform` promises, for each that implements it."""

    def test_keys_shapes_and_dtypes(self, transforms, name):
        transform = transforms[name]
        assert isinstance(transform, ModelTransform)
        tokens = {key: (tuple(value.shape), value.dtype) for key, value in transform(a_sample()).items()}
        assert tokens.pop("img") == ((3, 48, 32), torch.float32)
        assert tokens == KEYS.get(name, {})

    def test_the_call_is_its_two_halves(self, transforms, name):
        transform, sample = transforms[name], a_sample()
        prepared = transform.prepare(sample)
        assert prepared["img"].dtype == torch.uint8 and torch.equal(prepared["img"], sample.image)
        same(transform(sample), transform.finish(prepared))

    def test_a_batch_is_finished_as_its_samples_are(self, transforms, name):
        transform = transforms[name]
        samples = [a_sample(text=f"cat {seed}", seed=seed) for seed in range(3)]
        prepared = [transform.prepare(sample) for sample in samples]
        batch = {key: torch.stack([one[key] for one in prepared]) for key in prepared[0]}
        batch["mask"] = torch.ones(3)
        finished = transform.finish(batch)
        assert finished.pop("mask") is batch["mask"]
        assert batch["img"].dtype == torch.uint8
        for place, sample in enumerate(samples):
            same({key: value[place] for key, value in finished.items()}, transform(sample))

    def test_the_sample_is_left_as_it_was(self, transforms, name):
        sample = a_sample()
        before = copy.deepcopy(sample)
        transforms[name](sample)["img"].fill_(7.0)
        assert list(sample) == list(before) and torch.equal(sample.image, before.image)
        assert (sample["text"], sample["geometry"]) == (before["text"], before["geometry"])

    def test_pickles(self, transforms, name):
        transform, sample = transforms[name], a_sample(text="a 🙂 cat")
        same(pickle.loads(pickle.dumps(transform))(sample), transform(sample))

    def test_a_pil_image_is_the_same_pixels(self, transforms, name):
        sample = a_sample()
        image = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
        same(transforms[name](sample | {"image": image}), transforms[name](sample))


def test_all_work_in_a_spawned_process(transforms):
    sample = a_sample(text="a 🙂 cat")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for name, transform in transforms.items():
            found = pool.apply(_as_numpy, (transform, sample.image.numpy(), sample["text"]))
            expected = transform({"image": sample.image, "text": sample["text"]})
            assert list(found) == list(expected)
            assert all(np.array_equal(found[key], value.numpy()) for key, value in expected.items()), name


def _as_numpy(transform, pixels, text):
    return {key: value.numpy() for key, value in transform({"image": torch.from_numpy(pixels), "text": text}).items()}


class TestPixels:
    def test_every_value_is_the_formula(self):
        img = torch.arange(256, dtype=torch.uint8).repeat(3, 1).reshape(3, 16, 16)
        found = PixelsTransform()({"image": img})["img"]
        assert torch.equal(found, (img / 127.5) - 1.0)
        assert (found.min().item(), found.max().item()) == (-1.0, 1.0)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_a_gpu_gives_the_same_bits(self):
        batch = {"img": torch.arange(256, dtype=torch.uint8).repeat(2, 3, 1).reshape(2, 3, 16, 16)}
        on_gpu = PixelsTransform().finish({"img": batch["img"].cuda()})["img"]
        assert on_gpu.is_cuda and torch.equal(on_gpu.cpu(), PixelsTransform().finish(batch)["img"])

    def test_stays_on_its_device(self):
        found = PixelsTransform().finish({"img": torch.zeros((2, 3, 8, 8), dtype=torch.uint8, device="meta")})
        assert found["img"].device.type == "meta"

    def test_finishing_twice_is_refused(self):
        finished = PixelsTransform()({"image": torch.zeros((3, 8, 8), dtype=torch.uint8)})
        with pytest.raises(ConfigError, match=r"img: uint8.* was expected, found torch\.float32: finished already"):
            PixelsTransform().finish(finished)

    def test_pil_is_turned_upright(self, tmp_path):
        photo = Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3))
        exif = Image.Exif()
        exif[0x0112] = 6  # Shown after a quarter turn to the right.
        photo.save(tmp_path / "turned.png", exif=exif)
        found = PixelsTransform().prepare({"image": Image.open(tmp_path / "turned.png")})["img"]
        assert torch.equal(found.permute(1, 2, 0), torch.from_numpy(np.rot90(np.array(photo), -1).copy()))

    def test_grey_pil_is_three_equal_channels(self):
        grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
        found = PixelsTransform().prepare({"image": grey})["img"]
        assert found.shape == (3, 8, 8) and torch.equal(found[0], found[2])
        assert torch.equal(found[1].flatten(), torch.arange(64, dtype=torch.uint8))

    @pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "I;16", "F"])
    def test_pil_modes_that_convert_would_spoil(self, mode):
        with pytest.raises(
            ConfigError, match=f"image of 'x': a PIL image of mode RGB or L was expected, found {mode};"
        ):
            PixelsTransform()({"image": Image.new(mode, (8, 8)), "id": "x"})

    @pytest.mark.parametrize(
        ("image", "found"),
        [
            (torch.zeros(3, 8, 8), r"torch\.float32 \(3, 8, 8\)"),
            (torch.zeros((8, 8, 3), dtype=torch.uint8), r"torch\.uint8 \(8, 8, 3\)"),
            (torch.zeros((2, 3, 8, 8), dtype=torch.uint8), r"torch\.uint8 \(2, 3, 8, 8\)"),
            (np.zeros((8, 8, 3), np.uint8), "ndarray"),
        ],
    )
    def test_what_is_not_a_picture(self, image, found):
        with pytest.raises(ConfigError, match=rf"image of 'a\.jpg': .*expected, found {found}"):
            PixelsTransform()({"image": image, "id": "a.jpg"})


class TestText:
    def test_the_ids_are_those_of_the_tokenizers(self, flux, folder):
        text = "a 🙂 cat, 一只猫"
        found = flux(a_sample(text=text))
        assert found["clip_text_tokens"].tolist() == load_tokenizer(folder("clip_l"), kind="clip")(text, 77)
        assert found["t5_text_tokens"].tolist() == load_tokenizer(folder("t5"), kind="t5")(text, 512)

    def test_clip_l_pads_with_its_end_and_clip_g_with_zero(self, transforms):
        for name in ("sdxl", "sd3.5-large"):
            found = transforms[name](a_sample(text="cat"))
            assert found["clip_l_text_tokens"].tolist() == [49406, 2368, *[49407] * 75]
            assert found["clip_g_text_tokens"].tolist() == [49406, 2368, 49407, *[0] * 74]

    @pytest.mark.parametrize("text", [None, 7, ["a", "cat"]])
    def test_a_caption_is_a_str(self, flux, text):
        with pytest.raises(ConfigError, match=rf"text of 'cats/a\.jpg': .* found {type(text).__name__}"):
            flux(a_sample(text=text))

    def test_a_missing_caption(self, flux):
        with pytest.raises(ConfigError, match=r"text of a sample: a caption .* found NoneType"):
            flux({"image": torch.zeros((3, 8, 8), dtype=torch.uint8)})

    def test_half_a_character(self, flux):
        with pytest.raises(ConfigError, match=r"text of 'cats/a\.jpg': half a character .* at 4, '\\ud83d'"):
            flux(a_sample(text="cat \ud83d"))


class TestTruncated:
    def test_nothing_is_cut(self, transforms):
        for name in KEYS:
            assert transforms[name].truncated("a photo of a cat") == {}
            assert transforms[name].truncated("") == {}

    def test_which_tokenizer_cuts_how_much_and_what(self, flux):
        text = " ".join(["cat"] * 100 + ["dog"])
        cut = flux.truncated(text)
        assert list(cut) == ["clip_tokenizer_path"]  # T5 takes 512.
        found = cut["clip_tokenizer_path"]
        assert (found.tokenizer, found.tokens, found.limit) == ("clip_tokenizer_path", 103, 77)
        assert text[: found.cut].split() == ["cat"] * 75
        assert found.lost.split() == ["cat"] * 25 + ["dog"]
        assert text[: found.cut] + found.lost == text

    def test_at_the_very_limit(self, flux):
        assert flux.truncated(" ".join(["cat"] * 75)) == {}
        assert flux.truncated(" ".join(["cat"] * 76))["clip_tokenizer_path"].lost.strip() == "cat"

    def test_every_tokenizer_that_cuts(self, transforms):
        text = "cat " * 600
        assert list(transforms["flux.1-dev"].truncated(text)) == ["clip_tokenizer_path", "t5_tokenizer_path"]
        assert {option: found.limit for option, found in transforms["sd3.5-large"].truncated(text).items()} == {
            "clip_l_tokenizer_path": 77,
            "clip_g_tokenizer_path": 77,
            "t5_tokenizer_path": 256,
        }

    def test_what_it_says_is_what_the_model_gets(self, transforms):
        """The ids of a cut caption are those of the part it says is kept."""
        text = ", ".join(["a quiet harbour at dawn"] * 200)
        for name in KEYS:
            whole = transforms[name](a_sample(text=text))
            for field in transforms[name].fields:
                found = transforms[name].truncated(text)[field.spec.option]
                assert field.tokenizer(text[: found.cut], field.max_length) == whole[field.spec.key].tolist()


class TestSDXLConditioning:
    def test_from_the_geometry(self, transforms):
        found = transforms["sdxl"](a_sample(height=48, width=32))
        assert found["original_size"].tolist() == [192, 192]
        assert found["crop_top_left"].tolist() == [0, 8]
        assert found["target_size"].tolist() == [48, 32]

    def test_without_one_the_picture_is_whole(self, transforms):
        found = transforms["sdxl"]({"image": torch.zeros((3, 40, 24), dtype=torch.uint8), "text": "cat"})
        assert [found[key].tolist() for key in ("original_size", "crop_top_left", "target_size")] == [
            [40, 24],
            [0, 0],
            [40, 24],
        ]

    def test_a_size_that_a_callable_made_counts_as_uncropped(self, transforms):
        sample = a_sample(height=48, width=32)
        sample["image"] = sample["image"][:, :24, :16]
        found = transforms["sdxl"](sample)
        assert [found[key].tolist() for key in ("original_size", "crop_top_left", "target_size")] == [
            [192, 192],
            [0, 0],
            [24, 16],
        ]

    def test_something_else_is_refused(self, transforms):
        with pytest.raises(ConfigError, match=r"geometry of 'cats/a\.jpg': a calotype.* expected, found dict"):
            transforms["sdxl"](a_sample() | {"geometry": {"original_size": (1, 1)}})


class TestConstruction:
    """As the RFC's recipes write it."""

    def test_positional(self, folder, flux):
        transform = FluxTransform(folder("clip_l"), str(folder("t5")), 256)
        found, expected = transform(a_sample()), flux(a_sample())
        assert torch.equal(found["t5_text_tokens"], expected["t5_text_tokens"][:256])
        assert torch.equal(found["clip_text_tokens"], expected["clip_text_tokens"])

    def test_as_a_component(self, folder):
        transform = build(
            {
                "_component_": "calotype.models.FluxTransform",
                "clip_tokenizer_path": str(folder("clip_l") / "merges.txt"),
                "t5_tokenizer_path": str(folder("t5") / "spiece.model"),
                "t5_max_seq_len": 256,
            },
            where="tokenizer",
        )
        assert isinstance(transform, FluxTransform)
        assert transform(a_sample())["t5_text_tokens"].shape == (256,)

    def test_the_others(self, folder):
        assert SD15Transform(folder("sd15_clip_l"))(a_sample())["clip_text_tokens"].shape == (77,)
        sdxl = SDXLTransform(folder("sdxl_clip_l"), folder("sdxl_clip_g") / "merges.txt")
        assert sdxl(a_sample(text="cat"))["clip_g_text_tokens"][-1] == 0
        sd3 = SD3Transform(folder("sd3_clip_l"), folder("sd3_clip_g"), folder("sd3_t5"), 512)
        assert sd3(a_sample())["t5_text_tokens"].shape == (512,)

    def test_more_tokens_than_the_model_takes(self, folder):
        with pytest.raises(ConfigError, match=r"t5_max_seq_len: 513 does not fit flux\.1-dev, which takes 1 to 512"):
            FluxTransform(folder("clip_l"), folder("t5"), t5_max_seq_len=513)
        with pytest.raises(ConfigError, match=r"t5_max_seq_len: 0 does not fit"):
            FluxTransform(folder("clip_l"), folder("t5"), t5_max_seq_len=0)
        with pytest.raises(ConfigError, match=r"t5_max_seq_len: 513 does not fit sd3.*1 to 512"):
            SD3Transform(folder("sd3_clip_l"), folder("sd3_clip_g"), folder("sd3_t5"), 513)

    def test_swapped_paths(self, folder):
        with pytest.raises(ConfigError, match=r"whose model is BPE was expected, found 'Unigram'; is this another"):
            FluxTransform(folder("t5"), folder("clip_l"))

    def test_a_path_that_leads_nowhere(self, folder, tmp_path):
        with pytest.raises(MissingTokenizerError, match="nowhere: no such file or folder"):
            FluxTransform(folder("clip_l"), tmp_path / "nowhere")

    def test_repr_tells_the_lengths(self, flux):
        assert repr(flux) == "FluxTransform(clip_text_tokens=77, t5_text_tokens=512)"

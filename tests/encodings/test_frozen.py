"""Loading a pipeline's frozen part: from folders and the hub, no more than is needed, and what is refused."""

from __future__ import annotations

import gc
import json
import logging
import shutil
import subprocess
import sys
import warnings
import weakref
from pathlib import Path

import loopback_hub
import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("diffusers", exc_type=ImportError)
    pytest.importorskip("transformers", exc_type=ImportError)

from tiny_pipelines import NAMES, copy_of, tiny_pipeline

from calotype.encodings.frozen import FrozenModels
from calotype.errors import ConfigError, install_command

IMAGES = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path):
    """A copy of SD 1.5's tiny pipeline, the quickest to load, that a test may change."""
    return copy_of("sd-1.5", tmp_path / "pipeline")


def edit_index(folder: Path, **changes: object) -> None:
    file = folder / "model_index.json"
    index = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in index.items() if value is not ...}))


class TestWhatIsLoaded:
    def test_neither_needs_the_other_nor_the_rest(self, folder, tmp_path):
        texts = Path(shutil.copytree(folder, tmp_path / "texts"))
        for name in ("unet", "vae", "scheduler"):
            shutil.rmtree(texts / name)
        shutil.rmtree(folder / "unet")
        shutil.rmtree(folder / "text_encoder")
        shutil.rmtree(folder / "tokenizer")
        assert FrozenModels(texts).encode_texts(["a cat"])[0]["prompt_embeds"].shape == (77, 16)
        assert FrozenModels(folder).encode_pictures(IMAGES)["moments"].shape == (2, 8, 4, 6)

    def test_counting_tokens_needs_no_model(self, folder):
        shutil.rmtree(folder / "text_encoder")
        (folder / "text_encoder").mkdir()
        (cut,) = FrozenModels(folder).cut_texts(["cat " * 80])[0]
        assert (cut.tokenizer, cut.tokens, cut.limit) == ("tokenizer", 82, 77)

    def test_each_is_loaded_when_it_is_asked_and_goes_when_it_is_released(self, folder):
        models = FrozenModels(folder, dtype=torch.float32)
        assert models._pipe is models._vae is None
        texts = models.encode_texts(["a cat"])
        assert models._vae is None
        encoder = weakref.ref(models._pipe.text_encoder)
        models.release_texts()
        gc.collect()
        assert encoder() is None
        pictures = models.encode_pictures(IMAGES)
        vae = weakref.ref(models._vae)
        models.release_pictures()
        gc.collect()
        assert vae() is None
        assert torch.equal(models.encode_texts(["a cat"])[0]["prompt_embeds"], texts[0]["prompt_embeds"])
        assert torch.equal(models.encode_pictures(IMAGES)["moments"], pictures["moments"])

    def test_what_comes_out_can_be_trained_on(self, folder):
        """It asks for no gradient, and is no inference tensor, which autograd would refuse."""
        models = FrozenModels(folder, dtype=torch.float32)
        for tensor in (models.encode_texts(["a cat"])[0]["prompt_embeds"], models.encode_pictures(IMAGES)["moments"]):
            assert not tensor.requires_grad and not tensor.is_inference()
            weight = torch.ones((), requires_grad=True)
            (tensor * weight).sum().backward()
            assert weight.grad is not None

    def test_no_texts(self, folder):
        models = FrozenModels(folder)
        assert models.encode_texts([]) == [] == models.cut_texts([])
        assert models._pipe is None

    def test_pixels_are_the_same_from_either_type(self, folder):
        models = FrozenModels(folder, dtype=torch.float32)
        floats = models.encode_pictures(IMAGES.float() / 127.5 - 1)["moments"]
        assert torch.equal(models.encode_pictures(IMAGES)["moments"], floats)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_sdxl_s_autoencoder_stays_in_float32(self, dtype):
        exact = FrozenModels(tiny_pipeline("sdxl"), dtype=torch.float32).encode_pictures(IMAGES)["moments"]
        models = FrozenModels(tiny_pipeline("sdxl"), dtype=dtype)
        assert torch.equal(models.encode_pictures(IMAGES)["moments"], exact.to(dtype))
        assert models._vae.dtype == torch.float32

    def test_sdxl_s_autoencoder_that_does_not_overflow(self, tmp_path):
        """`madebyollin/sdxl-vae-fp16-fix` says `force_upcast: false`."""
        folder = copy_of("sdxl", tmp_path / "fixed")
        file = folder / "vae" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"force_upcast": False}))
        models = FrozenModels(folder, dtype=torch.bfloat16)
        assert models.encode_pictures(IMAGES)["moments"].dtype == models._vae.dtype == torch.bfloat16
        file.write_text("[]")
        with pytest.raises(ConfigError, match=r"vae/config.json: a JSON object was expected; copy or download it"):
            FrozenModels(folder).encode_pictures(IMAGES)

    def test_a_text_that_is_cut_is_not_logged_again_and_again(self, folder, caplog):
        models = FrozenModels(folder)
        with caplog.at_level(logging.WARNING):
            for name in ("diffusers", "transformers"):
                logging.getLogger(name).addHandler(caplog.handler)
            try:
                models.encode_texts(["cat " * 80])
                models.cut_texts(["cat " * 80])
            finally:
                for name in ("diffusers", "transformers"):
                    logging.getLogger(name).removeHandler(caplog.handler)
        assert not caplog.records


class TestWhichModel:
    @pytest.mark.parametrize("name", NAMES)
    def test_a_folder_tells_itself(self, name):
        models = FrozenModels(tiny_pipeline(name))
        assert models.spec.name == name
        assert models.max_sequence_length == models.spec.sequence_length

    def test_a_folder_without_a_name(self, tmp_path):
        """By what it is called, else the first of its family; `spec` says otherwise."""
        folder = copy_of("flux.1-schnell", tmp_path / "models" / "mine")
        edit_index(folder, _name_or_path=...)
        assert FrozenModels(folder).spec.name == "flux.1-dev"
        assert FrozenModels(folder, spec="black-forest-labs/FLUX.1-schnell").max_sequence_length == 256
        for place in ("FLUX.1-schnell", "models--black-forest-labs--FLUX.1-schnell/snapshots/0123"):
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(folder, tmp_path / place)
            assert FrozenModels(tmp_path / place).spec.name == "flux.1-schnell"

    def test_a_spec_of_another_family(self, folder):
        with pytest.raises(ConfigError, match=r"spec: sdxl is no StableDiffusionPipeline, .*; expected sd-1\.5"):
            FrozenModels(folder, spec="sdxl")

    def test_an_unknown_name(self):
        with pytest.raises(ConfigError, match=r"no model 'flux\.1-dve'; did you mean 'flux\.1-dev'\?"):
            FrozenModels("flux.1-dve")
        with pytest.raises(ConfigError, match=r"no model '\./nowhere'"):
            FrozenModels("./nowhere")

    def test_no_pipeline_s_folder(self, tmp_path):
        (tmp_path / "vae").mkdir()
        with pytest.raises(ConfigError, match=r"has no model_index.json \(it holds vae\); a pipeline's folder"):
            FrozenModels(tmp_path)

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"_class_name": 3}'])
    def test_an_index_that_is_none(self, folder, text):
        (folder / "model_index.json").write_text(text)
        with pytest.raises(ConfigError, match=r"model_index.json: .*copy or download it again"):
            FrozenModels(folder)

    def test_a_pipeline_without_a_family(self, folder):
        edit_index(folder, _class_name="KandinskyPipeline")
        known = "ChromaPipeline, Flux2Pipeline, FluxPipeline, .*ZImagePipeline"
        with pytest.raises(
            ConfigError, match=f"has KandinskyPipeline, a pipeline without a model family; known: {known}"
        ):
            FrozenModels(folder)

    def test_a_component_that_is_missing(self, folder):
        shutil.rmtree(folder / "vae")
        shutil.rmtree(folder / "tokenizer")
        models = FrozenModels(folder)
        for ask in (lambda: models.encode_pictures(IMAGES), lambda: models.picture_fingerprint):
            with pytest.raises(ConfigError, match=r"no folder vae; `hf download stable-diffusion-v1-5/stable-d"):
                ask()
        for ask in (lambda: models.encode_texts(["a"]), lambda: models.text_fingerprint):
            with pytest.raises(ConfigError, match="no folder tokenizer; `hf download"):
                ask()

    def test_weights_that_are_missing(self, folder):
        (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
        with pytest.raises(ConfigError, match=r"diffusers could not load vae of sd-1\.5 \(OSError: .*`hf download"):
            FrozenModels(folder).encode_pictures(IMAGES)

    def test_a_text_encoder_that_is_left_out(self, tmp_path):
        folder = copy_of("sd3-medium", tmp_path / "small")
        edit_index(folder, text_encoder_3=[None, None])
        with pytest.raises(ConfigError, match="text_encoder_3 of sd3-medium is left out there"):
            FrozenModels(folder)

    def test_options(self, folder):
        with pytest.raises(ConfigError, match="latents: 'moments' or 'mean' was expected, found 'sample'"):
            FrozenModels(folder, latents="sample")
        with pytest.raises(ConfigError, match=r"max_sequence_length: sd-1\.5 has a fixed one; leave it out"):
            FrozenModels(folder, max_sequence_length=77)
        schnell = tiny_pipeline("flux.1-schnell")
        for length in (0, 257, True, 12.0):
            with pytest.raises(
                ConfigError, match=rf"max_sequence_length: {length} .* takes 1 to 256 tokens; .* for 256"
            ):
                FrozenModels(schnell, max_sequence_length=length)
        with pytest.raises(ConfigError, match=r"img: 40x48 .* does not fit sana.*multiples of 32"):
            FrozenModels(tiny_pipeline("sana")).encode_pictures(torch.zeros(1, 3, 40, 48, dtype=torch.uint8))
        with pytest.raises(ConfigError, match=r"img: \(B, 3, height, width\) was expected, found \(3, 32, 48\)"):
            FrozenModels(folder).encode_pictures(IMAGES[0])

    def test_a_length_of_one_s_own(self):
        models = FrozenModels(tiny_pipeline("flux.1-schnell"), max_sequence_length=32)
        assert models.encode_texts(["a cat"])[0]["prompt_embeds"].shape == (32, 16)
        assert [cut.limit for cut in models.cut_texts(["cat " * 80])[0]] == [77, 32]


class TestFingerprints:
    def test_what_they_depend_on(self, folder):
        base = FrozenModels(folder)
        other = FrozenModels(folder, dtype=torch.float32)
        mean = FrozenModels(folder, latents="mean")
        assert len(bytes.fromhex(base.text_fingerprint)) == len(bytes.fromhex(base.picture_fingerprint)) == 16
        assert base.text_fingerprint != other.text_fingerprint
        assert base.picture_fingerprint != other.picture_fingerprint
        assert base.text_fingerprint == mean.text_fingerprint
        assert base.picture_fingerprint != mean.picture_fingerprint
        assert base._pipe is base._vae is None

    def test_the_length_of_texts(self):
        folder = tiny_pipeline("flux.1-dev")
        base, short = FrozenModels(folder), FrozenModels(folder, max_sequence_length=128)
        assert base.text_fingerprint != short.text_fingerprint
        assert base.picture_fingerprint == short.picture_fingerprint

    def test_an_autoencoder_without_a_posterior(self):
        sana = tiny_pipeline("sana")
        assert FrozenModels(sana).picture_fingerprint == FrozenModels(sana, latents="mean").picture_fingerprint

    def test_what_is_trained_does_not_matter(self, folder, tmp_path):
        base = FrozenModels(folder)
        first = base.text_fingerprint, base.picture_fingerprint
        shutil.move(folder, tmp_path / "elsewhere")
        for name in ("unet", "scheduler"):
            for file in (tmp_path / "elsewhere" / name).iterdir():
                file.write_bytes(b"changed")
        moved = FrozenModels(tmp_path / "elsewhere")
        assert (moved.text_fingerprint, moved.picture_fingerprint) == first

    @pytest.mark.parametrize(("name", "texts"), [("text_encoder", True), ("tokenizer", True), ("vae", False)])
    def test_each_component_counts_for_its_own(self, folder, name, texts):
        before = FrozenModels(folder)
        first = before.text_fingerprint, before.picture_fingerprint
        file = next((folder / name).glob("*.json"))
        file.write_text(file.read_text() + "\n")
        after = FrozenModels(folder)
        assert (after.text_fingerprint != first[0]) == texts
        assert (after.picture_fingerprint != first[1]) == (not texts)


def test_from_the_hub(tmp_path):
    """A download leaves the transformer; what it brings is what a folder has; the next run needs no hub."""
    program = (
        "from calotype.encodings.frozen import FrozenModels\n"
        "from calotype.errors import ConfigError\n"
        "models = FrozenModels('owner/model')\n"
        "print(models.spec.name, models.text_fingerprint, models.picture_fingerprint)\n"
    )
    refused = "try:\n    FrozenModels('flux.1-dev')\nexcept ConfigError as error:\n    print(error)\n"
    sana = tiny_pipeline("sana")
    files = {path.relative_to(sana).as_posix(): path.read_bytes() for path in sana.rglob("*") if path.is_file()}
    files |= {"vae_encoder/model.onnx": b"for others", "vae/flax_model.msgpack": b"for others"}
    models = FrozenModels(sana)
    expected = f"sana {models.text_fingerprint} {models.picture_fingerprint}"
    with loopback_hub.serving(files) as hub:
        assert loopback_hub.run(program, tmp_path, hub).splitlines() == [expected]
        fetched = {path.split("/resolve/")[1].split("/")[1] for path in hub.asked if "/resolve/" in path}
    assert {"model_index.json", "text_encoder", "tokenizer", "vae"} <= fetched
    assert not {"transformer", "scheduler", "vae_encoder"} & fetched
    program += "import sys\nassert 'diffusers' not in sys.modules\n"  # nor its seconds of import
    again, message = loopback_hub.run(program + refused, tmp_path, None).splitlines()
    assert again == expected
    assert message.startswith("model: 'black-forest-labs/FLUX.1-dev' could not be had from the Hugging Face hub")
    assert '`hf download black-forest-labs/FLUX.1-dev --exclude "transformer/*"' in message
    assert "hf auth login" in message and "there is no local folder 'flux.1-dev'" in message


def test_without_diffusers():
    """Fingerprints need only the files, and counting tokens only calotype's own tokenizers."""
    program = (
        "import sys\n"
        "sys.modules['diffusers'] = None\n"
        "from calotype.encodings.frozen import FrozenModels\n"
        "from calotype.errors import MissingDependencyError\n"
        f"models = FrozenModels({str(tiny_pipeline('sd-1.5'))!r})\n"
        "print(len(models.text_fingerprint), models.cut_texts(['cat ' * 80])[0][0].tokens)\n"
        "try:\n"
        "    models.encode_texts(['a cat'])\n"
        "except MissingDependencyError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "32 82",
        "the package 'diffusers' is needed to run a model's encoders, and is not installed: "
        + install_command("diffusers"),
    ], done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_on_a_gpu(name):
    """Near the CPU's in float32, on the device, and gone from it after release."""
    cpu, gpu = (FrozenModels(tiny_pipeline(name), dtype=torch.float32, device=place) for place in ("cpu", "cuda"))
    texts = ["a photo of a cat", ""]
    for one, other in zip(cpu.encode_texts(texts), gpu.encode_texts(texts), strict=True):
        for key, tensor in one.items():
            assert other[key].device.type == "cuda"
            torch.testing.assert_close(other[key].cpu(), tensor, rtol=1e-3, atol=1e-3)
    gpu.release_texts()
    images = torch.nn.functional.interpolate(IMAGES, size=(64, 64))
    ours, theirs = (models.encode_pictures(images) for models in (cpu, gpu))
    for key, tensor in ours.items():
        torch.testing.assert_close(theirs[key].cpu(), tensor, rtol=1e-2, atol=1e-2)
        latents = gpu.family.latents(theirs[key].chunk(2, dim=1)[0] if key == "moments" else theirs[key], gpu.scaling)
        assert latents.device.type == "cuda"
    gpu.release_pictures()
    del theirs, latents, other
    gc.collect()
    assert torch.cuda.memory_allocated() < 1 << 24

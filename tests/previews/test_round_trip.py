"""The round trip, through a real AutoencoderKL built tiny, saved, and loaded as a user's would be."""

import numpy as np
import pytest
import torch
from preview_examples import photo

from calotype.errors import ConfigError
from calotype.previews import Autoencoder
from calotype.previews.round_trip import psnr

diffusers = pytest.importorskip("diffusers")


def tiny(**options):
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        **{
            "block_out_channels": (8, 16),
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "layers_per_block": 1,
            "latent_channels": 4,
            "norm_num_groups": 4,
        }
        | options
    )


@pytest.fixture(scope="module")
def picture():
    return photo("coffee.png")[:96, :128]


@pytest.mark.parametrize("inside", ["", "vae"])
def test_a_saved_autoencoder_goes_there_and_back(tmp_path, picture, inside):
    model = tiny().eval()
    model.save_pretrained(tmp_path / "model" / inside)
    trip = Autoencoder.from_pretrained(tmp_path / "model", device="cpu")(picture)
    with torch.no_grad():
        x = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 127.5 - 1
        expected = model.decode(model.encode(x).latent_dist.mode()).sample[0]
    expected = ((expected + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(trip.image, expected)
    assert trip.psnr == psnr(picture, expected)
    assert 0 < trip.psnr < 30  # untrained


def test_psnr_of_known_errors(picture):
    low = picture // 2
    assert psnr(low, low + 1) == pytest.approx(48.1308, abs=1e-4)  # 20 log10(255)
    assert psnr(np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)) == 0
    assert psnr(picture, picture) == float("inf")


def test_half_precision_files_are_computed_in_full(tmp_path):
    tiny().half().save_pretrained(tmp_path)
    assert {p.dtype for p in Autoencoder.from_pretrained(tmp_path, device="cpu").model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["empty", "not-there"])
def test_no_autoencoder_there(tmp_path, monkeypatch, name):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ConfigError, match=rf"no autoencoder of diffusers at .*{name}; expected a folder with its config"
    ):
        Autoencoder.from_pretrained(tmp_path / name)


def test_pictures_that_its_factor_does_not_divide(picture):
    with pytest.raises(ConfigError, match=r"127×95 px came back as .* expected sides that its factor divides"):
        Autoencoder(tiny(), device="cpu")(picture[:95, :127])


def test_another_kind_of_model(picture):
    with pytest.raises(ConfigError, match="found Linear, expected one that encodes and decodes"):
        Autoencoder(torch.nn.Linear(1, 1))
    other = diffusers.VQModel(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    with pytest.raises(ConfigError, match="VQModel gives VQEncoderOutput, expected one with a latent_dist"):
        Autoencoder(other, device="cpu")(picture)

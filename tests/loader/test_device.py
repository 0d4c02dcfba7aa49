"""The device of a Loader is checked when it is made."""

import pytest
import torch

import calotype
from calotype.errors import ConfigError


@pytest.mark.parametrize("device", ["foo", "cuda:x", pytest.param(object(), id="object")], ids=str)
def test_what_is_no_device_is_refused(square, device):
    with pytest.raises(ConfigError, match=r"device: found .*, expected one that torch knows, such as cpu"):
        calotype.Loader(square, 2, device=device)


@pytest.mark.parametrize("device", ["cuda", "cuda:99", torch.device("cuda")], ids=str)
def test_a_gpu_that_torch_does_not_see_is_refused_with_the_reason(square, device):
    if torch.cuda.is_available() and str(device) != "cuda:99":
        pytest.skip("there is a GPU")
    sees = r"\d+ GPU" if torch.cuda.is_available() else "no GPU"
    with pytest.raises(ConfigError, match=rf"^device: found {device}, but torch sees {sees}.*: \w.{{1,150}}$"):
        calotype.Loader(square, 2, device=device)


def test_a_device_that_torch_can_not_use_here_is_refused(square):
    if torch.backends.mps.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match=r"^device: found mps, but torch can't use it: .{1,150}$"):
        calotype.Loader(square, 2, device="mps")


def test_devices_that_are_there():
    from calotype.loader.device import usable_device

    assert [str(usable_device(name)) for name in (None, "cpu", torch.device("cpu"))] == ["cpu"] * 3

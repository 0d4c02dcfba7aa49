"""The tiny captioner, trained once for all of these tests."""

import pytest
import tiny_captioners

from calotype.captioning.backend import CaptionRequest
from calotype.captioning.pictures import prepare_picture


@pytest.fixture(scope="session")
def captioner(tmp_path_factory):
    """The folder of a tiny Qwen2-VL that knows six photos."""
    return tiny_captioners.qwen2_vl(tmp_path_factory.mktemp("models") / "tiny-qwen2-vl")


@pytest.fixture(scope="session")
def requests():
    """One for each of the six photos."""
    return [
        CaptionRequest(image=prepare_picture(photo), prompt=tiny_captioners.PROMPT)
        for photo in tiny_captioners.photos()
    ]

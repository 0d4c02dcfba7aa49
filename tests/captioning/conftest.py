"""Requests about the six photos that the tiny captioner knows."""

import pytest
import tiny_captioners

from calotype.captioning.backend import CaptionRequest
from calotype.captioning.prepare_image import prepare_image


@pytest.fixture(scope="session")
def requests():
    """One for each of the six photos."""
    return [
        CaptionRequest(image=prepare_image(photo), prompt=tiny_captioners.PROMPT) for photo in tiny_captioners.photos()
    ]

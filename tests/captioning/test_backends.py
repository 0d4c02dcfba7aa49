"""What every backend promises: one test for all of them, a package's own among them."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from caption_server import completion, failure, serving
from PIL import Image

from calotype.captioning.backend import CaptionBackend, backend_names, open_backend
from calotype.errors import CaptionError, ConfigError

THIRD_PARTY = '''
from calotype.captioning.backend import CaptionAnswer


class Shapes:
    """Says how large an image is."""

    name, model, batch_size, concurrency = "shapes", "shapes@1", 4, 3

    def __init__(self, *, unit="pixels"):
        self.parameters = {"unit": unit}

    def caption(self, requests, /):
        return [self._caption(request.image) for request in requests]

    def _caption(self, image):
        if min(image.size) < 2:
            return CaptionAnswer(error="too thin to be seen", kind="refused")
        return CaptionAnswer(text=f"{image.width} by {image.height} {self.parameters['unit']}", finish_reason="stop")

    def close(self):
        pass
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a package with a backend of its own, and one that is broken."""
    (tmp_path / "shapes_captioner.py").write_text(THIRD_PARTY)
    info = tmp_path / "shapes_captioner-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shapes-captioner\nVersion: 1.0\n")
    points = "[calotype.captioners]\nshapes = shapes_captioner:Shapes\nbroken = no_such_module:Backend\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)


def tells_pictures_apart(asked):
    image = asked.image
    return failure(400, "too thin") if min(image.size) < 2 else completion(f"{image.width} by {image.height}")


@pytest.fixture(params=["http", "transformers", "shapes"])
def backend(request, package):
    if request.param == "http":
        with serving(tells_pictures_apart) as server:
            opened = open_backend("http", url=server.url, concurrency=4)
            yield opened
            opened.close()
    elif request.param == "transformers":
        opened = open_backend(
            "transformers", model=str(request.getfixturevalue("captioner")), device="cpu", batch_size=3
        )
        yield opened
        opened.close()
    else:
        yield open_backend(request.param)


def test_a_backend_keeps_the_promises_of_the_protocol(backend, requests, request):
    assert isinstance(backend, CaptionBackend)
    assert backend.name == request.node.callspec.params["backend"]
    assert isinstance(backend.model, str) and backend.model
    assert backend.batch_size >= 1 and backend.concurrency >= 1
    assert json.loads(json.dumps(dict(backend.parameters))) == dict(backend.parameters)

    assert backend.caption([]) == []
    answers = backend.caption(requests)
    assert len(answers) == len(requests)
    captions = [answer.text for answer in answers]
    assert all(caption and caption == " ".join(caption.split()) for caption in captions)
    assert len(set(captions)) > 1  # it has looked at them
    assert all(answer.error is None and answer.kind is None for answer in answers)

    # An image's answer does not depend on those beside it, nor on when or from which thread it is asked.
    assert [backend.caption([one])[0].text for one in requests] == captions
    assert [answer.text for answer in backend.caption(requests[::-1])] == captions[::-1]
    with ThreadPoolExecutor(backend.concurrency) as pool:
        size = backend.batch_size
        parts = [requests[i * size : (i + 1) * size] for i in range(math.ceil(len(requests) / size))] * 3
        found = [answer.text for part in pool.map(backend.caption, parts) for answer in part]
    assert found == captions * 3

    # One that can't be captioned costs the others nothing.
    thread = replace(requests[0], image=Image.new("RGB", (1, 2000)))
    mixed = backend.caption([requests[1], thread, requests[2]])
    assert [answer.text for answer in mixed] == [captions[1], None, captions[2]]
    assert mixed[1].error and mixed[1].kind

    backend.close()
    backend.close()


def test_the_names_there_are(package):
    assert backend_names() == ["broken", "http", "shapes", "transformers"]
    assert open_backend("shapes", unit="px", model=None).parameters == {"unit": "px"}


def test_a_name_that_there_is_not(package):
    with pytest.raises(
        ConfigError, match=r"found 'shape', which does not exist; did you mean 'shapes'.*entry point of the group"
    ):
        open_backend("shape")
    with pytest.raises(ConfigError, match="caption backend 'shapes': unknown option 'units'; did you mean 'unit'"):
        open_backend("shapes", units="px")
    with pytest.raises(CaptionError, match="shapes-captioner registers it as no_such_module:Backend"):
        open_backend("broken")

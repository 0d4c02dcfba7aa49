"""A real `transformers serve`, started as people do, against the same model in batches."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny_captioners
import urllib3

from calotype.captioning.backend import open_backend
from calotype.captioning.http_backend import API_KEY
from calotype.errors import CaptionError

TRANSFORMERS = Path(sys.executable).parent / "transformers"


@pytest.fixture(scope="module")
def served(captioner, tmp_path_factory):
    """The address of a server of the tiny captioner."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [TRANSFORMERS, "serve", captioner, "--host", "127.0.0.1", "--port", port, "--device", "cpu"]
    log = tmp_path_factory.mktemp("serve") / "log"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in [*command, "--dtype", "float32"]], stdout=output, stderr=output, env=environment
        )
    try:
        for _ in range(600):
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                urllib3.request("GET", f"http://127.0.0.1:{port}/health", retries=False, timeout=1.0)
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()  # there is nothing for it to save
        process.wait()


def test_the_same_captions_from_a_server_and_in_batches(served, captioner, requests, monkeypatch):
    monkeypatch.delenv(API_KEY, raising=False)
    local = open_backend("transformers", model=str(captioner), device="cpu", batch_size=4)
    batched = [answer.text for answer in local.caption(requests)]
    local.close()
    assert batched == list(tiny_captioners.CAPTIONS.values())

    # PNG, so that the server sees the very same pixels.
    remote = open_backend("http", url=served, model=str(captioner), image_format="png", concurrency=3)
    with ThreadPoolExecutor(remote.concurrency) as pool:
        answers = [answer for found in pool.map(lambda one: remote.caption([one]), requests) for answer in found]
    remote.close()
    assert [answer.text for answer in answers] == batched
    assert {answer.finish_reason for answer in answers} == {"stop"}


def test_a_cut_off_answer_is_told_by_the_server_too(served, captioner, requests):
    remote = open_backend("http", url=served, model=str(captioner), max_tokens=3)
    answers = remote.caption(requests[1:3])
    remote.close()
    assert answers[0].text == tiny_captioners.CAPTIONS["chelsea.png"]  # with twelve tokens, the second time
    assert (answers[1].text, answers[1].kind) == (None, "cut_off")


def test_another_model_than_the_server_has(served, requests):
    remote = open_backend("http", url=served, model="owner/other-vl")
    with pytest.raises(
        CaptionError, match=r"the requested model is 'owner/other-vl', and the server (lists|does not list)"
    ):
        remote.caption(requests[:1])
    remote.close()

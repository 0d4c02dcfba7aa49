"""Tokenizers by hub name: the local cache first, then a download of their own files; and what the hub's refusals say.

The hub is a small HTTP server on loopback that answers as huggingface.co does; huggingface_hub itself is the real one,
in a process of its own, since it reads its address and its cache's place when it is imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """One repository, `owner/model`, with a pipeline's files; `gated/model` wants a log-in; no other exists."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = files
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(path)
        if "gated/model" in path:
            message = "Access to model gated/model is restricted. You must have access to it and be authenticated."
            return self.answer(401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": message})
        if path.startswith("/api/models/owner/model/tree/"):
            return self.answer(200, json.dumps([self.entry(name) for name in self.server.files]).encode())
        if path.startswith("/api/models/owner/model"):
            siblings = [{"rfilename": name} for name in self.server.files]
            return self.answer(200, json.dumps({"id": "owner/model", "sha": COMMIT, "siblings": siblings}).encode())
        name = path.removeprefix(f"/owner/model/resolve/{COMMIT}/")
        if name in self.server.files:
            return self.answer(200, self.server.files[name], {"ETag": f'"{self.entry(name)["oid"]}"'})
        return self.answer(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})

    do_HEAD = do_GET

    def entry(self, name: str) -> dict[str, object]:
        data = self.server.files[name]
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(folder) -> Iterator[Hub]:
    files = {"model_index.json": b"{}", "transformer/diffusion_pytorch_model.safetensors": b"gigabytes"}
    for place, name in (("tokenizer", "clip_l"), ("tokenizer_2", "t5")):
        files |= {f"{place}/{file.name}": file.read_bytes() for file in folder(name).iterdir()}
    server = Hub(files)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def run(program: str, home: Path, hub: Hub | None) -> str:
    """What `program` prints, with the hub at that address, or (None) with no way to it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"HF_ENDPOINT": hub.url} if hub is not None else {"HF_HUB_OFFLINE": "1"}
    program = (
        "from calotype.errors import ConfigError, MissingTokenizerError\n"
        "from calotype.models import build_model_transform, load_tokenizer\n"
        f"{program}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(call: str, home: Path, hub: Hub | None) -> str:
    """The message of the MissingTokenizerError that `call` raises."""
    return run(f"try:\n    {call}\n    print('no error')\nexcept MissingTokenizerError as e:\n    print(e)", home, hub)


CAT = "print(load_tokenizer('owner/model:tokenizer_2', kind='t5')('cat', 4))"


def test_a_download_brings_only_the_tokenizer_and_the_next_needs_no_hub(hub, tmp_path):
    assert run(CAT, tmp_path, hub) == "[1712, 1, 0, 0]\n"
    fetched = {path.removeprefix(f"/owner/model/resolve/{COMMIT}/") for path in hub.asked if "/resolve/" in path}
    assert "tokenizer_2/tokenizer.json" in fetched
    assert {name.split("/")[0] for name in fetched} == {"tokenizer_2"}
    hub.asked.clear()
    assert run(CAT, tmp_path, hub) == "[1712, 1, 0, 0]\n"
    assert hub.asked == []
    assert run(CAT, tmp_path, None) == "[1712, 1, 0, 0]\n"


def test_subfolder_as_an_argument(hub, tmp_path):
    program = "print(load_tokenizer('owner/model', kind='clip', subfolder='tokenizer')('cat', 4))"
    assert run(program, tmp_path, hub) == "[49406, 2368, 49407, 49407]\n"


def test_a_repository_laid_out_as_the_pipeline(hub, tmp_path):
    program = "print(build_model_transform('flux.1-schnell', tokenizers='owner/model'))"
    assert run(program, tmp_path, hub) == "FluxTransform(clip_text_tokens=77, t5_text_tokens=256)\n"


@pytest.mark.parametrize(
    ("model", "repository"),
    [
        ("sd-1.5", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("runwayml/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5"),
    ],
)
def test_the_models_own_repository_in_the_cache(folder, tmp_path, model, repository):
    """As `hf download` leaves it; the name that the user gave is the one looked for."""
    cache = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(COMMIT)
    (cache / "snapshots" / COMMIT).mkdir(parents=True)
    (cache / "snapshots" / COMMIT / "tokenizer").symlink_to(folder("sd15_clip_l"))
    assert run(f"print(build_model_transform('{model}'))", tmp_path, None) == "SD15Transform(clip_text_tokens=77)\n"


def test_a_cached_repository_without_its_tokenizer_is_not_taken_for_one(hub, tmp_path):
    assert run("print(load_tokenizer('owner/model:tokenizer', kind='clip').eos_id)", tmp_path, hub) == "49407\n"
    assert run(CAT, tmp_path, hub) == "[1712, 1, 0, 0]\n"


def test_without_a_connection(tmp_path):
    message = refusal("build_model_transform('flux.1-dev')", tmp_path, None)
    assert message.startswith("the tokenizer 'black-forest-labs/FLUX.1-dev:tokenizer' could not be had")
    assert 'hf download black-forest-labs/FLUX.1-dev --include "tokenizer/*" --local-dir FOLDER' in message
    assert "hf auth login" in message and "local folder" in message


def test_gated(hub, tmp_path):
    message = refusal("load_tokenizer('gated/model:tokenizer', kind='clip')", tmp_path, hub)
    assert "GatedRepoError" in message and "accept its terms on its page and run `hf auth login`" in message


def test_no_such_repository_is_also_no_such_folder(hub, tmp_path):
    message = refusal("load_tokenizer('tokenizers/flux', kind='clip')", tmp_path, hub)
    assert "RepositoryNotFoundError" in message and "there is no local folder 'tokenizers/flux'" in message


def test_no_such_subfolder(hub, tmp_path):
    message = refusal("load_tokenizer('owner/model:tokenizer_9', kind='clip')", tmp_path, hub)
    assert (
        "'owner/model' holds none of tokenizer.json, vocab.json, merges.txt, spiece.model in 'tokenizer_9'" in message
    )
    message = refusal("load_tokenizer('owner/model', kind='clip')", tmp_path, hub)
    assert "in its top folder; name the subfolder: 'owner/name:subfolder'" in message


def test_without_huggingface_hub(tmp_path):
    program = "import sys\nsys.modules['huggingface_hub'] = None\n"
    program += "try:\n    load_tokenizer('owner/model:tokenizer', kind='clip')\nexcept ConfigError as e:\n    print(e)"
    message = run(program, tmp_path, None)
    assert "huggingface_hub that fetches it is not installed: pip install 'calotype[hub]'" in message
    assert "or give any local folder" in message

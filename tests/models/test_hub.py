"""Tokenizers by hub name: the local cache first, then a download of their own files; and what the hub refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import loopback_hub
import pytest
from loopback_hub import COMMIT, Hub, serving

from calotype.errors import install_command

pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(folder) -> Iterator[Hub]:
    files = {"model_index.json": b"{}", "transformer/diffusion_pytorch_model.safetensors": b"gigabytes"}
    for place, name in (("tokenizer", "clip_l"), ("tokenizer_2", "t5")):
        files |= {f"{place}/{file.name}": file.read_bytes() for file in folder(name).iterdir()}
    with serving(files) as server:
        yield server


def run(program: str, home: Path, hub: Hub | None) -> str:
    """What `program` prints, with the hub at that address, or (None) with no way to it."""
    imports = (
        "from calotype.errors import ConfigError, MissingTokenizerError\n"
        "from calotype.models import build_model_transform, load_tokenizer\n"
    )
    return loopback_hub.run(imports + program, home, hub)


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
    assert 'hf download black-forest-labs/FLUX.1-dev --include "tokenizer*/*" --local-dir FOLDER' in message
    assert "(no connection)" in message and "hf auth login" in message and "then tokenizers: FOLDER" in message
    assert len(message) < 300


def test_gated(hub, tmp_path):
    message = refusal("load_tokenizer('gated/model:tokenizer', kind='clip')", tmp_path, hub)
    assert "(GatedRepoError: accept its terms on https://huggingface.co/gated/model)" in message
    assert "`hf auth login` first" in message


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
    assert f"huggingface_hub that fetches it is not installed: {install_command('hub')}. " in message
    assert "then tokenizers: FOLDER" in message and len(message) < 400

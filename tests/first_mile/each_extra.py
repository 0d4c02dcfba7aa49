"""The wheel with each extra that runs models, and the command that needs it: by `make check`, not by `make test`."""

import re
import signal

import pytest
import tiny_captioners


@pytest.fixture(scope="module", autouse=True)
def _captioner(home):
    tiny_captioners.smolvlm(home / "captioner")


@pytest.mark.parametrize(
    ("command", "extra", "made"),
    [
        ("encode photos.yaml", "diffusers", "store"),
        ("train photos.yaml", "train", "lora/pytorch_lora_weights.safetensors"),
        ("caption photos --model captioner --dry-run 1 --max-tokens 4", "caption", ""),
        ("distill distill.yaml", "distill", "distilled"),
        ("demo", "demo", "demo/preview.html"),
    ],
)
def test_with_its_extra_alone_a_command_works(installed, home, command, extra, made):
    installed.calotype(*command.split(), extras=(extra,), folder=home)
    assert (home / made).exists()


def test_an_encoding_of_two_extras_runs_on_ray(installed, home):
    installed.calotype("encode", "photos.yaml", "--engine", "ray", extras=("diffusers", "ray"), folder=home)


def test_the_studio_serves_until_it_is_stopped(installed, home):
    process = installed.start("calotype", "studio", "photos", "--no-open", extras=("studio",), folder=home)
    for line in process.stdout:
        if re.search(r"http://127\.0\.0\.1:\d+", line):
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (0, 130) and "Traceback" not in said, said

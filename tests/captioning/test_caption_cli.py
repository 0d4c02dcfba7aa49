"""The command `calotype caption`: what it prints, and its exit status."""

import json
import shutil
import sys

import pytest
from caption_server import completion, failure, serving
from PIL import Image

from calotype.cli import main
from calotype.errors import CaptionError


@pytest.fixture
def folder(tmp_path, skimage_data):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("chelsea.png", "coffee.png", "rocket.jpg"):
        with Image.open(skimage_data / name) as photo:
            photo.convert("RGB").resize((90, 60)).save(folder / name)
    return folder


@pytest.fixture
def caption(monkeypatch, capsys):
    """Runs the command; (exit status, what it printed, what it said on standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["calotype", "caption", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        return exit.value.code, *capsys.readouterr()

    return run


def numbered(asked):
    return completion(f"This image shows something {asked.image.getpixel((0, 0))}, seed {asked.body.get('seed')}")


def test_a_folder_becomes_a_dataset(folder, caption):
    with serving(numbered) as server:
        status, said, _ = caption(folder, "--url", server.url, "--preset", "short", "--trigger", "ohwx")
        assert status == 0 and said.startswith("Captioned 3 of 3 images in ") and "with tiny-vl: 3 answers" in said
        assert "it begins with 'This image shows'" in said
        assert len((folder / "metadata.jsonl").read_text().splitlines()) == 3
        status, said, _ = caption(folder, "--url", server.url, "--preset", "short")
        assert status == 0 and said.startswith("Nothing to caption: 3 images")
        status, said, _ = caption(
            folder,
            "--url",
            server.url,
            "--preset",
            "short",
            "--preset",
            "tags",
            "--n",
            4,
            "--mode",
            "add",
            "--sidecars",
        )
        assert status == 0 and "12 answers" in said and "As it was before: " in said and ".calotype" in said
        assert {asked.body["temperature"] for asked in server.asked[3:]} == {0.7}
    assert len((folder / "coffee.txt").read_text().splitlines()) == 3  # a seed each; equal ones come once


def test_a_dry_run_shows_captions(folder, caption):
    with serving() as server:
        status, said, _ = caption(folder, "--url", server.url, "--dry-run", 2)
    assert status == 0 and said.startswith("chelsea.png\n    ") and "coffee.png\n" in said and "rocket" not in said
    assert said.endswith("Nothing was written. tiny-vl answered 2 times, 0 failed.\n")
    assert not (folder / "metadata.jsonl").exists() and not (folder / ".calotype").exists()


def test_failures_are_named_and_the_status_says_so(folder, caption):
    (folder / "rocket.jpg").write_bytes(b"")
    with serving(lambda asked: failure(400, "no such image")) as server:
        status, said, _ = caption(folder, "--url", server.url)
        assert status == 1 and "0 answers" not in said and "3 failed" in said
        assert "Failed: rocket.jpg: " in said and "Failed: coffee.png: " in said
        status, said, _ = caption(folder, "--url", server.url)
        assert status == 1 and "(in an earlier run; --retry-failed asks again)" in said
        server.respond = numbered
        status, said, _ = caption(folder, "--url", server.url, "--retry-failed", "--json")
    document = json.loads(said)
    assert status == 1 and (document["written"], document["failed"]) == (2, 1)
    assert document["failures"][0]["id"] == "rocket.jpg" and document["lints"]


def test_a_person_s_captions_are_kept_and_it_says_so(folder, caption):
    (folder / "coffee.txt").write_text("mine")
    with serving(numbered) as server:
        status, said, _ = caption(folder, "--url", server.url, "--mode", "replace")
        assert status == 0 and "1 with captions by a person were kept (--force replaces them)" in said
        assert (folder / "coffee.txt").read_text() == "mine"
        caption(folder, "--url", server.url, "--mode", "replace", "--force")
    assert (folder / "coffee.txt").read_text().startswith("This image shows")


def test_captions_are_seen_whatever_their_files_are_called_and_what_is_not_read_is_named(folder, caption, caplog):
    (folder / "coffee.TXT").write_text("a cup")
    (folder / "rocket.jpg.json").write_text('{"caption": "a rocket"}')
    (folder / "chelsea.tags").write_text("cat")
    with serving(numbered) as server:
        status, said, _ = caption(folder, "--url", server.url, "--preset", "short")
        assert status == 0 and said.startswith("Captioned 1 of 3 images in ")
        assert "chelsea.tags: files of the suffix .tags beside images are not read; caption_suffix=.tags" in caplog.text
        caption(folder, "--url", server.url, "--preset", "short", "--mode", "replace", "--force")
    assert (folder / "coffee.TXT").read_text().startswith("This image shows") and not (folder / "coffee.txt").exists()
    assert (folder / "rocket.jpg.json").read_text() == '{"caption": "a rocket"}'
    assert (folder / "rocket.txt").read_text().startswith("This image shows")


def test_wrong_use(folder, caption, tmp_path):
    with serving() as server:
        url = server.url
        for arguments, complaint in (
            ([folder, "--backend", "htpt"], "did you mean 'http'"),
            ([folder, "--url", url, "--preset", "shrt"], "did you mean 'short'"),
            ([folder, "--backend", "transformers", "--url", url], "unknown option 'url'"),
            ([folder, "--model", "m", "--option", "concurrency=2"], "unknown option 'concurrency'"),
            ([folder, "--model", "m", "--option", "retries=2"], "unknown option 'retries'"),
            ([folder, "--url", url, "--option", f"url={url}"], "--option: url is given twice"),
            ([folder, "--url", url, "-o", "top_p=0.5", "-o", "top_p=0.9"], "--option: top_p is given twice"),
            ([folder, "--url", url, "--dry-run", 1, "--trigger", "x"], "--trigger: has no effect with --dry-run"),
            ([folder, "--url", url, "--force"], "force: has no effect"),
            ([tmp_path / "nothing", "--url", url], "no such file or folder"),
            ([folder, "--url", url, "--n", "2", "--temperature", "0"], "would be the same again"),
            ([folder, "--url", url, "--option", "conurrency=2"], "did you mean 'concurrency'"),
            ([folder, "--url", url, "--option", "concurrency"], "key=value was expected"),
            ([folder, "--url", url, "--option", "only=[a.jpg]"], "with an option of the backend, found 'only"),
        ):
            status, _, complained = caption(*arguments)
            assert status == 2 and complaint in complained, arguments
    shutil.move(folder / "coffee.png", tmp_path / "coffee.png")
    status, _, complained = caption(folder, "--url", url)
    assert status == 1 and "calotype: " in complained and "Traceback" not in complained


def test_any_option_of_a_backend(folder, caption):
    with serving() as server:
        thinking = "extra.chat_template_kwargs.enable_thinking=false"
        status, _, _ = caption(folder, "--url", server.url, "-o", "image_format=png", "-o", "top_p=0.5", "-o", thinking)
        assert status == 0
        body = server.asked[0].body
        assert (body["top_p"], body["chat_template_kwargs"]) == (0.5, {"enable_thinking": False})
        assert server.asked[0].image.format == "PNG"
        for pair, said in [
            ("concurency=4", "did you mean 'concurrency'"),
            ("png", "found 'png'"),
            ("n=4", "found 'n=4'"),
        ]:
            status, _, error = caption(folder, "--url", server.url, "-o", pair)
            assert status == 2 and said in error


def test_auto_says_which_model_it_is_and_why(folder, caption, monkeypatch):
    def opened(name, **options):
        raise CaptionError(f"{name} was asked for {options['model']}")

    monkeypatch.setattr("calotype.captioning.command.open_backend", opened)
    status, _, error = caption(folder, "-o", "device=cpu")
    assert status == 1
    assert error.startswith("auto: HuggingFaceTB/SmolVLM-") and "GiB, and cpu has" in error
    assert "transformers was asked for HuggingFaceTB/SmolVLM-" in error

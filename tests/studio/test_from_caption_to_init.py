"""The documented way: `calotype caption`, `calotype studio`, `calotype init`, with the captions of our own preset."""

import re
import sys

from caption_server import completion, serving
from studio_client import reviewing

from calotype import SampleKey
from calotype.cli import main
from calotype.config import build_dataset, load_config


def test_captions_that_wait_for_a_trigger_are_reviewed_and_become_a_config(folder, tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["calotype", *map(str, arguments)])
        try:
            main()
        except SystemExit as exit:
            assert not exit.code, capsys.readouterr().err
        return capsys.readouterr().out

    for file in folder.glob("*.txt"):
        file.unlink()
    with serving(lambda asked: completion(f"{{trigger}} laughs, {asked.image.width} wide")) as server:
        preset = ("--preset", "subject", "--class-word", "woman")
        assert "Captioned 5 of 5" in run("caption", folder, "--url", server.url, *preset)

    with reviewing(folder) as client:
        row = client.row("chelsea.png")
        assert re.fullmatch(r"\{trigger\} laughs, \d+ wide", row["captions"][0])
        options = client.read("augment")
        assert options["caption_transform"] == {}
        for transform in ({}, {"shuffle_parts": 1.0}, {"trigger": "ohwx"}):
            drawn = client.do("augment/draw", n=row["n"], epochs=[0], img_transform={}, caption_transform=transform)
            text = drawn["draws"][0]["caption"]["text"]
            assert ("ohwx" if "trigger" in transform else "{trigger}") in text
        client.edit("chelsea.png", "{trigger} at a table")
        assert len(client.studio.source.manifest().ledger) == 0

    config = tmp_path / "photos.yaml"
    run("init", folder, "--model", "sdxl", "--trigger", "cpelletier", "-o", config)
    tokens = {"_component_": "calotype.PixelsTransform"}
    dataset = build_dataset(load_config(str(config)) | {"tokenizer": tokens})
    program = dataset.caption_transform.without_dropping()
    texts = {program.draw(row.captions, SampleKey(0), 0).text for row in dataset.manifest}
    assert "cpelletier at a table" in texts and len(texts) == 5
    assert all(text.count("cpelletier") == 1 and "{" not in text for text in texts)

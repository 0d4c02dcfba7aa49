"""The depth of JSON is looked at before a parser follows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calotype.errors import ManifestError
from calotype.manifest.load import load_manifest
from calotype.manifest.strict_json import MAX_DEPTH, has_deep_rows, loads

DEEPEST = '{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH


@pytest.mark.parametrize(
    "text",
    [
        DEEPEST,
        f"[{'[' * (MAX_DEPTH - 1)}{']' * (MAX_DEPTH - 1)}, []]",
        json.dumps({"text": "[" * 90}),
        json.dumps({"text": '\\"' + "{" * 90}),
        json.dumps({"text": "\\" * 5, "b": ["["] * 90}),
        json.dumps([{"tags": [["a"], ["b"]]}] * 90, indent=1),
    ],
)
def test_brackets_that_do_not_nest_deeply_are_read_as_json_reads_them(text: str, tmp_path: Path) -> None:
    assert loads(text) == loads(text.encode()) == json.loads(text)
    (tmp_path / "a.jsonl").write_text(f"{text}\n" * 3)
    assert not has_deep_rows(tmp_path / "a.jsonl")


@pytest.mark.parametrize("text", ["[" * 200_000, f"[{DEEPEST}]", '{"text": "}}}}",\n "é": ' + DEEPEST + "}"])
def test_deep_nesting_is_an_error_with_its_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(json.JSONDecodeError, match="nested deeper than 32 levels") as caught:
        loads(text)
    assert caught.value.lineno == 1 + text.count("\n")
    (tmp_path / "a.jsonl").write_text('{"image": "a.jpg"}\n' * 3 + text)
    assert has_deep_rows(tmp_path / "a.jsonl")


def test_depth_that_builds_up_over_lines_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"image":"a.jpg"}\n\n{"b":2}\r\n' + '{"a":\n' * (MAX_DEPTH + 1))
    assert has_deep_rows(file)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_deep_data_file_is_named_with_its_line(name: str, tmp_path: Path) -> None:
    row = '{"image": "a.jpg", "caption": "a", "deep": %s}'
    (tmp_path / name).write_text(row % 1 + "\n" + row % ("[" * 100_000 + "]" * 100_000) + "\n")
    with pytest.raises(ManifestError, match=rf"{name}:2: not valid JSON: nested deeper than 32 levels \(column 75\)"):
        load_manifest(tmp_path / name)
    assert len(load_manifest(tmp_path / name, on_error="skip")) == 1

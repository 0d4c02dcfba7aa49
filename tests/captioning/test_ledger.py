"""The ledger of captions: nothing that was answered is lost, whatever happens to whoever writes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from calotype.captioning.ledger import CaptionLedger, LedgerEntry, ledger_folder
from calotype.errors import EditError


def answer(key, text="a cat", **others):
    given = {
        "picture": "p",
        "recipe": "r",
        "id": "a.jpg",
        "backend": "http",
        "model": "m",
        "preset": "short",
        "seed": 0,
    }
    return LedgerEntry(key=key, text=text, **given | others)


def failed(key, **others):
    return answer(key, None, error="no answer came", kind="timeout", **others)


def test_answers_are_found_by_key_and_by_picture(tmp_path):
    ledger = CaptionLedger(tmp_path)
    ledger.append(answer("1"))
    ledger.append(answer("2", "zwei Kätzchen {trigger}\u2028\ud800", picture="q"))
    ledger.append(failed("3"))
    for known in (ledger, CaptionLedger(tmp_path)):
        assert known.get("1") == answer("1") and known.get("2").text == "zwei Kätzchen {trigger}\u2028\ud800"
        assert known.get("3").kind == "timeout" and known.get("4") is None
        assert [one.text for one in known.captions("p")] == ["a cat"] and known.captions("nothing") == []


def test_a_caption_outlives_failures_and_the_last_failure_counts(tmp_path):
    ledger = CaptionLedger(tmp_path)
    for one in (
        failed("1", at=1.0),
        answer("1", at=2.0),
        failed("1", at=3.0),
        failed("2", at=2.0),
        failed("2", at=1.0),
    ):
        ledger.append(one)
    for known in (ledger, CaptionLedger(tmp_path)):
        assert known.get("1").text == "a cat" and known.get("2").at == 2.0


def test_a_torn_line_costs_only_itself(tmp_path):
    ledger = CaptionLedger(tmp_path)
    ledger.append(answer("1")), ledger.append(answer("2"))
    (part,) = ledger_folder(tmp_path).iterdir()
    part.write_bytes(part.read_bytes()[:-20])
    assert (CaptionLedger(tmp_path).get("1"), CaptionLedger(tmp_path).get("2")) == (answer("1"), None)
    ledger.close()
    again = CaptionLedger(tmp_path)
    again.append(answer("3"))
    again.close()
    assert [one is not None for one in map(CaptionLedger(tmp_path).get, "123")] == [True, False, True]
    (whole,) = ledger_folder(tmp_path).iterdir()
    assert [json.loads(line)["key"] for line in whole.read_text().splitlines() if line] == ["1", "3"]


def test_an_unfinished_merge_costs_nothing(tmp_path):
    ledger = CaptionLedger(tmp_path)
    ledger.append(answer("1"))
    whole = ledger_folder(tmp_path) / "ledger.jsonl"
    whole.write_text('{"key": "0", "pict')
    ledger.close()
    assert CaptionLedger(tmp_path).get("1") == answer("1")


def test_a_part_is_deleted_when_what_it_held_is_on_the_disk(tmp_path, monkeypatch):
    events, fsync, unlink = [], os.fsync, Path.unlink
    name = lambda file: Path(os.readlink(f"/proc/self/fd/{file}")).name  # noqa: E731
    monkeypatch.setattr(os, "fsync", lambda file: (events.append(name(file)), fsync(file)))
    monkeypatch.setattr(Path, "unlink", lambda path: (events.append(path.name), unlink(path)))
    ledger = CaptionLedger(tmp_path)
    ledger.append(answer("1"))
    (part,) = ledger_folder(tmp_path).iterdir()
    ledger.close()
    assert events == [part.name, "ledger.jsonl", part.name]


def test_what_a_newer_version_adds_is_passed_over(tmp_path):
    ledger_folder(tmp_path).mkdir(parents=True)
    line = {**{name: getattr(answer("1"), name) for name in ("key", "picture", "recipe", "id")}, "new": [1]}
    line |= {"backend": "http", "model": "m", "preset": "short", "seed": 0, "text": "a cat"}
    (ledger_folder(tmp_path) / "ledger.jsonl").write_text(f'{json.dumps(line)}\n[1]\n"text"\n{{}}\n')
    assert CaptionLedger(tmp_path).get("1") == answer("1")


WRITER = """
import sys, time
from pathlib import Path
from calotype.captioning.ledger import LedgerEntry, CaptionLedger
ledger = CaptionLedger(Path(sys.argv[1]))
for number in range(10**9):
    ledger.append(LedgerEntry(key=f"{sys.argv[2]}{number}", picture="p", recipe="r", id="a", backend="b", model="m",
                         preset="s", seed=0, text="x" * 5000))
    print(number, flush=True)
"""


def test_two_that_write_at_once_and_are_killed_lose_nothing(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), who], stdout=subprocess.PIPE, text=True)
        for who in "ab"
    ]
    for writer in writers:
        while writer.stdout.readline() != "5\n":
            pass
    one = CaptionLedger(tmp_path)
    one.append(answer("mine"))
    one.close()  # merges its own part, and leaves those of whoever still writes
    assert len(list(ledger_folder(tmp_path).iterdir())) == 3
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
    said = {who: writer.communicate()[0].split() for who, writer in zip("ab", writers, strict=True)}
    CaptionLedger(tmp_path).close()
    assert [file.name for file in ledger_folder(tmp_path).iterdir()] == ["ledger.jsonl"]
    known = CaptionLedger(tmp_path)
    assert known.get("mine") is not None
    for who, numbers in said.items():
        assert all(known.get(f"{who}{number}") is not None for number in ["0", "5", *numbers])


def test_a_folder_that_can_t_be_written(tmp_path):
    (tmp_path / ".calotype").write_text("in the way")
    with pytest.raises(Exception, match=r"\.calotype: the folder can't be made"):
        CaptionLedger(tmp_path).append(answer("1"))


POISON = {
    "key is [1]": {"key": [1]},
    "image is {}": {"picture": {}},
    "text is a number": {"text": 7},
    "seed is true": {"seed": True},
    "at is a text": {"at": "now"},
    "at is not a number": {"at": float("nan")},
    "at is endless": {"at": float("inf")},
    "id is missing": {"id": None},
}


@pytest.mark.parametrize("poison", [*POISON, "deep", "a number", "odd bytes", "control characters"])
def test_a_line_that_is_no_answer_is_passed_over_and_named(tmp_path, poison, caplog):
    good = {name: value for name, value in asdict(answer("1")).items() if value is not None}
    bad = {
        "deep": b"[" * 100_000,
        "a number": b"7",
        "odd bytes": b"\xff\xfe{",
        "control characters": json.dumps(good | {"key": 5, "id": "\x1b]0;"}).encode(),
    }.get(poison) or json.dumps(good | POISON[poison]).encode()
    folder = ledger_folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "ledger.jsonl").write_bytes(json.dumps(good).encode() + b"\n" + bad + b"\n")
    ledger = CaptionLedger(tmp_path)
    ledger.refresh()
    assert len(ledger) == 1 and ledger.get("1") == answer("1")
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith(f"{folder / 'ledger.jsonl'}: 1 of 2 lines are not valid entries and are skipped (line 2: ")
    assert len(said) < 400 and said.isprintable()
    ledger.append(answer("2"))
    ledger.close()
    assert CaptionLedger(tmp_path).get("2") == answer("2")


@pytest.mark.parametrize("link", [".calotype", ".calotype/captions", ".calotype/captions/ledger.jsonl"])
def test_answers_are_not_written_through_a_link(tmp_path, tmp_path_factory, link, caplog):
    outside = tmp_path_factory.mktemp("outside")
    victim = outside / "victim"
    victim.write_text("mine\n")
    place = tmp_path / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(victim if link.endswith(".jsonl") else outside)
    ledger = CaptionLedger(tmp_path)
    if link.endswith(".jsonl"):
        ledger.append(answer("1"))
        ledger.close()
        assert CaptionLedger(tmp_path).get("1") == answer("1")  # it stays in a part
        assert "ledger.jsonl: it is a link" in caplog.text
    else:
        with pytest.raises(EditError, match="it is a link"):
            ledger.append(answer("1"))
        (outside / "captions").mkdir()
        (outside / "captions" / "part.jsonl").write_text("{}\n")
        (outside / "part.jsonl").write_text("{}\n")
        ledger.close()  # merges nothing there
        shutil.rmtree(outside / "captions")
        (outside / "part.jsonl").unlink()
    assert victim.read_text() == "mine\n" and [path.name for path in outside.iterdir()] == ["victim"]


def test_a_pipe_among_the_parts_makes_nobody_wait(tmp_path):
    ledger_folder(tmp_path).mkdir(parents=True)
    os.mkfifo(ledger_folder(tmp_path) / "part.jsonl")
    ledger = CaptionLedger(tmp_path)
    ledger.append(answer("1"))
    ledger.close()
    assert CaptionLedger(tmp_path).get("1") == answer("1")

"""The ledger of captions: nothing that was answered is lost, whatever happens to whoever writes."""

import json
import os
import signal
import subprocess
import sys

import pytest

from calotype.captioning.ledger import Answer, CaptionLedger, ledger_folder


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
    return Answer(key=key, text=text, **given | others)


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


def test_what_a_newer_version_adds_is_passed_over(tmp_path):
    ledger_folder(tmp_path).mkdir(parents=True)
    line = {**{name: getattr(answer("1"), name) for name in ("key", "picture", "recipe", "id")}, "new": [1]}
    line |= {"backend": "http", "model": "m", "preset": "short", "seed": 0, "text": "a cat"}
    (ledger_folder(tmp_path) / "ledger.jsonl").write_text(f'{json.dumps(line)}\n[1]\n"text"\n{{}}\n')
    assert CaptionLedger(tmp_path).get("1") == answer("1")


WRITER = """
import sys, time
from pathlib import Path
from calotype.captioning.ledger import Answer, CaptionLedger
ledger = CaptionLedger(Path(sys.argv[1]))
for number in range(10**9):
    ledger.append(Answer(key=f"{sys.argv[2]}{number}", picture="p", recipe="r", id="a", backend="b", model="m",
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
    with pytest.raises(Exception, match="the ledger of captions can't be"):
        CaptionLedger(tmp_path).append(answer("1"))

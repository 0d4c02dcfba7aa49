"""Progress: what a person reads while waiting, in a terminal and in a pipe."""

from __future__ import annotations

import re
import time

import pytest

from calotype import progress
from calotype.progress import Pace, count_failure, track


class Clock:
    """`time.monotonic` at a time of the test's choice."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def paced(*phases, step=0.1):
    """A pace after phases of (seconds, items per second)."""
    pace, now, done = Pace(0.0), 0.0, 0.0
    for seconds, rate in phases:
        end = now + seconds
        while now < end:
            now += max(step, 1 / rate)
            done += max(step, 1 / rate) * rate
            pace.add(now, round(done))
    return pace, round(done), now


@pytest.mark.parametrize(
    "phases",
    [
        [(30, 500)],
        [(2, 50_000), (7, 10)],  # half of it came from a cache
        [(60, 500), (8, 5)],  # the server became slow
        [(60, 5), (8, 500)],
        [(300, 0.025)],  # one in 40 seconds
        [(0.2, 100_000), (6, 300)],
        [(0.3, 1_000_000), (4, 10)],
    ],
)
def test_the_time_left_follows_the_current_rate(phases):
    pace, done, now = paced(*phases)
    rate = phases[-1][1]
    left = pace.left(done + 1000, now)
    assert left is not None and 0.7 < left / (1000 / rate) < 1.5
    assert pace.rate == pytest.approx(rate, rel=0.4)


def test_nothing_is_said_before_it_is_known():
    pace = Pace(0.0)
    assert (pace.rate, pace.left(10, 0.0)) == (None, None)
    pace.add(1.0, 5)
    assert pace.rate == 5 and pace.left(10, 1.0) is None


def test_a_long_wait_for_the_first_item_does_not_count():
    """A model is loaded for a minute, then two captions come a second."""
    pace = Pace(0.0)
    for item in range(8):
        pace.add(60 + item / 2, item + 1)
    assert pace.left(1008, 63.5) == pytest.approx(500)


def test_while_nothing_comes_the_time_left_grows():
    """The last images wait for a host that does not answer."""
    pace, done, now = paced((30, 500))
    assert pace.left(done + 2, now) < 0.1
    assert pace.left(done + 2, now + 30) == pytest.approx(30, abs=0.2)


def test_work_in_chunks_is_averaged():
    pace = Pace(0.0)
    for chunk in range(1, 20):
        pace.add(4.0 * chunk, 1000 * chunk)
    assert pace.rate == pytest.approx(250) and pace.left(20_000, 76.0) == pytest.approx(4)


def test_a_pipe_gets_a_line_now_and_then(clock, capsys):
    with track("reading headers") as show:
        for second in range(1, 42):
            clock.now += 1
            if second % 10 == 0:
                count_failure("404")
                count_failure("time\x1bout")
            show(second * 100, 147_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "reading headers: 1,000/147,000 images, 100/s, 24 min left; 2 failed: 1 × 404, 1 × time\\x1bout"
    assert lines[3].startswith("reading headers: 4,000/147,000 images, 100/s, ") and len(lines) == 4


def test_bytes_are_in_units(clock, capsys):
    with track("verifying", unit="bytes") as show:
        clock.now += 12
        show(3_000_000_000, 90_000_000_000)
    assert capsys.readouterr().err == "verifying: 3.0 GB of 90.0 GB, 250 MB/s, 5 min 48 s left\n"


def test_many_kinds_of_failure_fit_a_line(clock, capsys):
    with track("fetching") as show:
        for kind in range(10):
            for _ in range(10 - kind):
                count_failure(str(400 + kind))
        clock.now += 11
        show(100, 200)
    count_failure("of nothing that is shown")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; 55 failed: 10 × 400, 9 × 401, 8 × 402, 7 × 403, 21 others")


def test_a_wait_for_the_first_item_is_shown(clock, capsys, monkeypatch):
    for name, value in {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    for seconds in (0.5, 1.5):
        with track("loading the encoders") as show:
            show(0, 10)
            clock.now += seconds
            time.sleep(0.2)  # the screen is drawn ten times a second
        assert ("loading the encoders" in capsys.readouterr().err) == (seconds > 1)


def test_a_terminal_has_a_bar_that_fits(clock, capsys, monkeypatch):
    for name, value in {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    with track("reading headers of all the images") as show:
        for _ in range(60):
            clock.now += 0.5
            count_failure("404")
            show(round(clock.now * 100) - 10_000, 147_000)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert max(map(len, lines)) <= 80
    assert any(re.search(r"3,000/147,000 images, 100/s, 24 min left$", line) for line in lines)
    assert "  60 failed: 60 × 404" in lines

"""Text from data on its way to a terminal: no character of it acts there, whichever command prints it."""

import io
import json
import logging
import os
import re
import sys

import pytest
from caption_server import completion, failure, serving
from PIL import Image

from calotype import terminal
from calotype.cli import info, main
from calotype.loader.summary import Summary
from calotype.progress import track
from calotype.terminal import size_text, time_text

RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What must not reach a terminal; line feeds are looked at by `FORGED`."""

HOSTILE = (
    "x\x1b]52;c;ZXZpbA==\x07",  # writes the clipboard
    "y\nresult: clean",  # forges a line
    "z\x9b2J",  # clears the screen, as a C1 control
    "u\u202egnp.exe",  # reads backwards
    "v\u2028w\x7f\x08",
    "[red]m[/red] :bomb:",  # rich's markup
)
FORGED = re.compile(r"^\s*result: clean", re.MULTILINE)
LONG = "iVBORw0KGgo" * 1000


def test_every_control_character_is_an_escape():
    assert terminal.visible("a\x1b[2J\r\n\t\x9b\x7f\u202e\u2028\ufeff\udcff\U000e0041") == (
        r"a\x1b[2J\r\n\t\x9b\x7f\u202e\u2028\ufeff\udcff\U000e0041"
    )
    others = (
        "\x00\x1f\x80\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2029\u202a\u2060\u2066\u2069\u206f"
        "\ufff9\ufffb\ud800\U000e0000\U000e007f"
    )
    assert terminal.visible(others) == others.encode("unicode_escape").decode()
    plain = "Ünï – “日本語” 👩\u200d🚀 می\u200cخواهم [red] C:\\new"
    assert terminal.visible(plain) == plain
    assert terminal.visible(terminal.visible("\x1b\n")) == terminal.visible("\x1b\n")


def test_a_long_text_is_shortened_in_its_middle():
    shown = terminal.visible(LONG + ".png", 80)
    assert len(shown) == 80 and shown.startswith("iVBORw0KGgo") and shown.endswith(".png") and "11,004 char" in shown


def test_say_shortens_a_word_and_no_sentence(capsys):
    sentence = "two words " * 1000
    terminal.say(f"{LONG}: {sentence}", "next", error=True)
    first, second, _ = capsys.readouterr().err.split("\n")
    assert sentence in first and len(first) < len(sentence) + 300 and second == "next"


def test_a_name_is_said_once():
    assert terminal.about("a.jpg", "a.jpg: cut off") == "a.jpg: cut off"
    assert terminal.about("a.jpg", "cut off") == "a.jpg: cut off"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (999, "999 B"),
        (400_000, "400 kB"),
        (999_960, "1.0 MB"),
        (4_190_000, "4.2 MB"),
        (512e6, "512 MB"),
        (3.2e12, "3.2 TB"),
        (4e15, "4,000 TB"),
    ],
)
def test_bytes_are_in_units_people_use(count, text):
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (float("inf"), "–"),
        (0.012, "12 ms"),
        (0.26, "0.3 s"),
        (9.96, "10 s"),
        (42.4, "42 s"),
        (59.7, "1 min"),
        (250, "4 min 10 s"),
        (2590, "43 min"),
        (3599.8, "1 h"),
        (7500, "2 h 5 min"),
        (147_327, "41 h"),
        (1_036_800, "12 days"),
    ],
)
def test_durations_are_in_units_people_use(seconds, text):
    assert time_text(seconds) == text


def test_json_reads_back_and_holds_no_control_character(capsys):
    value = {name: [name, "é", "\udcff", "\U000e0041"] for name in HOSTILE}
    terminal.emit(value)
    out = capsys.readouterr().out
    assert not RAW.search(out) and "é" in out and out.count("\n") == 1
    assert json.loads(out) == value


def test_a_terminal_of_ascii_gets_ascii(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    terminal.encode_all()
    terminal.say("2×3 → 日 é █")
    terminal.console().print(terminal.styled("… ", ("日", "bold")))
    terminal.emit({"日": "é"})
    out.flush()
    lines = out.buffer.getvalue().decode("ascii").splitlines()
    assert lines == ["2x3 -> \\u65e5 \\xe9 #", "... \\u65e5", '{"\\u65e5": "\\u00e9"}']


def test_whoever_formats_a_message_of_ours_gets_visible_text(caplog):
    logger = terminal.get_logger("calotype.test")
    try:
        raise ValueError("\x1b]0;title\x07")
    except ValueError:
        logger.exception("%s: %s", *HOSTILE[:2])
    assert not RAW.search(caplog.text) and r"\x1b]52" in caplog.text and r"y\nresult" in caplog.text
    assert r"ValueError: \x1b]0;title" in caplog.text


def test_other_libraries_messages_are_visible_text_in_the_command(capsys):
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers.clear()
    try:
        terminal.log_to_stderr()
        logging.getLogger("PIL.Image").error("odd file: %s", HOSTILE[0])
        assert capsys.readouterr().err == r"odd file: x\x1b]52;c;ZXZpbA==\x07" + "\n"
    finally:
        root.handlers[:] = before


def test_progress_shows_its_text_as_text(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setattr("calotype.progress._PATIENCE", -1.0)
    with track("reading [red]\x9b2J") as show:
        show(1, 2)
    assert r"reading [red]\x9b2J" in capsys.readouterr().err


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder whose names, captions and reasons are hostile; half of its images can't be read."""
    folder = tmp_path_factory.mktemp("parent") / "d\x1b]0;title\x07[bold]"
    folder.mkdir()
    for number, name in enumerate(HOSTILE):
        stem = name.replace("/", "")
        Image.new("RGB", (64, 64), (40 * number, 0, 0)).save(folder / f"{stem}.png")
        (folder / f"broken {stem}.png").write_text("<html>")
        for prefix in ("", "broken "):
            (folder / f"{prefix}{stem}.txt").write_text(f"{name.replace(chr(10), ' ')} caption {number}\n")
    (folder / "left\x9bover.txt").write_text("no image\n")
    return folder


@pytest.fixture
def run(monkeypatch, capfd):
    """Runs a command as a terminal would show it; (exit status, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["calotype", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as exit:
            status = exit.code
        return status or 0, *capfd.readouterr()

    return run


def commands(folder, out, url):
    sizes = ("resolution=64",)
    yield "info", folder, *sizes, "--seconds", "0.1", "loader.batch_size=2"
    yield "check", folder, *sizes
    yield "check", folder, *sizes, "--json"
    yield "check", folder, *sizes, "--fix-list", out / "fix\x1b.txt"
    yield "preview", folder, *sizes, "--batches", "1", "-o", out / "page\x9b.html"
    yield "preview", folder, *sizes, "--batches", "1", "-o", out / "page.html", "--json"
    yield "convert", folder, out / "dry\x1b", "--to", "parquet", "--dry-run"
    yield "convert", folder, out / "raise\x1b", "--to", "parquet"
    yield "convert", folder, out / "skip\x1b", "--to", "jsonl", "--skip"
    yield "convert", folder, out / "skip\x1b", "--to", "jsonl", "--skip", "--verify"
    yield "convert", folder, out / "json\x1b", "--to", "jsonl", "--skip", "--json"
    yield "caption", folder, "--url", url, "--mode", "replace", "--dry-run", "6"
    yield "init", folder, "--model", "sdxl", "--trigger", "o\x1bhwx", "-o", out / "config\x9b.yaml"
    yield "train", out / "config\x9b.yaml", "train.learning_rate=\x1b"
    yield "cache", "ls", out / "store\x1b"
    yield "cache", "verify", out / "store\x1b"
    yield "cache", "prune", out / "store\x1b", "--keep", out / "keys\x1b"
    yield "encode", out / "\x1b.yaml"
    yield "studio", out / "no\x1bfolder"
    yield "bench", out / "no\x1bfolder"
    yield "distill", out / "no\x1bfolder.yaml"
    yield "info", "no\x1bfolder"


def test_no_command_prints_a_control_character_of_the_data(hostile, tmp_path, run, caplog):
    replies = iter([completion("a \x1b[31mred\x9b square"), *(failure(400, name) for name in HOSTILE)] * 20)
    said = {}
    with serving(lambda asked: next(replies)) as server:
        for arguments in commands(hostile, tmp_path, server.url):
            _, out, err = run(*arguments)
            said[arguments[:1] + arguments[-1:]] = out + err
            text = out + err + caplog.text
            caplog.clear()
            assert not RAW.search(text), (arguments, ascii(RAW.search(text)), ascii(text))
            assert not FORGED.search(text.replace("\nresult: clean\n", "\n")), (arguments, text)
            assert "Traceback" not in text, (arguments, text)
            assert out or err, arguments
    everything = "".join(said.values())
    assert r"x\x1b]52;c;ZXZpbA==\x07.png" in everything and "[red]m[red]" in everything
    assert r"y\nresult: clean.png" in everything


def test_tables_in_a_terminal_show_markup_and_controls_as_text(hostile, monkeypatch, run):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("calotype.check.show._FEW", 20)
    _, out, _ = run("check", hostile, "resolution=64")
    plain = re.sub("\x1b\\[[0-9;]*m", "", out)  # rich's own colours, if it found a terminal
    assert not RAW.search(plain) and not FORGED.search(plain.rpartition("\n\n")[0])
    assert "broken [red]m[red] :bomb:.png" in plain and r"broken y\nresult: clean.png" in plain


def test_a_name_of_bytes_that_are_no_text_is_shown(tmp_path, run):
    folder = os.fsencode(tmp_path / "photos")
    os.mkdir(folder)
    with open(os.path.join(folder, b"\xff\xfe.png"), "wb") as file:
        file.write(b"<html>")
    Image.new("RGB", (64, 64)).save(tmp_path / "photos" / "good.png")
    status, out, _ = run("check", tmp_path / "photos", "resolution=64", "missing_captions=empty")
    assert status == 1 and r"\xff\xfe.png" in out and not RAW.search(out)


@pytest.mark.parametrize("command", ["check", "preview"])
def test_ascii_output_raises_nothing(command, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (64, 64)).save(folder / "ü⟦.png")
    (folder / "ü⟦.txt").write_text("odd \x07 char ⟦ → ü")
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    page = ["-o", str(tmp_path / "ü.html")] if command == "preview" else []
    monkeypatch.setattr(sys, "argv", ["calotype", command, str(folder), "resolution=64", *page])
    try:
        main()
    except SystemExit as exit:
        assert exit.code in (0, 1)
    empty = Summary(found={"rows": "日"}, buckets=(), batches=1, batch=(), images_per_second=None, ledger={"é": 1})
    info.show(empty)
    out.flush()
    assert "rows: \\u65e5" in out.buffer.getvalue().decode("ascii")

"""A captioning run on real photos and a real server: what is asked, what is written, and what is left alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from caption_server import completion, failure, serving
from PIL import Image

from calotype import captioning
from calotype.captioning.backend import CaptionAnswer
from calotype.captioning.command import caption_lints
from calotype.captioning.ledger import CaptionLedger
from calotype.captioning.prompts import tidy
from calotype.editing import open_captions
from calotype.editing.folder_captions import FolderCaptions
from calotype.errors import CaptionError, ConfigError, EditError
from calotype.manifest import load_manifest

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg", "motorcycle_left.png")
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def small(tmp_path_factory, skimage_data):
    """Real photos of 120 by 90 pixels."""
    folder = tmp_path_factory.mktemp("small")
    for name in PHOTOS:
        with Image.open(skimage_data / name) as photo:
            photo.convert("RGB").resize((120, 90)).save(folder / name)
    return folder


@pytest.fixture
def folder(small, tmp_path):
    return Path(shutil.copytree(small, tmp_path / "photos"))


def preset(folder, text, name="ask"):
    file = folder.parent / f"{name}.txt"
    file.write_text(text)
    return str(file)


def echo(asked):
    """The prompt, which tells the images apart where it has {stem} in it; and the seed, where there is one."""
    return completion(f"{asked.prompt} {asked.body.get('seed', '')}".strip())


@pytest.fixture
def run(folder):
    """Captions the folder; by default with a prompt that names the image."""

    def run(server, *, path=folder, text="see {stem}", presets=None, **options):
        presets = presets or [preset(folder, text)]
        return captioning.run({"dataset": {"path": str(path)}}, url=server.url, presets=presets, **options)

    return run


def captions(path):
    return {id: list(state.captions) for id, state in open_captions(path).read().items()}


def named(text="see {}"):
    return {name: [text.format(Path(name).stem)] for name in sorted(PHOTOS)}


def test_a_folder_without_captions_becomes_a_dataset(folder, run):
    with serving(echo) as server:
        report = run(server)
        assert captions(folder) == named()
        assert (report.images, report.asked, report.written, report.failed, report.backup) == (6, 6, 6, 0, None)
        again = run(server)
    assert (again.asked, again.reused, again.written, len(server.asked)) == (0, 0, 0, 6)
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert lines == [{"file_name": name, "text": text} for name, (text,) in named().items()]
    assert {row.id: list(row.captions) for row in load_manifest(folder)} == named()


def test_hugging_face_loads_it_as_it_is(folder, run, tmp_path):
    datasets = pytest.importorskip("datasets")
    with serving(echo) as server:
        run(server, n=2, temperature=0.5)
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert sorted(loaded["text"]) == sorted([f"{text[0]} 0", f"{text[0]} 1"] for text in named().values())
    assert {image.size for image in loaded["image"]} == {(120, 90)}


def test_pictures_go_out_upright_and_within_the_budget(folder, run, tmp_path):
    shutil.rmtree(folder)
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    Image.new("RGB", (2000, 1000)).save(folder / "turned.jpg", exif=exif)
    with serving() as server:
        run(server, pixels=5000)
    assert server.asked[0].image.size == (50, 100)


def test_presets_take_turns_and_each_round_has_a_seed(folder, run):
    presets = [preset(folder, "long {stem}", "one"), preset(folder, "short {stem}", "two")]
    with serving(echo) as server:
        report = run(server, presets=presets, n=3, seed=5)
        assert captions(folder)["coffee.png"] == ["long coffee 5", "short coffee 5", "long coffee 6"]
        assert {asked.body["temperature"] for asked in server.asked} == {0.7} and report.asked == 18
        with pytest.raises(ConfigError, match="2 captions of 1 presets at temperature 0 would be the same"):
            run(server, n=2, temperature=0.0)
        with pytest.raises(ConfigError, match="n: found 1, and 2 presets"):
            run(server, presets=presets, n=1)


def test_fill_add_and_replace(folder, run):
    (folder / "coffee.txt").write_text("my own words")
    with serving(echo) as server:
        report = run(server)
        expected = {**named(), "coffee.png": ["my own words"]}
        assert captions(folder) == expected and report.written == 5
        report = run(server, text="more {stem}", mode="add")
        expected = {name: [*own, f"more {Path(name).stem}"] for name, own in expected.items()}
        assert captions(folder) == expected and (report.asked, report.written) == (6, 6)
        assert run(server, text="more {stem}", mode="add").written == 0
        report = run(server, text="new {stem}", mode="replace")
        changed = {**named("new {}"), "coffee.png": expected["coffee.png"]}
        assert captions(folder) == changed and (report.kept, report.asked) == (1, 5)
        report = run(server, text="new {stem}", mode="replace", force=True)
        assert captions(folder) == named("new {}") and (report.asked, report.written, report.kept) == (1, 1, 0)
        kept = {file.name for backup in (folder / ".calotype/backups").iterdir() for file in backup.rglob("*.*")}
        assert "metadata.jsonl" in kept
        with pytest.raises(ConfigError, match="mode: found 'overwrite'"):
            run(server, mode="overwrite")


def test_what_a_person_edited_or_marked_as_rejected_is_left_alone(folder, run):
    with serving(echo) as server:
        run(server)
        editor = open_captions(folder)
        editor.write({"coffee.png": ["see coffee, black"]})
        editor.reject(["rocket.jpg"])
        report = run(server, text="new {stem}", mode="replace")
        found = captions(folder)
        assert (report.images, report.kept, report.written) == (5, 1, 4)
        assert found["coffee.png"] == ["see coffee, black"] and found["rocket.jpg"] == ["see rocket"]
        assert found["chelsea.png"] == ["new chelsea"]
        run(server, text="newer {stem}", mode="replace", force=True)
    assert captions(folder)["coffee.png"] == ["newer coffee"] and captions(folder)["rocket.jpg"] == ["see rocket"]


def test_a_caption_that_is_edited_while_the_run_is_on_is_left_alone(folder, run):
    def edits_meanwhile(asked):
        if "coffee" in asked.prompt:
            open_captions(folder).write({"coffee.png": ["mine"], "rocket.jpg": ["mine too"]})
        return echo(asked)

    with serving(edits_meanwhile) as server:
        run(server)
    assert captions(folder) == {**named(), "coffee.png": ["mine"], "rocket.jpg": ["mine too"]}


@pytest.fixture
def between(monkeypatch):
    """Has a person save a caption at the last moment: after a run has looked at the row, before it writes."""
    real = FolderCaptions.write

    def between(id, text, when=lambda changes, sidecars: True):
        def write(self, changes, *, sidecars=False, **more):
            if when(changes, sidecars):
                monkeypatch.setattr(FolderCaptions, "write", real)
                real(open_captions(self.root), {id: [text]})
            return real(self, changes, sidecars=sidecars, **more)

        monkeypatch.setattr(FolderCaptions, "write", write)

    return between


@pytest.mark.parametrize(
    ("mode", "kept"),
    [("fill", ["mine"]), ("replace", ["mine"]), ("add", ["mine", "see coffee"])],
)
def test_a_caption_that_is_saved_just_before_the_run_writes_is_looked_at_anew(folder, run, between, mode, kept):
    between("coffee.png", "mine")
    with serving(echo) as server:
        report = run(server, mode=mode)
    assert captions(folder) == {**named(), "coffee.png": kept}
    assert report.written == len(PHOTOS) - (mode != "add")


def test_a_copy_beside_an_image_is_never_older_than_the_caption(folder, run, between):
    with serving(echo) as server:
        run(server)
        between("coffee.png", "mine", when=lambda changes, sidecars: sidecars and len(changes) == len(PHOTOS))
        run(server, sidecars=True)
    assert captions(folder) == {**named(), "coffee.png": ["mine"]}
    assert (folder / "rocket.txt").read_text() == "see rocket\n"
    assert not (folder / "coffee.txt").exists() or (folder / "coffee.txt").read_text() == "mine\n"


def test_a_moved_or_renamed_picture_is_not_asked_about_again(folder, run, tmp_path):
    with serving(lambda asked: completion("a photo")) as server:
        run(server, text="describe")
        moved = folder.rename(tmp_path / "elsewhere")
        (moved / "metadata.jsonl").unlink()
        (moved / "coffee.png").rename(moved / "tea.png")
        report = run(server, path=moved, text="describe")
        assert (report.asked, report.reused, report.written) == (0, 6, 6)
        assert len(server.asked) == 6 and captions(moved)["tea.png"] == ["a photo"]
        assert run(server, path=moved, text="describe!", mode="replace").asked == 6
        assert run(server, path=moved, text="describe!", mode="replace", max_tokens=9).asked == 6


def test_a_prompt_that_quotes_the_caption_refines_it_once(folder, run):
    with serving(lambda asked: completion(f"<{asked.prompt}>")) as server:
        run(server, text="see {stem}")
        for _ in range(2):
            run(server, text="better: {caption}", mode="replace")
        assert captions(folder)["coffee.png"] == ["<better: <see coffee>>"] and len(server.asked) == 12
        open_captions(folder).write({"coffee.png": []})
        report = run(server, text="best: {caption}", mode="replace")
        (without,) = report.failures
        assert (without.id, without.kind) == ("coffee.png", "no_value") and report.asked == 5


def test_one_bad_picture_or_answer_costs_the_others_nothing(folder, run):
    (folder / "rocket.jpg").write_bytes((folder / "rocket.jpg").read_bytes()[:900])

    def respond(asked):
        if "coffee" in asked.prompt:
            return failure(400, "cannot identify image file")
        return completion("") if "chelsea" in asked.prompt else echo(asked)

    with serving(respond) as server:
        report = run(server)
        assert {one.id: one.kind for one in report.failures} == {
            "rocket.jpg": "truncated",
            "coffee.png": "refused",
            "chelsea.png": "empty",
        }
        found = captions(folder)
        assert {name for name, texts in found.items() if not texts} == {"rocket.jpg", "coffee.png", "chelsea.png"}
        asked = len(server.asked)
        again = run(server)
        assert len(server.asked) == asked and again.failed == 3
        assert sorted(one.id for one in again.failures if one.again) == ["chelsea.png", "coffee.png"]
        server.respond = echo
        assert run(server, retry_failed=True).asked == 2
        assert run(server).failed == 1 and captions(folder)["coffee.png"] == ["see coffee"]


def test_a_caption_that_the_data_can_t_hold_costs_the_others_nothing(folder, run):
    (folder / "coffee.png").rename(folder / " coffee.png")  # a data file's reader would take the space off
    with serving(lambda asked: completion("half \ud800" if "rocket" in asked.prompt else asked.prompt)) as server:
        report = run(server)
        assert sorted((one.id, one.kind) for one in report.failures) == [
            (" coffee.png", "not_written"),
            ("rocket.jpg", "not_written"),
        ]
        assert report.written == 4 and run(server).asked == 0


def test_of_several_captions_those_that_came_are_kept_and_the_rest_filled_in(folder, run):
    presets = [preset(folder, "one {stem}", "one"), preset(folder, "two {stem}", "two")]
    with serving(lambda asked: failure(400, "no") if asked.prompt == "one coffee" else echo(asked)) as server:
        assert run(server, presets=presets).failed == 1
        assert captions(folder)["coffee.png"] == ["two coffee"]
        server.respond = echo
        report = run(server, presets=presets, retry_failed=True)
        assert (report.asked, report.written) == (1, 1)
    assert captions(folder)["coffee.png"] == ["one coffee", "two coffee"]


def test_no_server_ends_the_run_and_what_was_answered_is_written(folder, run):
    with serving() as server:
        url = server.url
    with pytest.raises(CaptionError):
        captioning.run({"dataset": {"path": str(folder)}}, url=url, model="m", presets=["short"], retries=0)
    with serving(lambda asked: echo(asked) if len(server.asked) <= 3 else failure(401, "no key")) as server:
        with pytest.raises(CaptionError):
            run(server, concurrency=1)
        there = sum(map(bool, captions(folder).values()))
        assert there == 3
        server.respond = echo
        assert run(server).asked == 3
    assert captions(folder) == named()


CAPTION = """
import sys
from calotype import captioning
captioning.run({"dataset": {"path": sys.argv[1]}}, url=sys.argv[2], presets=[sys.argv[3]], concurrency=2)
"""


def command(folder, server):
    arguments = [str(folder), server.url, preset(folder, "see {stem}")]
    return subprocess.Popen([sys.executable, "-c", CAPTION, *arguments], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_after_a_kill_only_what_is_missing_is_asked(folder, run, how):
    enough = threading.Event()

    def slow(asked):
        if len(server.asked) > 3:
            enough.set()
            time.sleep(20)
        return echo(asked)

    with serving(slow) as server:
        process = command(folder, server)
        assert enough.wait(60)
        deadline = time.monotonic() + 30
        while len(CaptionLedger(folder)) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)  # for the third answer to arrive
        os.kill(process.pid, how)
        process.communicate(timeout=15)
        assert process.returncode != 0
        written = sum(map(bool, captions(folder).values()))
        assert written == (3 if how == signal.SIGINT else 0)
        server.asked.clear()
        server.respond = echo
        report = run(server)
        assert (len(server.asked), report.asked) == (3, 3) and report.reused + written == 3
    assert captions(folder) == named()
    assert [file.name for file in (folder / ".calotype/captions").iterdir()] == ["ledger.jsonl"]


def test_two_runs_at_once_both_come_to_the_end(folder, run):
    with serving(lambda asked: (time.sleep(0.05), echo(asked))[1]) as server:
        process = command(folder, server)
        while not server.asked and process.poll() is None:
            time.sleep(0.01)
        run(server, concurrency=2)
        assert process.communicate(timeout=60)[1] == "" and process.returncode == 0
        assert captions(folder) == named() and run(server).asked == 0
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    assert len(lines) == len(PHOTOS)


def test_a_dry_run_shows_and_writes_nothing(folder, run):
    before = sorted(folder.rglob("*"))
    with serving(echo) as server:
        report = run(server, dry_run=4)
        assert [example.captions for example in report.examples] == [
            (text,) for _, (text,) in list(named().items())[:4]
        ]
        assert len(server.asked) == 4 and sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"force": True}, "force: has no effect with mode fill; it is for mode replace"),
        ({"sidecars": True, "dry_run": 1}, "sidecars: has no effect in a dry run, which writes nothing"),
        ({"engine": "ray", "dry_run": 1}, "engine: has no effect in a dry run"),
        ({"address": "auto"}, "address: has no effect with engine local"),
        ({"backend": object(), "max_tokens": 9}, "url, max_tokens: has no effect on a backend that is open already"),
        ({"class_word": "dog"}, r"class_word: 'dog' has no effect, because no prompt of ask has \{class_word\}"),
        ({"presets": ["short", "tags", "short"]}, "presets: short is listed twice"),
        ({"seed": 3}, "seed: 3 has no effect at temperature 0"),
    ],
)
def test_an_option_without_effect_is_an_error(folder, run, options, message):
    with serving(echo) as server, pytest.raises(ConfigError, match=message):
        run(server, **options)
    assert not server.asked


def test_an_id_that_no_image_has_is_named(folder, run):
    with serving(echo) as server:
        report = run(server, only=["coffee.png", "tea.png"])
    (unknown,) = report.failures
    assert (unknown.id, unknown.kind, report.written) == ("tea.png", "unknown_id", 1)


def test_sidecars_for_other_trainers(folder, run):
    with serving(echo) as server:
        run(server)
        run(server, sidecars=True)
        assert {file.stem: file.read_text() for file in folder.glob("*.txt")} == {
            Path(name).stem: f"{text}\n" for name, (text,) in named().items()
        }
        run(server, text="more {stem}", mode="add", sidecars=True)
        assert (folder / "coffee.txt").read_text() == "see coffee\nmore coffee\n"
        assert len(server.asked) == 12 and captions(folder)["coffee.png"] == ["see coffee", "more coffee"]


def test_data_files_are_captioned_where_they_are(folder, run, tmp_path):
    rows = [{"image": f"photos/{name}", "k": n} for n, name in enumerate(PHOTOS)]
    rows[0]["caption"] = "mine"
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(echo) as server:
        run(server, path=file)
        found = [json.loads(line) for line in file.read_text().splitlines()]
        texts = ["mine", *(f"see {Path(name).stem}" for name in PHOTOS[1:])]
        assert found == [row | {"caption": text} for row, text in zip(rows, texts, strict=True)]
        with pytest.raises(ConfigError, match="sidecars"):
            run(server, path=file, sidecars=True)
        shutil.copy(file, tmp_path / "rows.parquet")
        with pytest.raises(EditError, match="calotype convert"):
            run(server, path=tmp_path / "rows.parquet")


def test_the_trigger_is_a_placeholder_in_captions(folder, run):
    with serving(lambda asked: completion('"{Trigger}" and a cat')) as server:
        run(server, presets=["subject"], class_word="woman")
    assert 'call the woman "{trigger}"' in server.asked[0].prompt
    assert captions(folder)["coffee.png"] == ["{trigger} and a cat"]
    config = {"dataset": {"path": str(folder)}}
    (waiting,) = (found for found in caption_lints(config) if found.kind == "placeholder")
    assert waiting.level == "note" and "caption_transform.trigger=" in waiting.advice
    assert "placeholder" not in {found.kind for found in caption_lints(config, trigger="ohwx")}
    program = {"path": str(folder), "caption_transform": {"trigger": "ohwx"}}
    assert "placeholder" not in {found.kind for found in caption_lints({"dataset": program})}


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ('"{trigger}" sits', "{trigger} sits"),
        ("{ Trigger }'s hat and **{trigger}**", "{trigger}'s hat and {trigger}"),
        ('a sign says "{trigger} here"', 'a sign says "{trigger} here"'),
        ("the trigger of a gun", "the trigger of a gun"),
    ],
)
def test_placeholders_are_made_tidy(said, kept):
    assert tidy(said) == kept


class Batches:
    """A backend that wants batches, and notes what is under way at once."""

    name, model, batch_size, concurrency, parameters = "batches", "m", 4, 2, {"temperature": 0}

    def __init__(self):
        self.sizes, self.now, self.most, self.lock = [], 0, 0, threading.Lock()

    def caption(self, requests):
        with self.lock:
            self.sizes.append(len(requests))
            number = len(self.sizes)
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.1)
        with self.lock:
            self.now -= 1
        if number == 2:
            raise RuntimeError("a fault of the backend's own")
        return [CaptionAnswer(text=request.prompt) for request in requests]

    def close(self):
        pass


def test_batches_are_full_and_calls_overlap(folder):
    for copy in range(3):
        for name in PHOTOS:
            with Image.open(folder / name) as photo:
                photo.rotate(copy + 1).save(folder / f"{copy}_{name}")
    backend = Batches()
    ask = preset(folder, "see {stem}")
    report = captioning.run({"dataset": {"path": str(folder)}}, backend=backend, presets=[ask])
    assert sorted(backend.sizes, reverse=True) == [4] * 6 and backend.most == 2
    assert report.failed == 4 and {one.kind for one in report.failures} == {"failed"}
    assert "a fault of the backend's own" in report.failures[0].reason
    assert sum(texts == [f"see {Path(id).stem}"] for id, texts in captions(folder).items()) == 20


def test_a_run_can_be_stopped_and_gone_on_with(folder, run):
    stop = threading.Event()

    def respond(asked):
        if len(server.asked) == 2:
            stop.set()
        time.sleep(0.3 if stop.is_set() else 0)
        return echo(asked)

    with serving(respond) as server:
        report = run(server, stop=stop, concurrency=1)
        assert 1 <= report.written < 6
        report = run(server, only=["coffee.png"])
        assert report.asked <= 1
        run(server)
    assert captions(folder) == named()


def test_images_by_url_are_fetched_ahead_over_all_connections(small, tmp_path):
    """More at a time than threads prepare images; one that fails costs the others nothing."""
    gathered = threading.Barrier(12, timeout=20)

    class Images(BaseHTTPRequestHandler):
        def do_GET(self):
            number = int(self.path.rpartition("/")[2])
            data = (small / PHOTOS[number % len(PHOTOS)]).read_bytes() + bytes([number])
            if number < 12:
                gathered.wait()
            self.send_response(404 if number == 13 else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Images)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"url": f"http://127.0.0.1:{http.server_port}/{n}"}) + "\n" for n in range(20)))
    dataset = {"path": str(rows), "fetch": {"allow_private": True, "connections": 12, "retries": 0}}
    report = captioning.run({"dataset": dataset}, backend=Batches(), presets=[preset(rows, "see")])
    http.shutdown()
    http.server_close()
    thread.join()
    assert not gathered.broken
    kinds = [failure.kind for failure in report.failures]
    assert report.written + len(kinds) == 20 and kinds.count("fetch_failed") == 1

"""Changes of tags and words in captions of many images, and rejection of many, each one step of the history."""

import pytest

from calotype.editing import Captions, captions
from calotype.manifest import load_manifest
from calotype.studio.tagging import TagChange, tags_of

CAPTION = "1girl, red hair,  smile , Red dress"


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        ({"action": "add", "text": "best"}, CAPTION, f"{CAPTION}, best"),
        ({"action": "add", "text": "best", "at": "start"}, CAPTION, f"best, {CAPTION}"),
        ({"action": "add", "text": "SMILE"}, CAPTION, CAPTION),  # it has the tag
        ({"action": "add", "text": "best"}, "", "best"),
        ({"action": "add", "unit": "word", "text": "red"}, "red hair", "red hair"),
        ({"action": "add", "unit": "word", "text": "dark"}, "red hair", "red hair dark"),
        ({"action": "remove", "text": "red hair"}, CAPTION, "1girl,  smile , Red dress"),
        ({"action": "remove", "text": "1girl"}, CAPTION, "red hair,  smile , Red dress"),
        ({"action": "remove", "text": "red"}, CAPTION, CAPTION),  # part of a tag is none
        ({"action": "remove", "text": "smile"}, "smile", ""),
        ({"action": "remove", "unit": "word", "text": "red"}, CAPTION, "1girl, hair,  smile , dress"),
        ({"action": "remove", "unit": "word", "text": "red"}, "a hundred reds, Red", "a hundred reds,"),
        ({"action": "replace", "text": "smile", "to": "grin"}, CAPTION, "1girl, red hair,  grin , Red dress"),
        ({"action": "replace", "text": "smile", "to": "Red Hair"}, CAPTION, "1girl, red hair, Red dress"),
        ({"action": "replace", "text": "a", "to": "b"}, "a, c, A", "b, c"),
        ({"action": "replace", "unit": "word", "text": "red", "to": r"\1"}, "red, dark red", r"\1, dark \1"),
    ],
)
def test_changes_of_one_caption(change, before, after):
    assert TagChange(**{"unit": "tag"} | change).captions([before]) == (after,)


def test_tags_are_the_parts_between_commas():
    assert tags_of(CAPTION) == ["1girl", "red hair", "smile", "Red dress"]


def test_a_tag_for_many_is_one_step(client, folder):
    answer = client.do("bulk/tags", action="add", text="photo", filter="")
    assert (answer["changed"], answer["label"]) == (5, "add the tag “photo”")
    assert (folder / "chelsea.txt").read_text() == "a ginger cat, photo\n"
    assert (folder / "motorcycle_left.txt").read_text() == "photo\n"
    numbers = [client.row(name)["n"] for name in ("chelsea.png", "coffee.png")]
    assert client.do("bulk/tags", action="remove", text="photo", numbers=numbers)["changed"] == 2
    assert client.do("bulk/tags", action="remove", text="photo", numbers=numbers)["label"] is None
    assert client.found("tag:photo") == ["astronaut.png", "motorcycle_left.png", "rocket.jpg"]
    client.do("undo")
    client.do("undo")
    assert (folder / "chelsea.txt").read_text() == "a ginger cat\n"
    assert client.found("tag:photo") == []


def test_rejecting_and_restoring_many(client, folder):
    (folder / "a.png").write_bytes((folder / "coffee.png").read_bytes())
    client.look(0)
    assert client.do("bulk/reject", rejected=True, filter="red")["changed"] == 2
    left = load_manifest(folder, missing_captions="empty").ids.to_pylist()
    assert left == ["a.png", "chelsea.png", "motorcycle_left.png", "rocket.jpg"]
    numbers = [client.row(name)["n"] for name in ("astronaut.png", "chelsea.png")]
    answer = client.do("bulk/reject", rejected=False, numbers=numbers)
    assert (answer["changed"], answer["undo"]["undo"]) == (1, "restore 1 image")  # the other is not rejected
    inodes = {path.name: path.stat().st_ino for path in folder.glob("*.txt")}
    client.do("undo")
    assert client.found("is:rejected") == ["astronaut.png", "coffee.png"]
    assert {path.name: path.stat().st_ino for path in folder.glob("*.txt")} == inodes  # captions are not written anew


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"action": "add", "text": " "}, "expected a tag"),
        ({"action": "add", "text": "a,b"}, "no comma"),
        ({"action": "add", "text": "a", "to": "b"}, "request.to"),
        ({"action": "replace", "text": "a"}, "request.to"),
        ({"action": "remove", "text": "a", "at": "start"}, "request.at"),
        ({"action": "drop", "text": "a"}, "action"),
    ],
)
def test_changes_that_make_no_sense(client, body, said):
    assert said in client.do("bulk/tags", status=422, **body)["error"]["message"]


def test_statistics_and_their_filters(client, folder):
    (folder / "cats").mkdir()
    (folder / "chelsea.png").rename(folder / "cats" / "chelsea.png")
    (folder / "cats" / "chelsea.txt").write_text('a ginger cat, a "quoted" tag\n')
    client.look(0)
    client.found("pixels>0")  # sizes are read
    lists = {one["key"]: one for one in client.read("statistics")["lists"]}
    assert {"tags", "words", "buckets", "pixels", "folders"} == lists.keys()
    for one in lists.values():
        for entry in one["entries"]:
            assert len(client.found(f"({entry['filter']}) -is:missing")) == entry["count"], entry
    assert ("red", 2) in [(entry["text"], entry["count"]) for entry in lists["words"]["entries"]]
    assert [entry["text"] for entry in lists["folders"]["entries"]] == [".", "cats"]
    some = client.get("/api/statistics", params={"filter": "id:cats/"}).json()
    assert some["count"] == 1


def test_a_change_in_progress_is_shown_and_can_be_cancelled(client, folder, monkeypatch):
    asked, back_up = [], captions.back_up

    def while_it_backs_up(*arguments, **options):
        asked.append(client.read("changes?since=0")["writing"])  # the poll does not wait for the change
        asked.append(client.do("bulk/cancel")["writing"])
        return back_up(*arguments, **options)

    monkeypatch.setattr(captions, "back_up", while_it_backs_up)
    before = {path.name: path.read_text() for path in folder.glob("*.txt")}
    plan = client.do("bulk/preview", find="a ", replace="the ", filter="")
    answer = client.do("bulk/apply", plan=plan["plan"])
    assert (answer["stopped"], answer["changed"], answer["conflicts"]) == (True, 0, [])
    assert {path.name: path.read_text() for path in folder.glob("*.txt")} == before
    (poll, cancel) = asked
    assert poll["label"] == "replace “a ” with “the ”"
    assert poll["can_stop"] and not poll["stopping"]
    assert (poll["what"], poll["done"], poll["total"]) == ("changing captions", 4, 4)
    assert cancel["stopping"]
    assert client.do("undo")["label"] is None
    assert client.do("bulk/cancel")["writing"] is client.read("changes?since=0")["writing"] is None


def test_undo_can_not_be_cancelled(client, folder, monkeypatch):
    client.do("bulk/tags", action="add", text="photo", filter="")
    summary = []
    plan = Captions._plan
    monkeypatch.setattr(
        Captions, "_plan", lambda *some, **more: (summary.append(client.do("bulk/cancel")), plan(*some, **more))[1]
    )
    answer = client.do("undo")
    assert (answer["changed"], answer["stopped"]) == (5, False)
    assert summary[0]["writing"]["label"] == "undo: add the tag “photo”"
    assert not summary[0]["writing"]["can_stop"]

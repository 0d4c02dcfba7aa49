"""What the page does, end to end on real photos: look, edit, undo, replace, and what others change meanwhile."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import real_tokenizers
from PIL import Image
from studio_client import reviewing

from calotype.manifest import load_manifest


def test_what_is_there(client, folder):
    about = client.read("dataset")
    assert (about["name"], about["rows"], about["writable"], about["path"]) == ("photos", 5, True, str(folder))
    rows = client.read("rows/details?numbers=0-2,4,3")["rows"]
    assert [row["id"] for row in rows] == [
        "astronaut.png",
        "chelsea.png",
        "coffee.png",
        "rocket.jpg",
        "motorcycle_left.png",
    ]
    assert rows[0]["captions"] == ["a woman in a red suit, smiling"]
    assert rows[4]["captions"] == []
    assert client.found("no:caption") == ["motorcycle_left.png"]
    assert client.found("red") == ["astronaut.png", "coffee.png"]
    assert client.found("width>200") == ["motorcycle_left.png", "rocket.jpg"]
    assert client.found("", "-pixels")[0] == max(client.found(""), key=lambda name: client.row(name)["width"])
    assert client.found("", "-id")[0] == "rocket.jpg"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("rows?filter=tokens%3E5", 422),
        ("rows?sort=colour", 422),
        ("rows/details?numbers=", 422),
        ("rows/details?numbers=a", 422),
        ("rows/details?numbers=0-9999999", 422),
        ("rows/details?numbers=7", 404),
        ("changes?since=-1", 422),
        ("none", 404),
    ],
)
def test_questions_that_make_no_sense(client, path, status):
    error = client.read(path, status)["error"]
    assert error["kind"] and error["message"]


def test_a_filter_that_can_not_be_read_says_where(client):
    error = client.get("/api/rows", params={"filter": "red AND (blue"}).json()["error"]
    assert (error["kind"], error["position"], error["length"]) == ("filter", 13, 0)
    assert "closing parenthesis" in error["expected"]


def test_an_edit_is_on_the_disk_at_once(client, folder):
    answer = client.edit("chelsea.png", "a cat", "a second caption")
    assert answer["rows"][0]["captions"] == ["a cat", "a second caption"]
    assert answer["undo"]["undo"] == "edit chelsea.png"
    assert {row.id: row.captions for row in load_manifest(folder, missing_captions="empty")}["chelsea.png"] == (
        "a cat",
        "a second caption",
    )
    client.edit("coffee.png", "coffee")
    assert (folder / "coffee.txt").read_text() == "coffee\n"


def test_an_edit_of_what_has_changed_on_the_disk_is_a_conflict(client, folder):
    row = client.row("chelsea.png")
    (folder / "chelsea.txt").write_text("written by another program\n")
    edits = [{"n": row["n"], "version": row["version"], "captions": ["mine"]}]
    coffee = client.row("coffee.png")
    edits.append({"n": coffee["n"], "version": coffee["version"], "captions": ["mine too"]})
    answer = client.do("edit", 409, edits=edits)
    assert answer["error"]["kind"] == "conflict"
    (conflict,) = answer["conflicts"]
    assert (conflict["n"], conflict["captions"]) == (row["n"], ["written by another program"])
    assert (folder / "chelsea.txt").read_text() == "written by another program\n"
    assert (folder / "coffee.txt").read_text() == "mine too\n"
    edits = [{"n": row["n"], "version": conflict["version"], "captions": ["mine"]}]  # knowingly
    client.do("edit", edits=edits)
    assert (folder / "chelsea.txt").read_text() == "mine\n"


def test_of_two_pages_the_slower_one_gets_a_conflict(client):
    row = client.row("chelsea.png")
    edit = {"n": row["n"], "version": row["version"]}
    client.do("edit", edits=[edit | {"captions": ["first"]}])
    answer = client.do("edit", 409, edits=[edit | {"captions": ["second"]}])
    assert answer["conflicts"][0]["captions"] == ["first"]
    assert client.row("chelsea.png")["captions"] == ["first"]
    seq = client.read("changes?since=0")["seq"]
    assert client.read(f"changes?since={seq}")["rows"] == []


@pytest.mark.parametrize(
    "edits",
    [
        [],
        [{}],
        [3],
        [{"n": 0, "version": "x"}],
        [{"n": 0, "captions": ["x"]}],
        [{"n": "0", "version": "x", "captions": ["x"]}],
        [{"n": True, "version": "x", "captions": ["x"]}],
        [{"n": 0, "version": "x", "captions": "x"}],
        [{"n": 0, "version": "x", "captions": [3]}],
        [{"n": 0, "version": "x", "captions": ["a\0b"]}],
        [{"n": 0, "version": "x", "captions": ["x" * 20_001]}],
        [{"n": 0, "version": "x", "captions": ["x"]}] * 2,
    ],
)
def test_edits_that_are_not_valid(client, edits):
    assert client.do("edit", 422, edits=edits)["error"]["kind"] == "bad_request"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (
            "edit",
            {"edits": [{"n": 0, "version": "x", "caption": ["x"]}]},
            "request.edits: unknown option 'caption'",
        ),
        ("tokens", {"texts": ["x"], "text": "x"}, "request: unknown option 'text'; did you mean 'texts'"),
        ("tokens", {}, "request.texts: is missing"),
        ("undo", {"steps": 2}, "request: unknown option 'steps'"),
        ("bulk/preview", {"find": "a", "replace": 3}, "request.replace: found 3, expected a text"),
        ("bulk/preview", {"find": "a", "replace": "b", "filter": "a", "numbers": [0]}, "no effect beside numbers"),
    ],
)
def test_a_request_names_what_is_wrong_with_it(client, path, body, message):
    assert message in client.do(path, 422, **body)["error"]["message"]
    assert (
        client.get("/api/rows?fliter=cat")
        .json()["error"]["message"]
        .startswith("request: unknown option 'fliter'; did you mean 'filter'")
    )


def test_undo_and_redo(client, folder):
    client.edit("chelsea.png", "one")
    client.edit("coffee.png", "two")
    assert client.do("undo")["label"] == "edit coffee.png"
    assert (folder / "coffee.txt").read_text() == "a cup of coffee, a red table\n"
    answer = client.do("undo")
    assert answer["undo"] == {"undo": None, "redo": "edit chelsea.png", "steps": 2}
    assert (folder / "chelsea.txt").read_text() == "a ginger cat\n"
    assert client.do("undo")["label"] is None
    assert client.do("redo")["label"] == "edit chelsea.png"
    assert (folder / "chelsea.txt").read_text() == "one\n"
    assert [step["undone"] for step in client.read("history")["steps"]] == [False, True]
    client.edit("astronaut.png", "three")
    assert client.do("redo")["label"] is None  # another way was taken


def test_what_is_typed_in_one_sitting_is_one_step(client, folder):
    for text in ("a", "a c", "a cat"):
        client.edit("chelsea.png", text, group="sitting 1")
    client.edit("chelsea.png", "a cat.", group="sitting 2")
    client.edit("coffee.png", "b", group="sitting 2")
    assert client.read("dataset")["undo"]["steps"] == 3
    client.do("undo"), client.do("undo"), client.do("undo")
    assert (folder / "chelsea.txt").read_text() == "a ginger cat\n"
    client.edit("chelsea.png", "x", group="sitting 3")
    client.edit("chelsea.png", "a ginger cat", group="sitting 3")  # taken back by hand
    assert client.read("dataset")["undo"]["steps"] == 0


def test_undo_leaves_alone_what_others_have_written_since(client, folder):
    client.edit("chelsea.png", "one")
    (folder / "chelsea.txt").write_text("another program's\n")
    answer = client.do("undo", 409)
    assert answer["conflicts"][0]["captions"] == ["another program's"]
    assert (folder / "chelsea.txt").read_text() == "another program's\n"
    client.edit("coffee.png", "two")
    (folder / "coffee.txt").write_text("another program's too\n")
    client.look(0)  # it was noticed before
    assert client.do("undo", 409)["conflicts"][0]["captions"] == ["another program's too"]


def test_rejected_images_stay_and_are_left_out_of_training(client, folder):
    row = client.row("rocket.jpg")
    client.do("edit", edits=[{"n": row["n"], "version": row["version"], "rejected": True}])
    assert client.found("is:rejected") == ["rocket.jpg"]
    assert (folder / "rocket.jpg").is_file()
    assert "rocket.jpg" not in load_manifest(folder, missing_captions="empty").ids.to_pylist()
    with reviewing(folder) as other:  # the next day
        assert other.found("is:rejected") == ["rocket.jpg"]
        assert other.row("rocket.jpg")["captions"] == ["a rocket at night"]
    assert client.do("undo")["label"] == "reject rocket.jpg"
    assert "rocket.jpg" in load_manifest(folder, missing_captions="empty").ids.to_pylist()


def test_replace_in_bulk(client, folder):
    before = {name: (folder / name).read_text() for name in ("astronaut.txt", "coffee.txt")}
    plan = client.do("bulk/preview", find="red", replace="crimson")
    assert (plan["rows"], plan["captions"], plan["occurrences"], plan["emptied"]) == (2, 2, 2, 0)
    assert [example["after"] for example in plan["examples"]] == [
        "a woman in a crimson suit, smiling",
        "a cup of coffee, a crimson table",
    ]
    assert (folder / "coffee.txt").read_text() == before["coffee.txt"]  # nothing yet
    (folder / "coffee.txt").write_text("a red pot\n")
    answer = client.do("bulk/apply", 409, plan=plan["plan"])
    assert (answer["changed"], answer["conflicts"][0]["captions"]) == (1, ["a red pot"])
    assert (folder / "astronaut.txt").read_text() == "a woman in a crimson suit, smiling\n"
    assert (folder / "coffee.txt").read_text() == "a red pot\n"
    backup = answer["backup"]
    assert Path(backup, "astronaut.txt").read_text() == before["astronaut.txt"]
    assert client.do("bulk/apply", 404, plan=plan["plan"])["error"]["kind"] == "not_found"
    client.do("undo")
    assert (folder / "astronaut.txt").read_text() == before["astronaut.txt"]


def test_replace_where_a_filter_says_and_with_a_pattern(client):
    plan = client.do("bulk/preview", find=r"(\w+)$", replace=r"<\1>", regex=True, filter="id:rocket OR cat")
    assert [example["after"] for example in plan["examples"]] == ["a ginger <cat>", "a rocket at <night>"]
    plan = client.do("bulk/preview", find=".*", replace="", regex=True, numbers=[0])
    assert plan["emptied"] == 1
    answer = client.do("bulk/apply", plan=plan["plan"])
    assert answer["rows"][0]["captions"] == []
    error = client.do("bulk/preview", 422, find="a(", replace="", regex=True)["error"]
    assert (error["kind"], error["position"]) == ("regex", 1)
    assert client.do("bulk/preview", 422, find="a", replace="", filter="(")["error"]["kind"] == "filter"


def test_what_others_do_on_the_disk_is_noticed(client, folder):
    seq = client.look(0)["seq"]
    client.edit("rocket.jpg", "mine")
    assert client.look(seq)["disk"] == []  # what is done here is no news
    seq = client.look(seq)["seq"]
    (folder / "chelsea.txt").write_text("another program's\n")
    (folder / "coffee.png").unlink()
    with Image.open(folder / "astronaut.png") as photo:
        photo.rotate(90, expand=True).save(folder / "astronaut.png")
    shutil.copy(folder / "rocket.jpg", folder / "zebra.jpg")
    news = client.look(seq)
    assert {(client.studio.rows.ids[event["n"]], event["what"]) for event in news["disk"]} == {
        ("chelsea.png", "captions"),
        ("coffee.png", "gone"),
        ("astronaut.png", "image"),
        ("zebra.jpg", "new"),
    }
    assert news["total"] == 6
    assert client.row("chelsea.png")["captions"] == ["another program's"]
    assert client.row("coffee.png")["missing"]
    assert client.found("height>130") == ["astronaut.png"]
    assert client.found("is:missing") == ["coffee.png"]
    assert client.row("zebra.jpg")["n"] == 5
    shutil.copy(folder / "rocket.jpg", folder / "coffee.png")
    seq = news["seq"]
    assert "image" in {event["what"] for event in client.look(seq)["disk"]}
    assert not client.row("coffee.png")["missing"]


def test_a_data_file_that_is_half_written_is_waited_for(tmp_path, small_photos):
    folder = shutil.copytree(small_photos, tmp_path / "photos")
    file = tmp_path / "data.csv"
    lines = "image,caption\nphotos/chelsea.png,a cat\nphotos/coffee.png,coffee\n"
    file.write_text(lines)
    with reviewing(file) as client:
        client.edit("photos/coffee.png", "more, coffee")
        assert file.read_text() == lines.replace(",coffee\n", ',"more, coffee"\n')
        seq = client.look(0)["seq"]
        file.write_text("")
        notices = client.look(seq)["notices"]
        assert len(notices) == 1 and "can't be read" in notices[0]["text"]
        assert client.look(notices[0]["seq"])["notices"] == []  # said once
        file.write_text(lines.replace("a cat", "the cat") + "photos/rocket.jpg,new\n")
        news = client.look(seq)
        assert {event["what"] for event in news["disk"]} == {"captions", "new"}
        assert client.row("photos/chelsea.png")["captions"] == ["the cat"]
    assert folder.is_dir()


def test_forms_that_are_only_read(tmp_path, folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": ["photos/chelsea.png"], "text": ["a cat"]}), file := tmp_path / "data.parquet")
    with reviewing(file) as client:
        about = client.read("dataset")
        assert not about["writable"] and "calotype convert" in about["why_not"]
        assert client.row("photos/chelsea.png")["captions"] == ["a cat"]
        assert client.edit("photos/chelsea.png", "x", status=409)["error"]["kind"] == "read_only"


def test_hostile_names_and_captions_come_as_they_are(tmp_path, small_photos):
    folder = tmp_path / "<b>&amp; 'photos'"
    folder.mkdir()
    names = ["<script>alert(1)<.png", '"onerror="alert(1).png', "a b?c#d%2e%2e.png", "–💥.png", "x..png", "-rf.png"]
    for name in names:
        shutil.copy(small_photos / "chelsea.png", folder / name)
    hostile = "<script>alert(1)</script>\u202e </textarea> ${x} {{y}} \\u0000 \r\t\u2028'\""
    with reviewing(folder) as client:
        assert {client.row(name)["id"] for name in names} == set(names)
        for name in names:
            row = client.row(name)
            assert client.get(row["thumb"]).headers["content-type"] == "image/jpeg"
            assert client.edit(name, hostile)["rows"][0]["captions"] == [hostile]
        answer = client.get("/api/rows/details?numbers=0")
        assert answer.headers["content-type"] == "application/json"
        assert len(client.found('caption:"<script>"')) == len(names)
        assert client.found("id:onerror") == [names[1]]
    texts = [list(row.captions) for row in load_manifest(folder)]
    assert texts == [[hostile]] * len(names)


def test_images(client, folder):
    row = client.row("rocket.jpg")
    thumb = client.get(row["thumb"])
    assert thumb.headers["content-type"] == "image/jpeg"
    assert "immutable" in thumb.headers["cache-control"]
    again = client.get(row["thumb"], headers={"If-None-Match": thumb.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert "immutable" not in client.get(f"/thumb/{row['n']}?v=old").headers["cache-control"]
    assert "immutable" not in client.get(f"/thumb/{row['n']}").headers["cache-control"]
    with Image.open(folder / "rocket.jpg") as photo:
        photo.resize((3000, 1500)).save(folder / "rocket.jpg", quality=80)
    client.look(0)
    changed = client.row("rocket.jpg")
    assert changed["thumb"] != row["thumb"]
    for address, size in ((changed["thumb"], (320, 160)), (changed["image"], (2048, 1024))):
        answer = client.get(address)
        (folder.parent / "shown.jpg").write_bytes(answer.content)
        with Image.open(folder.parent / "shown.jpg") as shown:
            assert shown.size == size
    (folder / "rocket.jpg").write_bytes(b"no image")
    client.look(0)
    assert client.found("is:unreadable") == ["rocket.jpg"]
    answer = client.get(client.row("rocket.jpg")["thumb"])
    assert answer.status_code == 404 and answer.json()["error"]["message"]
    (folder / "rocket.jpg").unlink()
    assert client.get(row["thumb"]).status_code == 404


def test_thumbnails_are_upright_and_kept(client, folder):
    with Image.open(folder / "rocket.jpg") as photo:
        exif = Image.Exif()
        exif[0x0112] = 6
        photo.save(folder / "rocket.jpg", exif=exif)
        size = photo.size[::-1]
    client.look(0)
    row = client.row("rocket.jpg")
    first = client.get(row["thumb"]).content
    (folder.parent / "shown.jpg").write_bytes(first)
    with Image.open(folder.parent / "shown.jpg") as shown:
        assert shown.size == size
    client.studio.thumbnails._make = None  # what is kept needs no image
    assert client.get(row["thumb"]).content == first


def test_duplicates(client, folder):
    shutil.copy(folder / "coffee.png", folder / "again.png")
    client.look(0)
    assert client.row("coffee.png")["duplicates"] is None
    assert client.found("is:duplicate") == ["coffee.png", "again.png"]
    assert client.row("coffee.png")["duplicates"] == [client.row("again.png")["n"]]
    assert client.row("rocket.jpg")["duplicates"] == []
    (folder / "again.png").unlink()
    client.look(0)
    assert client.read("changes?since=0")["scans"]["duplicates"]["state"] in ("idle", "running", "done")


def test_tokens_of_captions_on_disk_and_of_what_is_being_written(folder):
    if real_tokenizers.offline():
        pytest.skip("needs the real tokenizers")
    with reviewing(folder, "model=flux.1-dev", f"tokenizers={real_tokenizers.flux_pipeline()}") as client:
        about = client.read("dataset")
        assert [(one["key"], one["limit"]) for one in about["tokenizers"]] == [("clip", 77), ("t5", 512)]
        answer = client.do("tokens", texts=["a ginger cat", "", "cat " * 100])
        assert answer["counts"][:2] == [[5, 5], [2, 1]]
        assert answer["cuts"][0] == [None, None]
        assert answer["cuts"][2] == [75 * 4, None]
        assert client.row("chelsea.png")["tokens"] == [[5, 5]]
        client.edit("chelsea.png", "cat " * 100, "a ginger cat")
        assert client.found("tokens.clip>77") == ["chelsea.png"]
        assert client.found("", "-tokens")[0] == "chelsea.png"
        assert client.read("rows?filter=tokens.none%3E3", 422)["error"]["kind"] == "filter"


def test_without_tokenizers_it_says_why(client):
    about = client.read("dataset")
    assert about["tokenizers"] == [] and "--model" in about["tokenizers_note"]
    assert client.do("tokens", texts=["x"]) == {"counts": [[]], "cuts": [[]]}


def test_twenty_thousand_images(tmp_path, small_photos):
    names = [f"{number:05d}.jpg" for number in range(20_000)]
    lines = [json.dumps({"file_name": name, "text": f"image {name[:5]}"}) for name in names]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    shutil.copy(small_photos / "rocket.jpg", tmp_path / names[0])
    for name in names[1:]:
        os.link(tmp_path / names[0], tmp_path / name)
    with reviewing(tmp_path) as client:
        answer = client.read("rows")
        assert answer["count"] == 20_000 and answer["numbers"][-1] == 19_999
        rows = client.read("rows/details?numbers=19500-19999")["rows"]
        assert [row["id"] for row in rows] == names[19_500:]
        assert client.found("image AND 01234") == ["01234.jpg"]
        client.edit("01234.jpg", "another")
        assert client.found("another") == ["01234.jpg"]
        since = client.read("changes?since=0")
        assert since["total"] == 20_000


def test_the_history_survives_a_reload_but_not_its_bounds(client, monkeypatch):
    monkeypatch.setattr("calotype.studio.history._MAX_STEPS", 3)
    for number in range(5):
        client.edit("chelsea.png", f"caption {number}")
    assert client.read("dataset")["undo"]["steps"] == 3
    for _ in range(4):
        client.do("undo")
    assert client.row("chelsea.png")["captions"] == ["caption 1"]
    assert time.time() - client.read("history")["steps"][0]["at"] < 60


def test_own_writes_are_no_changes_of_others(client, folder):
    seq = client.look(0)["seq"]
    client.edit("motorcycle_left.png", "a new file")
    row = client.row("coffee.png")
    client.do("edit", edits=[{"n": row["n"], "version": row["version"], "rejected": True}])
    assert (folder / "metadata.jsonl").exists()
    assert client.look(seq)["disk"] == []
    (folder / "coffee.txt").write_text("by another program\n")
    assert [event["what"] for event in client.look(seq)["disk"]] == ["captions"]
    assert client.row("coffee.png")["captions"] == ["by another program"]

"""Captioning runs from the page, by a real server on loopback."""

import time

import pytest
from caption_server import completion, serving
from studio_client import reviewing

from calotype.studio.bodies import CaptioningBody


def ended(client):
    deadline = time.monotonic() + 30
    while (run := client.read("changes?since=0")["run"])["state"] in ("starting", "running", "cancelling"):
        assert time.monotonic() < deadline, run
        time.sleep(0.02)
    return run


def caption(client, server, **more):
    asked = {"backend": "http", "url": server.url, "preset": "short"} | more
    return client.do("captioning/start", 202, **asked)["run"]


def answer(asked):
    return completion(f"an image {asked.image.width} wide, seed {asked.body.get('seed', 0)}")


def test_images_without_a_caption_get_one(client, folder):
    about = client.read("captioning")
    assert about["available"] and about["run"] is None
    assert {"http", "transformers"} <= {backend["name"] for backend in about["backends"]}
    assert "descriptive" in {preset["name"] for preset in about["presets"]}
    with serving(answer) as server:
        seq = client.look(0)["seq"]
        run = caption(client, server, filter="no:caption")
        assert (run["label"], run["total"]) == ("caption motorcycle_left.png", 1)
        run = ended(client)
        assert (run["state"], run["captioned"], run["failed"], run["error"]) == ("done", 1, 0, None)
    (text,) = client.row("motorcycle_left.png")["captions"]
    assert text.startswith("an image 224 wide")
    assert len(server.asked) == 1
    news = client.look(seq)
    assert news["disk"] == []  # our own
    assert news["undo"]["undo"] == "caption motorcycle_left.png"
    assert client.read("captioning")["defaults"]["url"] == server.url
    client.do("undo")
    assert client.row("motorcycle_left.png")["captions"] == []
    assert client.row("chelsea.png")["captions"] == ["a ginger cat"]


def test_caption_again_gives_another_caption(client):
    number = client.row("chelsea.png")["n"]
    seen = set()
    with serving(answer) as server:
        for _ in range(2):
            caption(client, server, numbers=[number], mode="replace", force=True)
            assert ended(client)["state"] == "done"
            seen.add(client.row("chelsea.png")["captions"][0])
    assert len(seen) == 2
    assert {asked.body["temperature"] for asked in server.asked} == {0.7}
    client.do("undo"), client.do("undo")
    assert client.row("chelsea.png")["captions"] == ["a ginger cat"]


def test_a_run_is_cancelled_and_another_one_is_refused_meanwhile(client):
    def slow(asked):
        time.sleep(0.3)
        return answer(asked)

    with serving(slow) as server:
        caption(client, server, mode="replace", force=True)
        error = client.do("captioning/start", 409, backend="http", url=server.url)["error"]
        assert error["kind"] == "busy"
        assert client.do("captioning/cancel")["run"]["state"] in ("cancelling", "cancelled")
        assert ended(client)["state"] == "cancelled"


def test_what_fails_is_said(client):
    client.do("captioning/start", 202, backend="http", url="http://127.0.0.1:9/v1", model="x", filter="no:caption")
    run = ended(client)
    assert run["state"] == "failed" and "127.0.0.1:9" in run["error"]
    with serving(lambda asked: completion("")) as server:
        caption(client, server, filter="no:caption")
        run = ended(client)
    assert run["failed"] == 1
    assert run["failures"][0]["id"] == "motorcycle_left.png" and run["failures"][0]["reason"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"backend": "none"}, "config"),
        ({"preset": "/etc/passwd"}, "config"),
        ({"preset": 3}, "bad_request"),
        ({"mode": "delete"}, "bad_request"),
        ({"n": 0}, "bad_request"),
        ({"filter": "nothing has this"}, "bad_request"),
        ({"numbers": [0], "filter": "cat"}, "bad_request"),
        ({"force": True}, "bad_request"),
        ({"modle": "x"}, "bad_request"),
        ({"backend": "transformers"}, "config"),
        ({"class_word": "dog"}, "config"),
        ({"numbers": [0], "mode": "replace", "force": True, "temperature": 0}, "config"),
        ({"filter": "("}, "filter"),
    ],
)
def test_runs_that_make_no_sense(client, body, kind):
    assert (
        client.do("captioning/start", 422, **{"backend": "http", "url": "http://127.0.0.1:9/v1"} | body)["error"][
            "kind"
        ]
        == kind
    )


def test_an_option_of_the_last_run_is_used_again_and_null_resets_it(client):
    with serving(answer) as server:
        caption(client, server, filter="no:caption", model="one")
        ended(client)
        again = client.studio.runs.options_of
        assert (again(CaptioningBody()).model, again(CaptioningBody()).url) == ("one", server.url)
        assert again(CaptioningBody(model=None)).model is None
        assert again(CaptioningBody(backend="transformers")).url is None


def test_rejected_images_are_not_captioned(client):
    row = client.row("chelsea.png")
    client.do("edit", edits=[{"n": row["n"], "version": row["version"], "rejected": True}])
    error = client.do("captioning/start", 422, backend="http", url="http://127.0.0.1:9/v1", numbers=[row["n"]])["error"]
    assert error["message"] == "there are no images to caption: all 1 selected ones are rejected"


def test_closing_ends_a_run(folder):
    def slow(asked):
        time.sleep(0.2)
        return answer(asked)

    with serving(slow) as server:
        with reviewing(folder) as client:
            caption(client, server, mode="replace", force=True)
        assert client.studio.runs.summary()["state"] in ("cancelled", "done")

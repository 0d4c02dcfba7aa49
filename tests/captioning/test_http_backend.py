"""The backend for OpenAI-compatible servers, against one that fails in every way that they do."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from caption_server import Reply, completion, describe, failure, serving
from PIL import Image

from calotype.captioning import api_client, http_backend
from calotype.captioning.backend import CaptionRequest, open_backend
from calotype.core import retry
from calotype.errors import CaptionError, ConfigError

PICTURE = Image.new("RGB", (40, 30), (200, 30, 30))


def ask(prompt="Describe.", **options):
    return CaptionRequest(image=PICTURE, prompt=prompt, **options)


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(api_client, "FIRST_WAIT", 0.001)


@pytest.fixture
def backend_for():
    """Opens a backend on a server that is given by its answers, and closes both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(http_backend.API_KEY, raising=False)
        opened = []

        def open_for(loopback, **options):
            opened.append(open_backend("http", **{"url": loopback.url, "timeout": 5.0, **options}))
            return opened[-1]

        yield open_for
        for backend in opened:
            backend.close()


GARBAGE = Reply(body=b"<html>Bad gateway</html>")
FAULTS = {
    "429": failure(429, "slow down", Retry_After="0"),
    "429 without a time": failure(429, "slow down"),
    "500": failure(500, "CUDA error"),
    "502 with a page": Reply(status=502, body=b"<html>Bad gateway</html>"),
    "503 still loading": failure(503, "Loading model"),
    "408": failure(408),
    "cut off in its body": Reply(body=b'{"choices": [{"message": {"content": "a red', missing=10),
    "cut off before its body": Reply(body=b"x" * 50, missing=50),
    "garbage": GARBAGE,
    "JSON that is no completion": Reply(body=b'{"object": "error", "message": "no"}'),
    "no choices": Reply(body=b'{"choices": []}'),
    "a message that is no text": completion(5),
    "nested without end": Reply(body=b"[" * 100_000),
}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_that_passes_costs_no_caption(fault, backend_for):
    with serving(lambda asked: FAULTS[fault] if asked.times == 0 else completion("a red card")) as loopback:
        (answer,) = backend_for(loopback).caption([ask()])
        assert answer.text == "a red card"
        assert len(loopback.asked) == 2


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_that_stays_is_one_pictures_error_and_has_an_end(fault, backend_for):
    def respond(asked):
        return FAULTS[fault] if asked.prompt == "bad" else completion("a red card")

    with serving(respond) as loopback:
        backend = backend_for(loopback, retries=2, patience=0.01)
        answers = backend.caption([ask("good"), ask("bad"), ask("fine")])
        assert [answer.text for answer in answers] == ["a red card", None, "a red card"]
        assert answers[1].kind == "failed"
        assert answers[1].error
        tries = [asked for asked in loopback.asked if asked.prompt == "bad"]
        assert 1 <= len(tries) <= 20
        if not fault.startswith(("429", "503")):
            assert len(tries) == 3
            assert "tried 3 times" in answers[1].error


def test_an_answer_that_does_not_come_is_waited_for_so_long_and_no_longer(backend_for):
    with serving(lambda asked: Reply(delay=0.0 if asked.times else 1.0, body=completion("late").body)) as loopback:
        backend = backend_for(loopback, timeout=0.3)
        assert backend.caption([ask()])[0].text == "late"
        assert len(loopback.asked) == 2
    with serving(lambda asked: Reply(delay=0.5, body=completion("late").body)) as loopback:
        (answer,) = backend_for(loopback, timeout=0.1, retries=1).caption([ask()])
        assert answer.kind == "timeout"
        assert "timeout = 0.1 s (tried 2 times)" in answer.error


def test_what_the_server_asks_to_wait_is_waited_by_all(backend_for, monkeypatch):
    waits = []
    monkeypatch.setattr(api_client.ApiClient, "_sleep", lambda self, seconds: waits.append(seconds))
    with serving(lambda asked: failure(429, Retry_After="7") if asked.times == 0 else describe(asked)) as loopback:
        backend = backend_for(loopback)
        assert backend.caption([ask("one")])[0].text
        assert backend.caption([ask("two")])[0].text
    assert max(waits) == pytest.approx(7, abs=0.5)
    assert sum(wait > 5 for wait in waits) >= 3  # the second request is held back by the first one's answer too


def test_a_wait_that_is_longer_than_patience_is_not_begun(backend_for):
    with serving(lambda asked: failure(429, "quota", Retry_After="3600")) as loopback:
        (answer,) = backend_for(loopback).caption([ask()])
        assert answer.kind == "failed"
        assert "429" in answer.error and "quota" in answer.error and "patience = 300 s" in answer.error
        assert len(loopback.asked) == 1


def test_a_date_can_say_how_long_to_wait(backend_for):
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    with serving(lambda asked: describe(asked) if asked.times else failure(429, Retry_After=past)) as loopback:
        assert backend_for(loopback).caption([ask()])[0].text


def test_a_picture_that_breaks_the_server_is_not_waited_for_as_long_as_it_asks(backend_for, monkeypatch):
    waits = []
    monkeypatch.setattr(api_client.ApiClient, "_sleep", lambda self, seconds: waits.append(seconds))
    with serving(lambda asked: failure(500, Retry_After="3600")) as loopback:
        (answer,) = backend_for(loopback).caption([ask()])
        assert answer.kind == "failed" and "tried 4 times" in answer.error
    assert 0 < max(waits) <= 20


def test_closing_ends_a_wait():
    waiting = threading.Event()

    def respond(asked):
        waiting.set()
        return failure(429, Retry_After="200")

    with serving(respond) as loopback:
        backend = open_backend("http", url=loopback.url)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(backend.caption, [ask()])
            assert waiting.wait(10)
            backend.close()
            backend.close()
            with pytest.raises(CaptionError, match="closed"):
                answer.result(10)


def test_a_picture_that_the_server_refuses_costs_the_others_nothing(backend_for):
    def respond(asked):
        return failure(400, "cannot identify image file") if asked.prompt == "bad" else describe(asked)

    with serving(respond) as loopback:
        backend = backend_for(loopback)
        with ThreadPoolExecutor(8) as pool:
            prompts = ["bad" if i == 5 else f"image {i}" for i in range(24)]
            answers = [found[0] for found in pool.map(lambda prompt: backend.caption([ask(prompt)]), prompts)]
        assert [answer.text is None for answer in answers] == [prompt == "bad" for prompt in prompts]
        assert answers[5].kind == "refused"
        assert answers[5].error == "the server answered 400 Bad Request: cannot identify image file"
        assert sum(asked.prompt == "bad" for asked in loopback.asked) == 1
        assert loopback.connections <= 9  # kept alive, and used again


def test_no_more_requests_are_under_way_than_asked_for(backend_for):
    now, most, lock = 0, 0, threading.Lock()

    def respond(asked):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1
        return describe(asked)

    with serving(respond) as loopback:
        backend = backend_for(loopback, concurrency=4)
        assert backend.concurrency == 6  # two more encode their images meanwhile
        with ThreadPoolExecutor(backend.concurrency) as pool:
            answers = list(pool.map(lambda i: backend.caption([ask(str(i))])[0], range(40)))
    assert all(answer.text for answer in answers)
    assert 1 < most <= 4


def test_when_nothing_ever_succeeds_the_run_ends(backend_for):
    with serving(lambda asked: failure(422, "Unexpected fields in the request: {'top_k'}")) as loopback:
        backend = backend_for(loopback, extra={"top_k": 4})
        with pytest.raises(CaptionError, match=r"first 10 images all failed; .*Unexpected fields"):
            backend.caption([ask(str(i)) for i in range(50)])
        assert len(loopback.asked) == 10


def test_a_cut_off_answer_is_asked_for_again_with_more_tokens(backend_for):
    def respond(asked):
        enough = asked.body["max_tokens"] >= 100
        return completion("a red card on a table" if enough else "a red", "stop" if enough else "length")

    with serving(respond) as loopback:
        assert backend_for(loopback, max_tokens=30).caption([ask()])[0].text == "a red card on a table"
        assert [asked.body["max_tokens"] for asked in loopback.asked] == [30, 120]
        (answer,) = backend_for(loopback, max_tokens=10).caption([ask()])
        assert (answer.text, answer.kind, answer.finish_reason) == (None, "cut_off", "length")


def test_reasoning_is_no_caption(backend_for):
    replies = {
        "in the text": completion("<think>The user wants…</think>\n\nA red card."),
        "apart": completion("A red card.", reasoning_content="The user wants…"),
        "too long": completion("<think>The user", "length"),
        "too long, apart": completion(None, "length", reasoning_content="The user"),
    }
    with serving(lambda asked: replies[asked.prompt]) as loopback:
        answers = backend_for(loopback).caption([ask(prompt) for prompt in replies])
        assert [answer.text for answer in answers] == ["A red card.", "A red card.", None, None]
        assert [answer.kind for answer in answers[2:]] == ["reasoning", "reasoning"]
        assert len(loopback.asked) == 6  # the long ones twice


def test_an_empty_answer_is_drawn_again_where_there_are_draws(backend_for):
    def respond(asked):
        return completion("" if asked.body.get("seed", 0) < 1000 else "a red card")

    with serving(respond) as loopback:
        assert backend_for(loopback).caption([ask()])[0].kind == "empty"
        assert "seed" not in loopback.asked[-1].body
        assert backend_for(loopback, temperature=0.7).caption([ask(seed=3)])[0].text == "a red card"
        assert loopback.asked[-2].body["seed"] == 3


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (completion(None, refusal="I can't help with that."), "refused"),
        (completion("", "content_filter"), "refused"),
        (completion("I'm sorry, but I can't describe people."), "refused"),
        (completion([{"type": "text", "text": "a red "}, {"type": "text", "text": "card"}]), None),
    ],
)
def test_odd_messages(reply, kind, backend_for):
    with serving(lambda asked: reply) as loopback:
        (answer,) = backend_for(loopback).caption([ask()])
        assert answer.kind == kind
        assert answer.text == (None if kind else "a red card")


def test_what_is_sent(backend_for, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret-123")
    with serving() as loopback:
        backend = backend_for(
            loopback,
            api_key_env="MY_KEY",
            image_format="png",
            top_p=0.9,
            extra={"chat_template_kwargs": {"enable_thinking": False}, "temperature": None},
        )
        noise = Image.effect_noise((64, 48), 90).convert("RGB")
        backend.caption([CaptionRequest(image=noise, prompt="Describe.", system="You caption.")])
        (asked,) = loopback.asked
        assert asked.headers["Authorization"] == "Bearer secret-123"
        assert asked.body["messages"][0] == {"role": "system", "content": "You caption."}
        assert asked.image.tobytes() == noise.tobytes()
        rest = {key: value for key, value in asked.body.items() if key != "messages"}
        assert rest == {
            "model": "tiny-vl",
            "max_tokens": 512,
            "top_p": 0.9,
            "chat_template_kwargs": {"enable_thinking": False},
        }
        assert json.loads(json.dumps(backend.parameters)) == backend.parameters
        assert "secret-123" not in repr(backend)


def test_the_key_stays_out_of_messages(backend_for, monkeypatch):
    monkeypatch.setenv(http_backend.API_KEY, "secret-123")
    with (
        serving(lambda asked: failure(401, "Incorrect API key provided: secret-123")) as loopback,
        pytest.raises(CaptionError, match=r"401 Unauthorized: Incorrect API key provided: [*]+") as caught,
    ):
        backend_for(loopback).caption([ask()])
    assert "secret-123" not in str(caught.value)
    assert http_backend.API_KEY in str(caught.value)


def test_a_redirect_is_not_followed(backend_for, monkeypatch):
    monkeypatch.setenv(http_backend.API_KEY, "secret-123")
    elsewhere = Reply(status=307, headers={"Location": "http://127.0.0.1:9/v1/chat/completions"})
    with serving(lambda asked: elsewhere) as loopback, pytest.raises(CaptionError, match="redirects to http://127"):
        backend_for(loopback).caption([ask()])


def test_which_model_is_found_out_when_there_is_but_one(backend_for):
    with serving() as loopback:
        assert backend_for(loopback).model == backend_for(loopback, model="auto").model == "tiny-vl"
        assert backend_for(loopback, model="other").model == "other"
    with serving(models=("b", "a")) as loopback, pytest.raises(CaptionError, match=r"lists 2 models; .*: a, b"):
        backend_for(loopback)
    with serving(models=()) as loopback, pytest.raises(CaptionError, match="lists no model"):
        backend_for(loopback)


@pytest.mark.parametrize(
    "reply",
    [
        failure(404, "The model `typo-vl` does not exist."),
        failure(400, "Server is pinned to 'tiny-vl'; requested 'typo-vl'."),
    ],
)
def test_an_unknown_model_is_answered_with_those_there_are(reply, backend_for):
    with (
        serving(lambda asked: reply, models=("b", "a")) as loopback,
        pytest.raises(CaptionError, match="the requested model is 'typo-vl', and the server lists a, b"),
    ):
        backend_for(loopback, model="typo-vl").caption([ask()])


def test_a_wrong_address_is_told_at_once(backend_for):
    with serving() as loopback:
        with pytest.raises(CaptionError, match=r"listing its models failed: the server answered 404 .* vLLM and"):
            open_backend("http", url=f"{loopback.url}/v2")
        pasted = open_backend("http", url=f"{loopback.url}/chat/completions/")
        assert pasted.caption([ask()])[0].text
        host = open_backend("http", url=loopback.url.removesuffix("/v1"))
        assert host.caption([ask()])[0].text
        gone = loopback.url
    with pytest.raises(CaptionError, match=r"no server is listening .*is it running\?.*Ollama at"):
        open_backend("http", url=gone, retries=1)
    for url in ("localhost:8000", "ftp://host/v1", "", "http://"):
        with pytest.raises(ConfigError, match=r"url: found .*expected http"):
            open_backend("http", url=url)
    with pytest.raises(ConfigError, match="name or password"):
        open_backend("http", url="http://me:secret@127.0.0.1/v1")


def test_a_server_that_does_not_list_its_models(backend_for, monkeypatch):
    with serving(models=None) as loopback:
        with pytest.raises(CaptionError, match=r"listing its models failed: the server answered 500 .*set model"):
            backend_for(loopback)
        assert backend_for(loopback, model="tiny-vl").caption([ask()])[0].text
    with (
        serving(lambda asked: failure(404), models=None) as loopback,
        pytest.raises(CaptionError, match=r"the requested model is 'tiny-vl', and the server does not list"),
    ):
        backend_for(loopback, model="tiny-vl").caption([ask()])


def test_options_out_of_range(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    for options, message in [
        ({"image_format": "webp"}, "image_format: found 'webp', expected 'jpeg' or 'png'"),
        ({"concurrency": 0}, "concurrency: found 0, expected a whole number above 0"),
        ({"timeout": 0}, "timeout: found 0, expected a number of at least"),
        ({"max_tokens": 0}, "max_tokens: a whole number above 0"),
        ({"temperature": 3}, "temperature: a number from 0 to 2"),
        ({"top_p": 0}, "top_p: a number above 0"),
        ({"api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY is not set"),
        ({"max_token": 5}, "did you mean 'max_tokens'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            open_backend("http", url="http://127.0.0.1:1/v1", **options)
    with pytest.raises(ConfigError, match="url"):
        open_backend("http")

"""What the hub answers within seconds, and what a hub that can't be reached costs."""

import socket
import time

import huggingface_hub
import loopback_hub
import pytest
from huggingface_hub.errors import RepositoryNotFoundError

from calotype.core import hub


@pytest.fixture
def at(monkeypatch):
    monkeypatch.setattr(hub, "HUB_TIMEOUT", 0.3)
    return lambda url: monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)


def test_a_repository_that_the_hub_has_and_one_that_it_has_not(at):
    with loopback_hub.serving({"model_index.json": b"{}"}) as server:
        at(server.url)
        hub.ask_hub("owner/model", "model")
        with pytest.raises(RepositoryNotFoundError):
            hub.ask_hub("owner/other", "dataset")


def test_a_silent_hub_is_given_up(at):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ConnectionError, match=r"no answer within 0\.3 s"):
            hub.ask_hub("owner/model", "model")


def test_so_is_a_name_server(at, monkeypatch):
    """Nothing limits the time of getaddrinfo."""
    at("http://hub.invalid")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(2))
    with pytest.raises(ConnectionError, match=r"no answer within 0\.3 s"):
        hub.ask_hub("owner/model", "model")


def test_refused_and_offline(at, monkeypatch):
    at("http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"refused|attempts failed"):
        hub.ask_hub("owner/model", "model")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set"):
        hub.ask_hub("owner/model", "model")

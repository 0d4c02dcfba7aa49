"""`calotype studio` as it is typed: its address, its end, and what it needs."""

import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import webbrowser
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from calotype.cli.studio import studio
from calotype.errors import ConfigError, MissingDependencyError


def test_it_prints_its_address_and_ends_with_ctrl_c(folder):
    command = [Path(sys.executable).parent / "calotype", "studio", folder, "--no-open"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"5 images of photos\. Open (http://127\.0\.0\.1:\d+/)\?code=(\S{43})\n", line)
        assert found, line + process.stderr.read()
        cookies = CookieJar()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
        with browser.open(f"{found[1]}?code={found[2]}") as answer:
            assert answer.status == 200 and answer.url == found[1]
        with browser.open(f"{found[1]}api/rows") as answer:
            assert answer.status == 200
        process.stdout.readline()
        another = re.fullmatch(r"For another browser, once: \S+\?code=(\S{43})\n", process.stdout.readline())
        (token,) = (cookie.value for cookie in cookies)
        assert another and len({another[1], found[2], token}) == 3  # the token itself is in no address
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(f"{found[1]}api/rows")
        refused.value.close()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.communicate()


def test_it_opens_the_page_unless_told_not_to(folder, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(
        "calotype.studio.server.serve", lambda made, port, ready, again: ready(f"http://127.0.0.1:{port}/")
    )
    studio(str(folder), port=8123)
    studio(str(folder), port=8124, open_browser=False)
    assert opened == ["http://127.0.0.1:8123/"]


def test_without_the_extra_it_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "calotype.studio.server", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for name in [name for name in sys.modules if name.startswith(("calotype.studio.server", "calotype.studio.conn"))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingDependencyError, match=r"calotype\[studio\]"):
        studio(str(folder))


def test_a_dataset_of_another_kind_is_refused(tmp_path):
    config = tmp_path / "other.yaml"
    config.write_text("dataset: {_component_: torchtune.datasets.text_completion_dataset, source: x}\n")
    with pytest.raises(ConfigError, match="can't be reviewed"):
        studio(str(config))

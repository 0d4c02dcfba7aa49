"""Small files beside data: regular ones, of bounded length, and nothing that a reader could wait for."""

import os
import socket

import pytest

from calotype.captioning.presets import load_preset
from calotype.config import load_config
from calotype.core.small_files import read_small_file, require_regular
from calotype.editing import open_captions
from calotype.errors import ConfigError, ManifestError
from calotype.manifest import load_manifest


@pytest.fixture
def odd(tmp_path):
    """Files that are no files, by what is said of them, in a folder of their own."""
    home = tmp_path / "odd"
    home.mkdir()
    os.mkfifo(home / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(home / "socket"))
    yield {"a pipe": home / "pipe", "a socket": home / "socket", "a device": "/dev/zero", "a folder": home}
    listening.close()


def test_a_file_is_read_whole_up_to_the_limit(tmp_path):
    file = tmp_path / "a.txt"
    for length in (0, 1, 10):
        file.write_bytes(b"x" * length)
        assert read_small_file(file, limit=10) == b"x" * length
    file.write_bytes(b"x" * 11)
    with pytest.raises(OSError, match="longer than 10 bytes"):
        read_small_file(file, limit=10)
    assert read_small_file("/proc/self/status").startswith(b"Name:")  # a length of 0, and a text all the same


def test_what_is_no_regular_file_is_an_error_and_nothing_waits(odd, tmp_path):
    link = tmp_path / "link.txt"
    for what, path in odd.items():
        link.symlink_to(path)
        with pytest.raises(OSError, match=what):
            require_regular(link)
        with pytest.raises(OSError, match="No such device" if what == "a socket" else what):
            read_small_file(link)
        link.unlink()


@pytest.mark.parametrize("what", ["a pipe", "a device"])
def test_readers_of_small_files_name_them(odd, what, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"no pixel is looked at")
    (folder / "a.txt").symlink_to(odd[what])
    with pytest.raises(ManifestError, match=rf"a\.txt: the caption file can't be read: it is {what}"):
        load_manifest(folder)
    (state,) = open_captions(folder).read().values()
    assert f"a.txt: the caption file can't be read: it is {what}" in state.problem
    (folder / "a.txt").unlink()
    (folder / "metadata.jsonl").symlink_to(odd[what])
    with pytest.raises(ManifestError, match=rf"metadata\.jsonl: can't be read: it is {what}"):
        load_manifest(folder)
    with pytest.raises(ManifestError, match=rf"metadata\.jsonl: can't be read: it is {what}"):
        open_captions(folder)
    for name in ("config.yaml", "preset.yaml"):
        (folder / name).symlink_to(odd[what])
    with pytest.raises(ConfigError, match=rf"config\.yaml: can't be read: it is {what}"):
        load_config(folder / "config.yaml")
    with pytest.raises(ConfigError, match=r"preset.*preset\.yaml"):
        load_preset(folder / "preset.yaml")


def test_an_endless_caption_file_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ManifestError, match=r"a\.txt: the caption file can't be read: longer than 1,048,576 bytes"):
        load_manifest(tmp_path)


def test_a_list_of_captions_that_is_a_pipe_is_not_looked_into(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    os.mkfifo(tmp_path / "annotations.json")
    os.mkfifo(tmp_path / "a.tags")
    assert len(load_manifest(tmp_path, missing_captions="empty")) == 1

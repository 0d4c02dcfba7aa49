"""Files that are replaced whole: an error, a kill or a full disk leaves the old contents and no temporary file."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys

import pytest

from calotype.core.atomic import new_file, replace_file


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


@pytest.mark.parametrize("data", [b"new", bytearray(b"new"), memoryview(b"new"), [b"n", memoryview(b"ew")]])
def test_the_contents_are_replaced(file, data):
    replace_file(file, data)
    assert file.read_bytes() == b"new" and list(file.parent.iterdir()) == [file]


def test_an_existing_file_keeps_its_mode_and_a_new_one_has_that_of_the_umask(file):
    file.chmod(0o640)
    replace_file(file, b"new")
    assert mode(file) == 0o640
    before = os.umask(0o002)
    try:
        replace_file(file.with_name("another"), b"", durable=False)
    finally:
        os.umask(before)
    assert mode(file.with_name("another")) == 0o664


def test_a_link_stays_a_link(file):
    link = file.with_name("link")
    link.symlink_to("file")
    replace_file(link, b"new")
    assert link.is_symlink() and file.read_bytes() == b"new"


def test_a_failure_while_writing_leaves_the_old_contents(file):
    def parts():
        yield b"new"
        raise KeyError

    with pytest.raises(KeyError):
        replace_file(file, parts())
    assert file.read_bytes() == b"old" and list(file.parent.iterdir()) == [file]


def test_no_space_leaves_the_old_contents_and_no_temporary_file(file):
    """A limit of the file's size fails as a full disk does, also while buffers are flushed."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        for parts in ([bytes(2000)], [bytes(999), bytes(2)]):
            with pytest.raises(OSError) as caught:
                replace_file(file, parts)
            assert caught.value.errno == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert file.read_bytes() == b"old" and list(file.parent.iterdir()) == [file]


def test_a_kill_before_the_rename_leaves_the_old_contents(file):
    code = (
        "import os, signal, sys; from pathlib import Path; from calotype.core.atomic import new_file\n"
        "path = Path(sys.argv[1])\n"
        "with new_file(path.parent) as new: new.file.write(b'new'); new.file.flush(); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(file)], check=False)
    assert killed.returncode == -signal.SIGKILL and file.read_bytes() == b"old"
    replace_file(file, b"new")
    assert file.read_bytes() == b"new"


def test_a_new_file_that_is_not_published_is_deleted(file):
    with new_file(file.parent) as new:
        new.file.write(b"new")
    assert list(file.parent.iterdir()) == [file]

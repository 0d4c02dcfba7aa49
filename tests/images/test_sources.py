"""Where bytes come from: files, byte ranges, LMDB and URLs other than http(s)."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from calotype.errors import DecodeError, FetchError, ImageError, MissingDependencyError
from calotype.images import Downloads, Fetcher, ImageReader
from calotype.images.sources import _FSSPEC
from calotype.types import ImageRef

READER = ImageReader()


@pytest.fixture
def lossless(photo, encode) -> bytes:
    return encode(photo, "PNG")


def test_a_file(photo, lossless, ref):
    assert READER.read_bytes(ref(lossless)) == lossless
    assert np.array_equal(READER.read(ref(lossless)).pixels, np.asarray(photo))


def test_a_file_url_with_odd_characters(photo, lossless, tmp_path):
    path = tmp_path / "a café & co%.png"
    path.write_bytes(lossless)
    ref = ImageRef(name="a", url=path.as_uri())
    assert READER.read_bytes(ref) == lossless
    assert READER.size(ref) == (149, 203)


def test_what_is_not_there_or_no_file_is_an_image_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, reason in [
        (tmp_path / "gone.jpg", "no such file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        (str(tmp_path / "nul\0l.jpg"), "can't be opened"),
        (str(tmp_path / ("x" * 300)), "can't be opened"),
    ]:
        ref = ImageRef(name="cats/a.jpg", path=str(path))
        for call in (READER.read, READER.read_bytes, READER.header):
            with pytest.raises(ImageError, match=reason) as caught:
                call(ref)
            assert caught.value.ref == "cats/a.jpg"
    with pytest.raises(ImageError, match="neither a path nor a URL"):
        READER.read(ImageRef(name="a"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(lossless, ref):
    picture = ref(lossless)
    Path(picture.path).chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        READER.read(picture)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_member_of_a_tar_is_read_in_place(photo, encode, tmp_path, format):
    data = encode(photo, format)
    (tmp_path / "a.bin").write_bytes(data)
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for _ in range(3):
            tar.add(tmp_path / "a.bin", "a.bin")
    with tarfile.open(tmp_path / "shard.tar") as tar:
        member = tar.getmembers()[1]
    ref = ImageRef(
        name="shard.tar!a.bin", path=str(tmp_path / "shard.tar"), offset=member.offset_data, size=member.size
    )
    assert READER.read_bytes(ref) == data
    assert READER.header(ref).bytes == len(data)
    assert READER.header(ref).size == READER.read(ref).original_size == (149, 203)


def test_a_range_beyond_the_end_says_that_the_archive_was_cut(lossless, tmp_path):
    (tmp_path / "shard.tar").write_bytes(lossless)
    for offset, size in [(10, len(lossless)), (len(lossless) + 1, 1), (-1, 5), (0, -2)]:
        ref = ImageRef(name="shard.tar!a", path=str(tmp_path / "shard.tar"), offset=offset, size=size)
        with pytest.raises(ImageError, match="truncated or changed since it was indexed"):
            READER.read(ref)
    empty = ImageRef(name="shard.tar!a", path=str(tmp_path / "shard.tar"), offset=5, size=0)
    with pytest.raises(DecodeError, match="empty"):
        READER.read(empty)


# --------------------------------------------------------------------------------------------------------------- LMDB


@pytest.fixture(params=["folder", "file"])
def environment(request, tmp_path, lossless) -> Path:
    lmdb = pytest.importorskip("lmdb")
    path = tmp_path / "pictures.lmdb"
    with (
        lmdb.open(str(path), subdir=request.param == "folder", map_size=1 << 22) as env,
        env.begin(write=True) as write,
    ):
        write.put(b"a.png", lossless)
    return path


def _child(ref: ImageRef, expected: bytes) -> None:
    sys.exit(0 if ImageReader().read_bytes(ref) == expected else 1)


def test_lmdb_from_threads_and_from_forked_and_spawned_processes(environment, lossless):
    ref = ImageRef(name="pictures.lmdb!a.png", path=str(environment), key=b"a.png")
    with ThreadPoolExecutor(8) as pool:
        assert all(data == lossless for data in pool.map(READER.read_bytes, [ref] * 64))
    assert READER.size(ref) == (149, 203)
    for method in ("fork", "spawn"):
        process = multiprocessing.get_context(method).Process(target=_child, args=(ref, lossless))
        process.start()
        process.join(60)
        assert process.exitcode == 0


def test_what_lmdb_does_not_have(environment, tmp_path, monkeypatch):
    with pytest.raises(ImageError, match=r"has no key b'b\.png'"):
        READER.read(ImageRef(name="b", path=str(environment), key=b"b.png"))
    with pytest.raises(ImageError, match="can't be read"):
        READER.read(ImageRef(name="b", path=str(tmp_path / "nowhere"), key=b"b.png"))
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(MissingDependencyError, match=r"calotype\[lmdb\]"):
        READER.read(ImageRef(name="b", path=str(environment), key=b"b.png"))


# ------------------------------------------------------------------------------------------------------------- fsspec


@pytest.fixture
def memory(lossless, monkeypatch) -> Iterator[str]:
    """A file system in memory, in the place of Google's."""
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setitem(_FSSPEC, "gs", "memory")
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/bucket/a b.png", lossless)
    yield "gs://bucket/a b.png"
    filesystem.rm("/bucket", recursive=True)


def test_other_file_systems_through_fsspec(memory, lossless, tmp_path):
    ref = ImageRef(name=memory, url=memory)
    assert READER.read_bytes(ref) == lossless
    assert READER.size(ref) == (149, 203)
    with pytest.raises(FetchError, match="no such file"):
        READER.read(ImageRef(name="x", url="gs://bucket/gone.png"))
    with pytest.raises(FetchError, match="longer than max_bytes = 100"):
        ImageReader(fetcher=Fetcher(max_bytes=100)).read(ref)
    kept = ImageReader(fetcher=Fetcher(downloads=Downloads(tmp_path / "kept")))
    assert kept.read_bytes(ref) == lossless
    __import__("fsspec").filesystem("memory").pipe("/bucket/a b.png", b"changed")
    assert kept.read_bytes(ref) == lossless
    assert READER.read_bytes(ref) == b"changed"


@pytest.mark.parametrize(
    "url",
    [
        *("github://x/y", "local:///etc/passwd", "memory://bucket/a b.png", "simplecache::gs://bucket/a b.png"),
        *("gopher://x/y", "nothing"),
    ],
)
def test_other_schemes_and_chains_are_refused(memory, url):
    with pytest.raises(FetchError, match=r"not supported \(supported: file, ftp, ftps, gcs, gs, hf, http, https, s3\)"):
        READER.read(ImageRef(name=url, url=url))


def test_a_missing_package_is_named(memory, monkeypatch):
    with pytest.raises(FetchError, match=r"s3:// needs another package: .*s3fs"):
        monkeypatch.setitem(sys.modules, "s3fs", None)
        READER.read(ImageRef(name="x", url="s3://bucket/a.png"))
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingDependencyError, match=r"calotype\[hub\]"):
        READER.read(ImageRef(name=memory, url=memory))


class _FTP(threading.Thread):
    """The part of an FTP server (RFC 959) that reading one file takes."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(daemon=True)
        self.files, self.users = files, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def run(self) -> None:
        while True:
            try:
                control, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(control,), daemon=True).start()

    def serve(self, control: socket.socket) -> None:
        lines = control.makefile("r")

        def say(text: str) -> None:
            control.sendall(text.encode() + b"\r\n")

        data, offset = None, 0
        say("220 ready")
        for line in lines:
            verb, _, rest = line.strip().partition(" ")
            verb = verb.upper()
            if verb == "USER":
                self.users.append(rest)
                say("331 password?")
            elif verb in ("PASS", "CWD"):
                say("230 fine")
            elif verb == "TYPE":
                say("200 fine")
            elif verb == "PWD":
                say('257 "/"')
            elif verb in ("EPSV", "PASV"):
                data = socket.create_server(("127.0.0.1", 0))
                port = data.getsockname()[1]
                passive = f"227 entering (127,0,0,1,{port >> 8},{port & 255})"
                say(f"229 entering (|||{port}|)" if verb == "EPSV" else passive)
            elif verb == "SIZE":
                say(f"213 {len(self.files[rest])}" if rest in self.files else "550 no such file")
            elif verb == "REST":
                offset = int(rest)
                say("350 from there")
            elif verb in ("MLSD", "LIST", "RETR") and data is not None:
                if verb == "RETR" and rest not in self.files:
                    say("550 no such file")
                    continue
                say("150 here it comes")
                sent, _ = data.accept()
                if verb == "RETR":
                    body = self.files[rest][offset:]
                else:
                    body = b"".join(
                        f"type=file;size={len(x)}; {Path(name).name}\r\n".encode() for name, x in self.files.items()
                    )
                with contextlib.suppress(OSError):
                    sent.sendall(body)
                sent.close()
                data.close()
                data, offset = None, 0
                say("226 done")
            elif verb == "QUIT":
                say("221 bye")
                break
            else:
                say("502 not here")
        lines.close()
        control.close()


@pytest.fixture
def ftp(lossless) -> Iterator[_FTP]:
    server = _FTP({"/a.png": lossless})
    server.start()
    yield server
    server.listener.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # fsspec's FTP closes late
def test_ftp(ftp, lossless):
    pytest.importorskip("fsspec")
    url = f"ftp://me:secret@127.0.0.1:{ftp.port}/a.png"
    with pytest.raises(FetchError, match="private, loopback or reserved") as caught:
        READER.read(ImageRef(name=url, url=url))
    assert "secret" not in str(caught.value)
    assert ftp.users == []
    reader = ImageReader(fetcher=Fetcher(allow_private=True))
    assert reader.read_bytes(ImageRef(name=url, url=url)) == lossless
    assert ftp.users[0] == "me"
    gone = url.replace("a.png", "b.png")
    with pytest.raises(FetchError) as caught:
        reader.read_bytes(ImageRef(name=gone, url=gone))
    assert "secret" not in str(caught.value)


def test_a_reader_of_everything_is_picklable_after_use(environment, memory, lossless):
    reader = ImageReader()
    reader.read_bytes(ImageRef(name="a", path=str(environment), key=b"a.png"))
    reader.read_bytes(ImageRef(name=memory, url=memory))
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.read_bytes(ImageRef(name="a", path=str(environment), key=b"a.png")) == lossless


def test_nothing_optional_is_imported_before_it_is_used():
    code = "import sys, calotype.images; print([m for m in ('lmdb', 'fsspec', 'pillow_heif') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr

"""A process that forks while its threads read images: the child reads on, and never hangs."""

from __future__ import annotations

import multiprocessing
import threading

import pytest

from calotype.images import Downloads, Fetcher, ImageReader
from calotype.images.colour import _lock as colour_lock
from calotype.images.pillow import _lock as quiet_lock
from calotype.images.sources import _environments_lock as lmdb_lock
from calotype.types import ImageRef


def _child(reader: ImageReader, refs: list[ImageRef]) -> None:
    for ref in refs:
        reader.read(ref)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 on says that forking with threads is a risk
def test_a_child_forked_while_every_lock_is_held_reads_on(photo, encode, ref, icc, serve, tmp_path):
    lmdb = pytest.importorskip("lmdb")
    server = serve()
    with lmdb.open(str(tmp_path / "env"), map_size=1 << 22) as environment, environment.begin(write=True) as write:
        write.put(b"a", server.picture)
    url = f"{server.url}/picture/a"
    refs = [
        ref(encode(photo, "PNG", icc_profile=icc.p3.profile())),
        ImageRef(name="a", path=str(tmp_path / "env"), key=b"a"),
        ImageRef(name=url, url=url),
    ]
    downloads = Downloads(tmp_path / "kept", max_images=3)
    fetcher = Fetcher(downloads=downloads, allow_private=True)
    reader = ImageReader(fetcher=fetcher)
    fetcher.fetch(url)  # a kept-alive connection that the child must not write into
    release, held = threading.Event(), threading.Event()

    def hold() -> None:
        process = downloads._process
        with (
            colour_lock,
            quiet_lock,
            lmdb_lock,
            process.lock,
            process.index_lock,
            fetcher._network._lock,
            fetcher._network._hosts._changed,
        ):
            held.set()
            release.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    child = multiprocessing.get_context("fork").Process(target=_child, args=(reader, refs), daemon=True)
    child.start()
    child.join(30)
    exitcode = child.exitcode
    if exitcode is None:
        child.kill()
    release.set()
    thread.join()
    assert exitcode == 0
    before = server.connections
    fetcher.fetch(url)
    assert server.connections == before  # the parent's own connection is still good

"""The budget of bytes being decoded: never more than the limit, in the order of asking, and always given back."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from calotype.errors import ImageError
from calotype.images import ImageReader, decode
from calotype.images.locks import DECODING, Budget


def test_threads_never_have_more_than_the_limit_and_all_come_through():
    budget = Budget(100)
    most, lock, alone = 0, threading.Lock(), []

    def work(number: int) -> None:
        nonlocal most
        size = (7, 40, 100, 250)[number % 4]  # the last is larger than the whole
        with budget.take(size):
            with lock:
                most = max(most, budget.used)
            if size >= 100:
                alone.append(budget.used)
            threading.Event().wait(0.0005)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(200)))
    assert most == 100 and set(alone) == {100} and budget.used == 0


def test_what_waits_for_much_is_not_passed_by_those_who_want_little():
    budget, order = Budget(100), []

    def ask(size: int) -> None:
        with budget.take(size):
            order.append(size)

    with budget.take(60):
        threads = []
        for size in (90, 10, 20):
            threads.append(threading.Thread(target=ask, args=(size,)))
            threads[-1].start()
            while len(budget._queue) < len(threads):
                pass
        assert not order
    for thread in threads:
        thread.join()
    assert order[0] == 90 and sorted(order) == [10, 20, 90] and budget.used == 0


def test_it_is_given_back_after_errors_and_interrupts():
    budget = Budget(100)
    for error in (ValueError, KeyboardInterrupt, MemoryError):
        with pytest.raises(error), budget.held(), budget.take(80, kept=30):
            raise error
        assert budget.used == 0
    with pytest.raises(ValueError, match="later"), budget.held():
        with budget.take(80, kept=30):
            pass
        raise ValueError("later")
    assert budget.used == 0


def test_what_is_kept_counts_until_its_end_or_the_next_one():
    budget = Budget(100)
    with budget.held():
        with budget.take(80, kept=30):
            assert budget.used == 80
        assert budget.used == 30
        with budget.take(100, kept=50):  # nobody waits while holding a part
            assert budget.used == 100
        assert budget.used == 50
    assert budget.used == 0
    with budget.take(80, kept=30):
        pass
    assert budget.used == 0  # nobody says until when


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_all_of_it():
    budget = Budget(100)
    with budget.take(100):
        if not (child := os.fork()):
            with budget.take(100):
                os._exit(budget.used - 100)
        assert os.waitpid(child, 0)[1] == 0


def test_decoding_takes_from_it_and_gives_back(photo, encode, ref, monkeypatch):
    images = [
        encode(photo, format, **options)
        for format, options in [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("GIF", {})]
    ]
    budget = Budget(photo.width * photo.height * 20)
    monkeypatch.setattr(decode, "DECODING", budget)
    reader = ImageReader()
    refs = [ref(data, f"{number}") for number, data in enumerate(images)]
    refs += [ref(data[: len(data) // 2], f"cut{number}") for number, data in enumerate(images)]
    taken = []
    acquire = budget._acquire
    monkeypatch.setattr(budget, "_acquire", lambda size: (acquire(size), taken.append((size, budget.used))))

    def read(one):
        try:
            return reader.read(one).pixels
        except ImageError:
            return None

    alone = [read(one) for one in refs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for one, two in zip(alone, pool.map(read, refs), strict=True):
                assert (one is None) == (two is None) and (one is None or np.array_equal(one, two))
    assert sum(one is None for one in alone) >= 3 and budget.used == 0
    assert len(taken) >= 4 * 8 and all(size <= used <= budget.limit for size, used in taken)
    assert DECODING.used == 0


def test_each_kind_of_image_takes_what_it_needs_and_keeps_its_pixels(photo, encode, ref, monkeypatch):
    budget, taken = Budget(1 << 40), []
    acquire = budget._acquire
    monkeypatch.setattr(decode, "DECODING", budget)
    monkeypatch.setattr(budget, "_acquire", lambda size: (taken.append(size), acquire(size)))
    several = {"progressive": True}
    images = [(photo, "JPEG", {}), (photo, "JPEG", several), (photo.convert("CMYK"), "JPEG", {}), (photo, "PNG", {})]
    area = photo.width * photo.height
    for image, format, options in images:
        with budget.held():
            ImageReader().read(ref(encode(image, format, **options)))
            assert budget.used == 3 * area
        assert budget.used == 0
    assert taken == [7 * area, 13 * area, 13 * area, 9 * area]

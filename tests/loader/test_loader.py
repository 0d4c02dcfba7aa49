"""The Loader in this process and over the loader process: same bits, epochs, states, errors."""

import dataclasses
import gc
import io
import logging
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch
from loader_helpers import alive, digest, ids, until
from real_tokenizers import flux_tokenizers

import calotype
from calotype.data.collate import collate
from calotype.errors import ConfigError, DecodeError, LoaderError
from calotype.loader.batch_builder import HeapMemory
from calotype.loader.plan import Cursor
from calotype.loader.process import Seek, _Server
from calotype.loader.produce import Producer
from calotype.loader.source import ProcessSource, ThreadSource
from calotype.types import SampleKey


def test_same_bits_from_any_number_of_threads_in_or_out_of_process(dataset):
    expected = None
    for options in (
        {"in_process": True, "threads": 1},
        {"in_process": True, "threads": 4, "prefetch": 5},
        {"threads": 1, "prefetch": 1},
        {"threads": 2},
    ):
        with calotype.Loader(dataset, 3, seed=11, **options) as loader:
            got = [digest(batch) for _ in range(3) for batch in loader]
        expected = expected or got
        assert got == expected, options
    assert len(set(expected)) == len(expected)  # augmentations differ in every epoch


def test_loader_gives_what_the_dataset_gives(dataset):
    """The slow, obvious way: ask the plan for keys, the dataset for samples, and collate them."""
    with calotype.Loader(dataset, 3, seed=2) as loader:
        for epoch in range(2):
            plan = loader.plan.epoch(epoch)
            for step, batch in enumerate(loader):
                expected = collate([dataset[key] for key in plan[step]])
                assert digest(batch) == digest(expected)


def test_an_epoch_is_every_picture_once_and_the_next_for_is_the_next_epoch(dataset):
    with calotype.Loader(dataset, 5, in_process=True) as loader:
        first, second = list(loader), list(loader)
        assert loader.epoch == 2
    assert Counter(ids(first)) == Counter(ids(second)) == Counter(str(id) for id in dataset.manifest.ids)
    assert ids(first) != ids(second)
    assert len(loader) == len(first)
    shapes = {tuple(batch["img"].shape[2:]) for batch in first}
    assert len(shapes) == 3 and shapes < set(dataset.buckets.sizes)


def test_five_pictures_and_a_batch_of_eight(square):
    few = calotype.TextToImageDataset(
        square.manifest.select(range(5)),
        img_transform=square.img_transform,
        caption_transform=square.caption_transform,
        include=("id",),
    )
    with calotype.Loader(few, 8, in_process=True) as loader:
        assert [len(batch["id"]) for batch in loader] == [5]
    with calotype.Loader(few, 8, in_process=True, remainder="repeat") as loader:
        assert [len(batch["id"]) for batch in loader] == [8]
        assert loader.ledger.counts() == {"repeated": 3}
        assert {entry.id for entry in loader.ledger} < set(map(str, few.manifest.ids))
    with pytest.raises(ConfigError, match="no bucket holds batch_size × world_size = 8 of the 5 samples"):
        calotype.Loader(few, 8, remainder="drop")


def test_break_ends_the_epoch_and_a_state_taken_then_resumes_inside_it(dataset):
    with calotype.Loader(dataset, 2, seed=4) as loader:
        whole = [[digest(batch) for batch in loader] for _ in range(3)]
        loader.load_state_dict({"epoch": 0})
        got = []
        for step, batch in enumerate(loader):
            got.append(digest(batch))
            if step == 1:
                break
        state = loader.state_dict()
        assert got == whole[0][:2]
        assert [digest(batch) for batch in loader] == whole[1]
        loader.load_state_dict(state)
        assert [digest(batch) for batch in loader] == whole[0][2:]
        assert [digest(batch) for batch in loader] == whole[1]


def test_state_inside_the_loop_points_to_the_next_batch(dataset):
    with calotype.Loader(dataset, 2, seed=4, in_process=True) as loader:
        batches, states = [], []
        for batch in loader:
            batches.append(digest(batch))
            states.append(loader.state_dict())
        following = [digest(batch) for batch in loader]
    with calotype.Loader(dataset, 2, seed=4, in_process=True) as other:
        for done, state in enumerate(states, start=1):
            other.load_state_dict(state)
            rest = batches[done:] or following  # a state taken with the last batch goes on with the next epoch
            assert [digest(batch) for batch in other] == rest


def test_resume_at_another_world_and_batch_size_is_exact(square):
    def loaders(world_size, batch_size):
        return [
            calotype.Loader(square, batch_size, seed=9, rank=r, world_size=world_size, in_process=True, threads=1)
            for r in range(world_size)
        ]

    seen = Counter()
    before = loaders(2, 2)
    for loader in before:
        for step, batch in enumerate(loader):
            seen.update(batch["id"])
            if step == 0:
                break
    state = before[0].state_dict()
    middle = loaders(4, 1)
    for loader in middle:
        loader.load_state_dict(state)
        for batch in loader:
            seen.update(batch["id"])
            break
    state = middle[0].state_dict()
    (last,) = loaders(1, 3)
    last.load_state_dict(state)
    assert len(last) == 1 + 1 + 2  # what was done before counts too
    seen.update(ids(last))
    assert seen == Counter(str(id) for id in square.manifest.ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 99}, "saved with seed 99, this loader has 0; load_state_dict"),
        ({"order": "x"}, "other images, sizes or options of the order"),
        ({"version": 77}, "not a state of this loader"),
    ],
)
def test_a_state_of_something_else_is_refused(square, change, message):
    loader = calotype.Loader(square, 2, in_process=True)
    with pytest.raises(LoaderError, match=message):
        loader.load_state_dict(loader.state_dict() | change)


def test_a_dataset_that_changed_is_refused(square, photos, tmp_path):
    state = calotype.Loader(square, 2, in_process=True).state_dict()
    copy = tmp_path / "moved"
    shutil.copytree(photos, copy)
    options = {"img_transform": {"resize": 128, "center_crop": True}}
    moved = calotype.text_to_image_dataset(path=copy, **options)
    calotype.Loader(moved, 2, in_process=True).load_state_dict(state)  # moving a folder changes nothing
    smaller = calotype.text_to_image_dataset(path=copy, validation=0.3, split="train", **options)
    with pytest.raises(LoaderError, match="other images"):
        calotype.Loader(smaller, 2, in_process=True).load_state_dict(state)


def test_collecting_batches_neither_hangs_nor_overwrites_them(dataset):
    """More batches are kept than there are slots; each still holds what it held when it came."""
    with calotype.Loader(dataset, 2, seed=1, prefetch=1) as loader:
        kept = [batch for _ in range(3) for batch in loader]
        after = [digest(batch) for batch in kept]
    with calotype.Loader(dataset, 2, seed=1, in_process=True) as loader:
        assert [digest(batch) for _ in range(3) for batch in loader] == after


class Raw:
    """A transform that is not a `ModelTransform`: its uint8 tensors reach the trainer as views of a slot."""

    def __call__(self, sample):
        return {"pixels": sample["image"], "flags": torch.tensor([1, 2])}


def test_views_of_slots_stay_whole_and_saving_one_saves_no_more(photos):
    dataset = calotype.text_to_image_dataset(Raw(), path=photos, img_transform={"resize": 200, "center_crop": True})
    expected = [digest(b) for b in calotype.Loader(dataset, 3, in_process=True)]
    with calotype.Loader(dataset, 3, prefetch=1) as loader:
        kept = list(loader)
        assert [digest(batch) for batch in kept] == expected
        loader.load_state_dict({"epoch": 0})
        batch = next(iter(loader))
        assert batch["pixels"].untyped_storage().nbytes() == batch["pixels"].nbytes == 3 * 3 * 200 * 200
        file = io.BytesIO()
        torch.save(batch["flags"], file)
        assert file.tell() < 4000
        batch["pixels"] += 1  # ours to change
        pid = loader._source.pid
    assert not alive(pid)
    assert [digest(batch) for batch in kept] == expected  # outlive the loader


def test_lambdas_and_local_classes_travel(photos):
    class Local:
        def __call__(self, sample):
            return {"mean": sample["image"].float().mean()}

    dataset = calotype.text_to_image_dataset(
        Local(),
        path=photos,
        img_transform={"resize": 64, "center_crop": True, "custom": [lambda image: 255 - image]},
    )
    with calotype.Loader(dataset, 4, seed=3) as loader:
        (first, *_) = loader
    plan = loader.plan.epoch(0)
    assert first["mean"].tolist() == [dataset[key]["mean"].item() for key in plan[0]]


def test_numbers_and_lists_of_tokens_travel(photos):
    def measure(sample):
        text = sample["text"]
        numbers = {"length": len(text), "share": 1 / (1 + len(text)), "long": len(text) > 20}
        return {"image": sample["image"], **numbers, "tokens": list(text.encode())}

    dataset = calotype.text_to_image_dataset(measure, path=photos, img_transform={"resize": 64, "center_crop": True})
    with calotype.Loader(dataset, 4, seed=3) as loader:
        (first, *_) = loader
    expected = collate([dataset[key] for key in loader.plan.epoch(0)[0]])
    assert first.keys() == expected.keys() and {"length", "share", "long", "tokens", "tokens_mask"} < {*first}
    assert digest(first) == digest(expected)


def test_what_cannot_be_sent_says_so(photos):
    import threading

    class Holder:
        def __init__(self):
            self.lock = threading.Lock()

        def __call__(self, sample):
            return {}

    dataset = calotype.text_to_image_dataset(Holder(), path=photos, img_transform={"resize": 64, "center_crop": True})
    with pytest.raises(LoaderError, match=r"can't be sent to the loader process.*in_process=True"):
        next(iter(calotype.Loader(dataset, 2)))


def broken_folder(photos, tmp_path, *names):
    folder = tmp_path / "broken"
    shutil.copytree(photos, folder)
    for name in names:
        (folder / name).write_bytes((folder / name).read_bytes()[:2000])
    return calotype.text_to_image_dataset(
        path=folder, img_transform={"resize": 96, "center_crop": True}, include=("id",)
    )


@pytest.mark.parametrize("in_process", [True, False])
def test_one_bad_picture_never_costs_the_others(photos, tmp_path, in_process, caplog):
    dataset = broken_folder(photos, tmp_path, "03.jpg", "07.jpg")
    with caplog.at_level(logging.WARNING), calotype.Loader(dataset, 3, in_process=in_process) as loader:
        batches = list(loader)
        again = list(calotype.Loader(dataset, 3, in_process=True, threads=1))
    seen = Counter(ids(batches))
    assert [len(batch["id"]) for batch in batches] == [3, 3, 3, 3]
    assert set(seen) == set(map(str, dataset.manifest.ids)) - {"03.jpg", "07.jpg"}
    replaced = {entry.id: entry.reason for entry in loader.ledger if entry.kind == "replaced"}
    step_of = {
        str(dataset.manifest[key.index].id): step
        for step, keys in enumerate(map(loader.plan.epoch(0).__getitem__, range(4)))
        for key in keys
    }
    assert {id: reason.partition("in epoch ")[2] for id, reason in replaced.items()} == {
        id: f"0, step {step_of[id]}" for id in ("03.jpg", "07.jpg")
    }
    for reason in replaced.values():  # the ledger names who came in its place
        seen[reason.split()[0]] -= 1
    assert set(seen.values()) == {1}
    assert "truncated" in next(entry.reason for entry in loader.ledger if entry.kind == "unreadable")
    assert list(map(digest, again)) == list(map(digest, batches))  # a stand-in is no matter of chance
    assert "03.jpg" in caplog.text


@pytest.mark.parametrize("in_process", [True, False])
def test_on_error_raise_names_the_picture(photos, tmp_path, in_process):
    dataset = broken_folder(photos, tmp_path, "03.jpg")
    with (
        calotype.Loader(dataset, 3, in_process=in_process, on_error="raise") as loader,
        pytest.raises(DecodeError, match=r"03\.jpg: truncated"),
    ):
        list(loader)


def test_a_folder_of_rubbish_ends_with_a_reason(photos, tmp_path):
    dataset = broken_folder(photos, tmp_path, *(f"{n:02d}.jpg" for n in range(12)))
    with pytest.raises(LoaderError, match="9 images in a row can't be read"):
        list(calotype.Loader(dataset, 3, in_process=True))


def explode(image):
    raise ZeroDivisionError("in a user's transform")


def test_a_users_bug_comes_back_with_its_traceback_and_the_loader_survives(photos):
    options = {"resize": 64, "center_crop": True}
    bad = calotype.text_to_image_dataset(path=photos, img_transform=options | {"custom": [explode]})
    with calotype.Loader(bad, 3) as loader:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="in a user's transform") as caught:
                list(loader)
            assert "In the loader process" in "".join(caught.value.__notes__)
            assert "explode" in "".join(caught.value.__notes__)


def test_a_dead_loader_process_is_an_error_not_a_hang(square):
    with calotype.Loader(square, 2, seed=6) as loader:
        whole = [digest(batch) for batch in loader]
        loader.load_state_dict({"epoch": 0})
        batches = iter(loader)
        got = [digest(next(batches))]
        os.kill(loader._source.pid, signal.SIGKILL)
        with pytest.raises(LoaderError, match=r"the loader process died \(killed by signal 9\); .*out of memory"):
            got.extend(digest(batch) for batch in batches)
        state = loader.state_dict()
        loader.load_state_dict(state)
        got += [digest(batch) for batch in loader]  # a new process takes over
        assert got == whole


def test_a_batch_that_cannot_be_sent_says_so_and_costs_no_slot(photos):
    def with_a_lock(sample):
        return {"image": sample["image"], "lock": threading.Lock()}

    dataset = calotype.text_to_image_dataset(
        with_a_lock, path=photos, img_transform={"resize": 64, "center_crop": True}
    )
    with calotype.Loader(dataset, 4) as loader:
        for _ in range(loader._setup.prefetch + 5):
            loader.load_state_dict({"epoch": 0})
            with pytest.raises(LoaderError, match=r"can't be sent from the loader process: .*lock.*in_process=True"):
                next(iter(loader))


class Waits(calotype.SampleSource):
    """Each sample waits to be let go."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __len__(self):
        return 8

    def prepare(self, key):
        self.begun.set()
        self.go_on.wait(30)
        return {"index": key.index}


def test_a_step_that_begins_while_another_fails_costs_no_slot():
    """As threads of the process do it: one sends the error, one begins a step, one is in the middle of a sample."""
    dataset = Waits()
    ours, _ = multiprocessing.Pipe()
    server = _Server(calotype.Loader(dataset, 1)._setup, ours)
    slots, submit = len(server._free), server._producer.submit
    server._handle(Seek(1, Cursor()))
    (share,) = submit(server._free.pop())
    in_a_sample = threading.Thread(target=share)
    failing = threading.Thread(target=server._fail, args=[ZeroDivisionError()])

    def submit_while_another_fails(memory):
        server._producer.submit = submit
        in_a_sample.start()
        dataset.begun.wait(30)
        failing.start()
        failing.join(0.2)
        return submit(memory)

    server._producer.submit = submit_while_another_fails
    server._begin()
    dataset.go_on.set()
    failing.join(30), in_a_sample.join(30)
    server._handle(Seek(2, Cursor()))
    assert len(server._free) == slots
    assert server._begin() and len(server._producer) == slots


def test_an_error_of_a_class_that_cannot_be_sent_comes_by_its_name(photos):
    def fail(image):
        class Local(Exception):
            pass

        raise Local("in a notebook")

    options = {"resize": 64, "center_crop": True, "custom": [fail]}
    with (
        calotype.Loader(calotype.text_to_image_dataset(path=photos, img_transform=options), 3) as loader,
        pytest.raises(RuntimeError, match=r"^Local: in a notebook"),
    ):
        list(loader)


def fail_to_connect(image):
    raise ConnectionRefusedError("by a user's server")


def test_a_users_lost_connection_is_not_the_trainers(photos):
    options = {"resize": 64, "center_crop": True, "custom": [fail_to_connect]}
    with calotype.Loader(calotype.text_to_image_dataset(path=photos, img_transform=options), 3) as loader:
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError, match="by a user's server"):
                list(loader)


class Stuck:
    """A step that takes longer than anybody waits, once it has said that it began."""

    def __init__(self, began):
        self.began = began

    def __call__(self, image):
        self.began.touch()
        time.sleep(100)


@pytest.mark.parametrize("moved", [False, True])
def test_the_process_leaves_at_once_whatever_its_threads_are_about(photos, tmp_path, moved):
    stuck = {"resize": 64, "center_crop": True, "custom": [Stuck(tmp_path / "began")]}
    loader = calotype.Loader(calotype.text_to_image_dataset(path=photos, img_transform=stuck), 2, threads=2)
    source = loader._open()
    source.seek(Cursor())
    assert until((tmp_path / "began").exists, 60)
    if moved:
        source.seek(Cursor(epoch=1))  # waits for what is under way
        time.sleep(0.2)
    start = time.monotonic()
    loader.close()
    assert time.monotonic() - start < 60 and not alive(source.pid)


class Blunder(calotype.SampleSource):
    """A dataset one of whose batches can't even be begun."""

    def __init__(self, dataset, bad):
        self.dataset, self.bad = dataset, bad

    def __len__(self):
        return len(self.dataset)

    def for_batch(self, keys):
        if keys == self.bad:
            raise ZeroDivisionError("before anything is read")
        return self.dataset.for_batch(keys)

    def prepare(self, key):
        return self.dataset.prepare(key)

    def finish(self, batch):
        return self.dataset.finish(batch)


@pytest.mark.parametrize("in_process", [True, False])
@pytest.mark.parametrize("step", [0, 3])
def test_a_step_that_can_not_begin_comes_in_its_turn_and_costs_no_slot(square, in_process, step):
    setup = calotype.Loader(square, 2)._setup
    setup = dataclasses.replace(setup, dataset=Blunder(square, setup.plan.epoch(0)[step]))
    source = ThreadSource(setup) if in_process else ProcessSource(setup)
    for _ in range(setup.prefetch + 5):  # more often than there are slots
        source.seek(Cursor())
        assert all(len(source.next().batch["id"]) == 2 for _ in range(step))
        with pytest.raises(ZeroDivisionError, match="before anything is read"):
            source.next()
    source.close()


def test_what_was_begun_is_waited_for_and_the_rest_given_up(square):
    plan = calotype.Loader(square, 4, seed=8).plan
    producer = Producer(square, plan, threads=1, on_error="raise", finish=True)
    begun, go_on, done = threading.Event(), threading.Event(), []

    class Slow(HeapMemory):
        def reserve(self, specs):
            begun.set()
            go_on.wait(30)
            done.append(specs)
            return super().reserve(specs)

    first, *others = producer.submit(memory := Slow())
    working = threading.Thread(target=first)
    working.start()
    begun.wait(30)
    seeking = threading.Thread(target=lambda: done.append(producer.seek(Cursor(epoch=1))))
    seeking.start()
    seeking.join(0.2)
    assert seeking.is_alive() and not done
    go_on.set()
    seeking.join(30), working.join(30)
    assert done[1] == [memory]  # only then
    for share in others:
        share()
    assert len(done) == 2 and not len(producer)  # they did nothing


def test_the_process_goes_with_the_loader(square):
    loader = calotype.Loader(square, 2)
    next(iter(loader))
    pid = loader._source.pid
    assert alive(pid)
    del loader
    gc.collect()
    assert until(lambda: not alive(pid))


def test_a_second_loop_ends_the_first(square):
    loader = calotype.Loader(square, 2, in_process=True)
    first = iter(loader)
    next(first)
    next(iter(loader))
    with pytest.raises(LoaderError, match="ended when another one over it began"):
        next(first)


def test_no_global_generator_is_read_or_set(dataset):
    torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    one = [digest(batch) for batch in calotype.Loader(dataset, 4, in_process=True)]
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()  # noqa: NPY002
    torch.manual_seed(2), random.seed(2), np.random.seed(2)  # noqa: NPY002
    assert [digest(batch) for batch in calotype.Loader(dataset, 4, in_process=True)] == one


@pytest.mark.parametrize("in_process", [True, False])
def test_pixel_cache_changes_no_bit(dataset, square, in_process):
    for data in (dataset, square):
        expected = [digest(b) for loader in [calotype.Loader(data, 3, in_process=True)] for _ in (0, 1) for b in loader]
        for limits in ({}, {"max_images": 5}, {"max_bytes": 1_500_000}) if in_process else ({"max_images": 5},):
            cache = calotype.data.pixel_cache.PixelCache(**limits)
            # Of two threads one may begin an image of the second epoch while the other still has it of the first:
            # where hits are counted, there is one.
            threads = 1 if in_process else 2
            with calotype.Loader(data.with_cache(cache), 3, in_process=in_process, threads=threads) as loader:
                assert [digest(batch) for _ in (0, 1) for batch in loader] == expected
            if in_process:
                assert len(cache) <= limits.get("max_images", 12)
                assert cache.nbytes <= limits.get("max_bytes", 10**9)
                assert cache.hits >= len(cache) > 0  # what is kept is kept: the second epoch hits all of it


def test_device_cache_changes_no_bit_and_reads_each_file_once(square, photos, tmp_path):
    folder = tmp_path / "gone"
    shutil.copytree(photos, folder)
    options = {"img_transform": {"resize": 128, "center_crop": True, "horizontal_flip": 0.5}, "include": ("id", "text")}
    dataset = calotype.text_to_image_dataset(path=folder, **options)
    expected = [digest(b) for loader in [calotype.Loader(square, 3, in_process=True)] for _ in range(3) for b in loader]
    loader = calotype.Loader(dataset, 3, device_cache=True, on_error="raise")
    got = [digest(batch) for batch in loader]
    for file in folder.glob("*.jpg"):
        file.unlink()
    got += [digest(batch) for _ in range(2) for batch in loader]
    assert got == expected


def test_device_cache_refuses_what_it_would_freeze(dataset):
    with pytest.raises(ConfigError, match="device_cache: found an image transform whose crop is sampled anew"):
        calotype.Loader(dataset, 2, device_cache=True)


def test_kohya_repeats_and_fractions_are_counted(photos, tmp_path):
    for name, repeats in (("3_cat", ["00.jpg", "01.jpg"]), ("1_dog", ["02.jpg"])):
        (tmp_path / name).mkdir()
        for file in repeats:
            shutil.copy(photos / file, tmp_path / name / file)
            (tmp_path / name / file).with_suffix(".txt").write_text(f"caption of {file}")
    dataset = calotype.text_to_image_dataset(
        path=tmp_path, img_transform={"resize": 64, "random_crop": {"scale": [0.3, 0.9]}}, include=("id",)
    )
    loader = calotype.Loader(dataset, 2, in_process=True)
    batches = list(loader)
    assert Counter(ids(batches)) == {"3_cat/00.jpg": 3, "3_cat/01.jpg": 3, "1_dog/02.jpg": 1}
    crops = {digest({"img": img}) for b in batches for img, id in zip(b["img"], b["id"], strict=True) if "00" in id}
    assert len(crops) == 3  # each repeat is drawn anew


def test_cut_captions_are_counted_and_named(photos):
    clip, t5 = flux_tokenizers()
    dataset = calotype.text_to_image_dataset(
        calotype.FluxTransform(clip, t5, t5_max_seq_len=7),
        path=photos,
        img_transform={"resize": 64, "center_crop": True},
        caption_transform={"choose": "first"},
    )
    loader = calotype.Loader(dataset, 4, in_process=True)
    list(loader), list(loader)
    cut = {entry.id: entry.reason for entry in loader.ledger if entry.kind == "caption_cut"}
    assert len(loader.ledger) == len(cut) == 12  # once each, not once an epoch
    assert cut["00.jpg"].startswith("t5_tokenizer_path: ")
    assert "where the model reads 7; lost:" in cut["00.jpg"]


def test_a_caption_whose_first_draws_fit_is_measured_until_one_does_not(photos):
    """A dropped caption is short, and so is one that lost its parts: neither says that the caption fits."""
    clip, t5 = flux_tokenizers()
    dataset = calotype.text_to_image_dataset(
        calotype.FluxTransform(clip, t5, t5_max_seq_len=7),
        path=photos,
        img_transform={"resize": 16, "center_crop": True},
        caption_transform={"choose": "first", "drop": 0.7, "shuffle_parts": 0.5, "drop_parts": 0.3},
    )
    loader = calotype.Loader(dataset, 4, in_process=True)
    list(loader)
    first = {entry.id for entry in loader.ledger}
    for _ in range(7):
        list(loader)
    named = [entry.id for entry in loader.ledger if entry.kind == "caption_cut"]
    cut = {
        dataset.manifest[key.index].id
        for epoch in range(8)
        for step in range(len(loader.plan.epoch(epoch)))
        for key in loader.plan.epoch(epoch)[step]
        if dataset.truncated(dataset.caption(key).text)
    }
    assert len(named) == len(set(named)) and set(named) == cut and first < cut


def test_pictures_too_small_are_named_left_out_or_refused(photos):
    def load(**options):
        dataset = calotype.text_to_image_dataset(path=photos, resolution=320, include=("id",))
        return calotype.Loader(dataset, 4, in_process=True, **options)

    small = {f"{n:02d}.jpg" for n in range(12) if n % 3 == 2}  # 240 × 360
    assert {entry.id for entry in load().ledger if entry.kind == "upscaled"} == small
    skipping = load(on_upscale="skip")
    assert set(ids(skipping)).isdisjoint(small)
    assert {entry.id for entry in skipping.ledger if entry.kind == "too_small"} == small
    with pytest.raises(ConfigError, match="4 images are too small for their bucket"):
        load(on_upscale="error")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "ignore"}, "on_error: found 'ignore'"),
        ({"on_upscale": "no"}, "on_upscale: found 'no'"),
        ({"prefetch": 0}, "prefetch: found 0"),
        ({"threads": 0}, "threads: found 0"),
        ({"batch_size": 0}, "batch_size: found 0"),
        ({"rank": 1}, "rank and world_size go together"),
        ({"rank": 2, "world_size": 2}, "rank: found 2"),
        ({"remainder": "keep"}, "remainder: found 'keep'"),
    ],
)
def test_wrong_options_are_refused_before_the_images_are_looked_at(square, options, message, monkeypatch):
    monkeypatch.setattr(type(square), "scan", lambda self, **options: pytest.fail("the images were looked at"))
    with pytest.raises(ConfigError, match=message):
        calotype.Loader(square, **options)


def test_an_empty_dataset_is_refused(square):
    empty = calotype.TextToImageDataset(
        square.manifest.select([]), img_transform=square.img_transform, caption_transform=square.caption_transform
    )
    with pytest.raises(ConfigError, match="no samples"):
        calotype.Loader(empty, 2)


def test_epoch_of_a_key_is_all_there_is(square):
    assert digest(square[SampleKey(3, epoch=4)]) == digest(square[SampleKey(3, epoch=4)])
    images = {digest(square[SampleKey(3, epoch=e)]) for e in range(12)}
    assert len(images) > 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("device_cache", [False, True])
def test_on_a_gpu_the_same_bits(square, device_cache):
    expected = [digest(b) for loader in [calotype.Loader(square, 3, in_process=True)] for _ in (0, 1) for b in loader]
    with calotype.Loader(square, 3, device="cuda", device_cache=device_cache) as loader:
        got = []
        for _ in (0, 1):
            for batch in loader:
                assert batch["img"].device.type == "cuda"
                got.append(digest({k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}))
    assert got == expected


def test_finishing_batches_later_gives_the_same_bits(dataset):
    """What a loader for another device does: uint8 travels, whole batches are finished on arrival."""
    plan = calotype.Loader(dataset, 4, seed=8).plan
    producer = Producer(dataset, plan, threads=2, on_error="raise", finish=False)
    for step in range(len(plan.epoch(0))):
        for share in producer.submit(HeapMemory()):
            share()
        made = producer.take()
        assert made.tensors["img"].dtype == torch.uint8
        batch = dataset.finish(made.tensors | made.rest)
        assert digest(batch) == digest(collate([dataset[key] for key in plan.epoch(0)[step]]))


def test_a_cut_caption_is_in_the_first_batch_that_has_it(photos, tmp_path):
    """Threads prepare the batches of later epochs at the same time, and may measure a caption there first."""
    clip, t5 = flux_tokenizers()
    shutil.copy(photos / "00.jpg", tmp_path)
    (tmp_path / "00.txt").write_text("a photo with more than seven tokens")
    dataset = calotype.text_to_image_dataset(
        calotype.FluxTransform(clip, t5, t5_max_seq_len=7),
        path=tmp_path,
        img_transform={"resize": 16, "center_crop": True},
    )

    class SlowFirst(type(dataset)):
        def prepare(self, key):
            if key.epoch == 0:
                time.sleep(0.3)
            return super().prepare(key)

    dataset.__class__ = SlowFirst
    with calotype.Loader(dataset, 1, threads=2, in_process=True) as loader:
        next(iter(loader))
        assert [entry.id for entry in loader.ledger] == ["00.jpg"]
        list(loader), list(loader)
        assert len(loader.ledger) == 1

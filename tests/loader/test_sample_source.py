"""What every source of samples keeps under a Loader: calotype's own, and one that a user writes."""

import ast
import functools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from encoding_helpers import encoded, make_folder, make_job, run
from loader_helpers import digest
from real_tokenizers import flux_tokenizers

import calotype
from calotype.data.collate import collate
from calotype.data.pixel_cache import PixelCache
from calotype.data.sample_source import SampleSource
from calotype.encodings.on_the_fly import OnTheFlyDataset
from calotype.errors import ConfigError, DecodeError
from calotype.ledger import LedgerEntry
from calotype.types import SampleKey


class Minimal(SampleSource):
    """The least that a source has to say."""

    def __init__(self):
        self.broken = set()

    def __len__(self):
        return 4

    def prepare(self, key):
        if key.index in self.broken:
            raise DecodeError(str(key.index), "broken")
        return {"x": torch.tensor([key.index, key.epoch, key.seed]), "index": key.index}


class Whole(Minimal):
    """One that answers everything: two buckets, ids, weights, notes, a part that is left to the device."""

    bucket_sizes = ((4, 4), (4, 6))
    seed = 9

    def __init__(self):
        super().__init__()
        self.calls = []

    def prepare(self, key):
        return super().prepare(key) | {"img": torch.full((3, *key.size), key.index, dtype=torch.uint8)}

    def finish(self, batch):
        return {**batch, "img": batch["img"].float() / 255}

    def ids(self, start, stop):
        return [f"sample {index}" for index in range(start, stop)]

    def weights(self):
        return np.array([1.0, 1.0, 2.0, 1.0])

    def scan(self, *, progress=None):
        progress(4, 4)
        return np.array([0, 1, 1, 0], np.int32), [LedgerEntry(kind="upscaled", id="sample 0", reason="small")]

    def begin_epoch(self, *, first=False, whole=False, rank=0, world_size=1):
        self.calls.append((first, whole, rank, world_size))
        return [LedgerEntry(kind="of_mine", id="sample 1", reason="an epoch begins")] if first else []

    def take_notes(self):
        return [LedgerEntry(kind="of_a_batch", id="sample 2", reason="a batch is finished")]

    def close(self):
        self.calls.append("close")


OPTIONS = {"img_transform": {"horizontal_flip": 0.5}, "caption_transform": {"drop": 0.2}, "include": ["index"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("source") / "photos")


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory):
    """Holds every record."""
    store = tmp_path_factory.mktemp("source") / "store"
    run(folder, store, **OPTIONS)
    return store


class Sources:
    """Each gives a source of four samples and a function that breaks the first of them."""

    def __init__(self, folder, store, empty_store):
        self.folder, self.store, self.empty_store = folder, store, empty_store

    def images(self, **options):
        flat = {"img_transform": {"resize": 32, "center_crop": True, "horizontal_flip": 0.5}, "include": ("index",)}
        dataset = calotype.text_to_image_dataset(path=self.folder, **flat | options)
        return dataset, functools.partial(self._break, dataset)

    def cached_images(self):
        dataset = self.images()[0].with_cache(PixelCache())
        return dataset, functools.partial(self._break, dataset)

    def encodings(self):
        dataset = encoded(make_job(self.folder, self.store, **OPTIONS))
        return dataset, lambda: dataset.records.leave_out(0, "broken")

    def kept_encodings(self):
        dataset, _ = self.encodings()
        kept = dataset.with_device_cache(torch.device("cpu"))
        return kept, lambda: dataset.records.leave_out(0, "broken")

    def on_the_fly(self):
        dataset = encoded(make_job(self.folder, self.empty_store, **OPTIONS), OnTheFlyDataset)
        return dataset, lambda: dataset.records.leave_out(0, "broken")

    def minimal(self):
        source = Minimal()
        return source, lambda: source.broken.add(0)

    def whole(self):
        source = Whole()
        return source, lambda: source.broken.add(0)

    def _break(self, dataset):
        class Broken:
            options = dataset.reader.options

            def read(self, ref, **options):
                if ref == bad:
                    raise DecodeError(ref.name, "broken")
                return good.read(ref, **options)

        good, bad = dataset.reader, dataset.manifest[0].image
        dataset.reader = Broken()
        if dataset.pixel_cache is not None:
            dataset.pixel_cache = PixelCache()


KINDS = ["images", "cached_images", "encodings", "kept_encodings", "on_the_fly", "minimal", "whole"]


@pytest.fixture(params=KINDS)
def made(request, folder, store, tmp_path):
    return getattr(Sources(folder, store, tmp_path / "store"), request.param)()


def indices(batches):
    return [index for batch in batches for index in batch["index"].tolist()]


def check_order(source, **options):
    with calotype.Loader(source, 3, seed=3, threads=2, **options) as loader:
        first = [indices([batch]) for batch in loader]  # on the fly, everything is encoded after it
        assert first == [[key.index for key in loader.plan.epoch(0)[step]] for step in range(len(first))]
        plan = loader.plan.epoch(1)
        expected = [digest(collate([source[key] for key in plan[step]])) for step in range(len(plan))]
        batches = iter(loader)
        got = [digest(next(batches))]
        state = loader.state_dict()
        assert got + [digest(batch) for batch in batches] == expected
    return state, expected


def test_order_bits_and_resuming(made):
    source, _ = made
    state, expected = check_order(source, in_process=True)
    with calotype.Loader(source, 3, seed=3, in_process=True) as resumed:
        resumed.load_state_dict(state)
        assert [digest(batch) for batch in resumed] == expected[1:]
        resumed.close()  # it begins again where it is
        resumed.load_state_dict({"epoch": 1})
        assert [digest(batch) for batch in resumed] == expected


@pytest.mark.parametrize("made", ["on_the_fly", "whole"], indirect=True)
def test_order_and_bits_in_a_process_of_its_own(made):
    source, _ = made
    check_order(source)


def test_two_ranks_share_an_epoch(made):
    source, _ = made
    ranks = [calotype.Loader(source, 1, seed=3, rank=rank, world_size=2, in_process=True) for rank in (0, 1)]
    steps = [[indices([batch]) for batch in loader] for loader in ranks]
    assert len(steps[0]) == len(ranks[0]) and len(steps[0]) == len(steps[1])
    shown = Counter(index for step in zip(*steps, strict=True) for one in step for index in one)
    weights = source.weights()
    copies = Counter({index: 1 if weights is None else int(weights[index]) for index in range(len(source))})
    assert shown >= copies and shown.total() - copies.total() < 2  # one comes twice where a rank had none left
    for loader in ranks:
        loader.close()
        loader.close()


def test_a_sample_that_can_not_be_read_is_replaced_by_name_or_raised(made):
    source, breaks = made
    whole = calotype.Loader(source, 4, seed=3, in_process=True)
    list(whole)
    whole.close()
    with calotype.Loader(source, 4, seed=3, in_process=True, threads=1) as loader:
        breaks()  # after the plan was made
        loader.load_state_dict({"epoch": 1})
        batches = list(loader)
        assert 0 not in indices(batches) and batches
        (id,) = source.ids(0, 1)
        assert {note.id for note in loader.ledger if note.kind == "replaced"} == {id}
        assert {note.id for note in loader.ledger if note.kind == "unreadable"} == {id}
    with calotype.Loader(source, 4, seed=3, in_process=True, on_error="raise") as loader:
        if (np.asarray(loader.plan.buckets) >= 0).all():  # encodings leave it out from the beginning
            with pytest.raises(calotype.errors.ImageError, match="broken"):
                list(loader)


def test_a_source_is_a_map_style_dataset(made):
    source, _ = made
    assert isinstance(source, torch.utils.data.Dataset)
    size = source.bucket_sizes[0]
    assert int(source[SampleKey(-1, size=size, seed=1)]["index"]) == len(source) - 1
    with pytest.raises(IndexError, match="sample 4 of a dataset of 4"):
        source[4]


def test_what_a_source_notes_is_in_the_ledger_and_its_hooks_are_called():
    source = Whole()
    with calotype.Loader(source, 2, in_process=True, rank=1, world_size=2) as loader:
        list(loader), next(iter(loader)), next(iter(loader))
    calls = [(True, False, 1, 2), (False, True, 1, 2), (False, False, 1, 2), "close"]
    assert source.calls == calls
    assert {note.kind for note in loader.ledger} == {"of_mine", "of_a_batch"}  # the scan's is rank 0's
    assert loader.plan.seed == 9
    with calotype.Loader(source, 2, on_upscale="skip", in_process=True) as loader:
        assert set(indices(loader)) == {1, 2, 3}


def source_class(name="Mine", base=Minimal, **members):
    return type(name, (base,), members)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"finsh": lambda self, batch: batch}, r"Mine.finsh: a SampleSource has no finsh; did you mean finish\?"),
        ({"begin_epochs": lambda self: None}, r"did you mean begin_epoch\?"),
        ({"forBatch": lambda self, keys: None}, r"did you mean for_batch\?"),
        ({"get_weights": lambda self: None}, r"did you mean weights\?"),
        ({"bucket_size": property(lambda self: ())}, r"did you mean bucket_sizes\?"),
        ({"only_read": True}, r"did you mean only_reads\?"),
        ({"prepare": lambda self: {}}, r"Mine.prepare\(self\): can't be called.*expected prepare\(self, key\)"),
        ({"ids": lambda self, index: ""}, r"expected ids\(self, start, stop\)"),
        ({"scan": lambda self: None}, r"unexpected keyword argument 'progress'.*scan\(self, \*, progress=None\)"),
        ({"begin_epoch": lambda self, whole: []}, r"expected begin_epoch\(self, \*, first=False, whole=False"),
        ({"__len__": staticmethod(lambda source: 3)}, r"expected __len__\(self\)"),
        ({"only_reads": lambda self: True}, r"Mine.only_reads: found a method, expected a value or a property"),
        ({"ids": ["a", "b"]}, r"Mine.ids: found a list, expected a method ids\(self, start, stop\)"),
    ],
)
def test_a_misspelt_or_wrong_member_fails_at_construction(members, message):
    with pytest.raises(ConfigError, match=message):
        source_class(**members)()


def test_what_is_missing_fails_at_construction_with_the_name_that_is_near():
    nothing = {"__len__": lambda self: 1}
    with pytest.raises(ConfigError, match=r"Mine: has no prepare\(self, key\).*did you mean prepare.*has preprare"):
        source_class(base=SampleSource, **nothing, preprare=lambda self, key: {})()
    with pytest.raises(ConfigError, match=r"has no __len__\(self\), which a SampleSource needs$"):
        source_class(base=SampleSource, prepare=lambda self, key: {})()


def test_names_of_one_s_own_are_left_alone():
    def wrapped(function):
        return functools.wraps(function)(lambda *args, **named: function(*args, **named))

    own = {
        "folder": "x",
        "tokens": lambda self: [],
        "_finsh": lambda self: None,
        "size": 3,
        "captions": lambda self, index: (),
        "prepare": wrapped(Minimal.prepare),
        "weights": classmethod(lambda cls: None),
        "ids": staticmethod(lambda start, stop: ["a"] * (stop - start)),
        "scan": lambda self, threads=4, **options: (np.zeros(4, np.int32), []),
    }
    assert indices(calotype.Loader(source_class(**own)(), 4, in_process=True, shuffle=False)) == [0, 1, 2, 3]
    with pytest.raises(TypeError, match="takes no arguments"):
        type("Bare", (SampleSource,), {"__len__": Minimal.__len__, "prepare": Minimal.prepare})(4)


@pytest.mark.parametrize("key", [[0, 1], slice(0, 2), (0, 1), np.arange(2), "0", 1.0, None], ids=repr)
def test_only_integers_and_keys_are_indices(key):
    source = Minimal()
    with pytest.raises(
        TypeError, match=rf"index: found an? {type(key).__name__}, expected an integer from 0 to 3, or a S"
    ):
        source[key]
    with pytest.raises(TypeError, match=f"index: found a {type(key).__name__}"):
        source.__getitems__([key])
    assert {source.checked(index) for index in (3, -1, np.int64(3), torch.tensor(3))} == {SampleKey(3)}


def test_a_batch_sampler_in_the_place_of_a_sampler_is_named():
    source = Minimal()
    loader = torch.utils.data.DataLoader(source, sampler=calotype.BatchSampler(source, 2))
    with pytest.raises(TypeError, match=r"index: found a list, .* DataLoader\(…, batch_sampler=…\)"):
        next(iter(loader))


def test_what_a_loader_can_not_use_is_refused_when_it_is_made():
    for found, message in (
        ([1, 2], r"dataset: found a list, expected a calotype.SampleSource.*docs/trainers.md"),
        (torch.utils.data.TensorDataset(torch.zeros(3)), "dataset: found a TensorDataset"),
        (
            torch.utils.data.random_split(Minimal(), [3, 1])[1],
            "dataset: found a Subset, .*; validation=0.25 and split=",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            calotype.Loader(found, 2)
    hidden = Minimal()
    hidden.weights = np.ones(4)
    with pytest.raises(ConfigError, match=r"self.weights is a ndarray and hides the method weights\(self\)"):
        calotype.Loader(hidden, 2)
    with pytest.raises(ConfigError, match="device_cache: Minimal has no with_device_cache"):
        calotype.Loader(Minimal(), 2, device_cache=True)
    for name, value, message in (
        ("scan", (np.zeros(3, np.int32), []), "Mine.scan: found 3 buckets, expected one for each of the 4 samples"),
        (
            "scan",
            (np.full(4, 2, np.int32), []),
            r"Mine.scan: found bucket 2, expected -1 to 0: there is 1 of bucket_sizes",
        ),
        ("weights", np.ones(5), "Mine.weights: found 5 weights, expected one for each of the 4 samples"),
    ):
        with pytest.raises(ConfigError, match=message):
            calotype.Loader(source_class(**{name: lambda self, value=value, **_: value})(), 2)


def test_what_prepare_may_not_give_is_an_error_that_names_it():
    nothing = source_class("Nothing", prepare=lambda self, key: None)
    with pytest.raises(calotype.errors.LoaderError, match=r"Nothing.prepare: found a NoneType, expected a mapping"):
        list(calotype.Loader(nothing(), 2, in_process=True))


def test_each_caption_is_drawn_once(folder):
    clip, t5 = flux_tokenizers()
    drawn = []
    dataset = calotype.text_to_image_dataset(
        calotype.FluxTransform(clip, t5, t5_max_seq_len=7),
        path=folder,
        img_transform={"resize": 16, "center_crop": True},
        caption_transform={"custom": [lambda text: drawn.append(text) or f"{text} {len(drawn)}"]},
        include=("id", "text"),
    )
    loader = calotype.Loader(dataset, 2, in_process=True, threads=1)
    shown = {id: text for batch in loader for id, text in zip(batch["id"], batch["text"], strict=True)}
    numbers = {int(text.rsplit(" ", 1)[1]) for text in shown.values()}
    assert numbers == set(range(1, len(dataset) + 1))  # drawn may hold more: samples of the next epoch, made ahead
    cut = {note.id: note.reason for note in loader.ledger if note.kind == "caption_cut"}
    assert cut.keys() == shown.keys()  # what is said to be lost is of the very text that was shown
    assert all(reason.endswith(f"{shown[id][-7:]}'") for id, reason in cut.items())


PROBES = ("getattr", "hasattr", "isinstance")


def probes(code, *, types=("TextToImageDataset", "EncodedDataset", "OnTheFlyDataset")):
    """The lines of a module that guess at what a dataset is, or has, instead of calling a part of SampleSource."""
    parts = {name for name in vars(SampleSource) if not name.startswith("_")}
    for node in ast.walk(ast.parse(code)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PROBES):
            continue
        of, name = ast.unparse(node.args[0]), node.args[1]
        if node.func.id == "isinstance":
            probing = any(one in ast.unparse(name) for one in types)
        else:
            probing = of.endswith(("dataset", "source")) or (isinstance(name, ast.Constant) and name.value in parts)
        if probing:
            yield f"{node.lineno}: {ast.unparse(node)}"


def test_nothing_probes_a_dataset():
    package = Path(calotype.__file__).parent
    found = {
        f"{file.relative_to(package)}:{line}"
        for file in package.rglob("*.py")
        for line in probes(file.read_text(encoding="utf-8"))
        if file.parent.name == "loader" or "isinstance" not in line  # the others may be for one kind of dataset alone
    }
    assert found == set()


@pytest.mark.parametrize(
    "code",
    [
        'getattr(self.dataset, "anything", None)',
        'hasattr(found, "take_notes")',
        "getattr(source, name)",
        "isinstance(self.dataset, (EncodedDataset, int))",
    ],
)
def test_what_counts_as_a_probe(code):
    assert len(list(probes(code))) == 1

"""Captions that are cut: named once in each run over encodings, however these came to be and wherever they are kept."""

import pickle

import pytest
from encoding_helpers import encoded, frozen, make_folder, make_job, run

from calotype.encodings.frozen import FrozenModels
from calotype.encodings.on_the_fly import OnTheFlyDataset
from calotype.encodings.store.stored_tensor import RecordCache
from calotype.errors import MissingDependencyError
from calotype.loader import Loader

LONG = "very " * 600 + "long"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("cuts") / "photos", size=(32, 32))
    (folder / "coffee.txt").write_text(LONG)
    (folder / "rocket.txt").write_text(LONG)
    return folder


def named(dataset, epochs=2, **options):
    with Loader(dataset, 2, in_process=True, threads=1, **options) as loader:
        for _ in range(epochs):
            list(loader)
    return {note.id: note.reason for note in loader.ledger if note.kind == "caption_cut"}, loader


@pytest.mark.parametrize("model", ["flux.1-dev", "sdxl", "chroma", "pixart-sigma"])
def test_a_run_over_a_store_made_before_names_each_cut_caption_once(folder, tmp_path, model):
    job, report = run(folder, tmp_path / "store", models=frozen(model), resolution=32)
    again = pickle.loads(pickle.dumps(job.store))  # nobody but the store knows what was encoded
    job.store = again
    cut, loader = named(encoded(job))
    assert cut.keys() == {"coffee.png", "rocket.png"} and len(loader.ledger) == 2
    assert all("tokens where the model reads" in reason for reason in cut.values())
    (first,) = {note.reason for note in report.notes}  # as it was said when they were encoded
    assert set(cut.values()) == {first}


def test_so_does_one_that_keeps_them_or_makes_them_on_the_way(folder, tmp_path):
    job, _ = run(folder, tmp_path / "store", resolution=32)
    dataset = encoded(job)
    assert named(dataset.with_cache(RecordCache()))[0].keys() == {"coffee.png", "rocket.png"}
    assert named(dataset, device_cache=True)[0].keys() == {"coffee.png", "rocket.png"}
    assert named(dataset, rank=1, world_size=2)[0] == {}  # rank 0 says it
    job = make_job(folder, tmp_path / "other", resolution=32, caption_transform={"drop": 0.5, "trigger": "sks"})
    assert named(encoded(job, OnTheFlyDataset), epochs=3)[0].keys() == {"coffee.png", "rocket.png"}


def test_each_text_is_tokenised_once_and_a_caption_is_named_by_its_longest_variant(folder, tmp_path, monkeypatch):
    seen = []
    job, _ = run(folder, tmp_path / "store", resolution=32, caption_transform={"drop": 0.5})
    dataset = encoded(job)
    monkeypatch.setenv("CALOTYPE_CACHE", str(tmp_path / "cache"))  # nothing is known of what the store was made of
    measure = FrozenModels.cut_texts
    monkeypatch.setattr(FrozenModels, "cut_texts", lambda self, texts: (seen.extend(texts), measure(self, texts))[1])
    cut, _ = named(dataset)
    assert len(seen) == len(set(seen)) == 4  # two captions that differ, one that two images share, the dropped one
    assert cut["coffee.png"].count("tokenizer_2: ") == 1
    monkeypatch.setattr(FrozenModels, "cut_texts", None)  # what was measured once needs no tokenizers any more
    assert named(encoded(job))[0] == cut


def test_without_tokenizers_the_ledger_says_that_nothing_was_measured(folder, tmp_path, monkeypatch):
    job, _ = run(folder, tmp_path / "store", resolution=32)
    dataset = encoded(job)
    monkeypatch.setenv("CALOTYPE_CACHE", str(tmp_path / "cache"))

    def absent(*_):
        raise MissingDependencyError("diffusers", extra="diffusers", purpose="to load the tokenizers")

    monkeypatch.setattr(FrozenModels, "cut_texts", absent)
    cut, loader = named(dataset)
    (note,) = loader.ledger
    assert not cut and note.kind == "captions_not_measured" and "calotype[diffusers]" in note.reason

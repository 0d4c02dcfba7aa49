"""EncodedDataset: the same samples as online, after the encoders; under the Loader, in any state of the store."""

import pickle
import shutil
from collections import Counter

import pytest
import torch
from encoding_helpers import NAMES, encoded, frozen, make_folder, make_job, run
from loader_helpers import digest, ids
from PIL import Image

import calotype
from calotype.data.collate import collate
from calotype.encodings.dataset import EncodedDataset
from calotype.encodings.dataset_records import Variants
from calotype.encodings.encode import encode_job
from calotype.encodings.on_the_fly import OnTheFlyDataset
from calotype.encodings.store.stored_tensor import RecordCache
from calotype.errors import StoreError
from calotype.loader.batch_builder import HeapMemory
from calotype.loader.plan import Cursor
from calotype.loader.produce import Producer
from calotype.types import SampleKey

FLIPS = {"img_transform": {"horizontal_flip": 0.5}, "caption_transform": {"drop": 0.2, "trigger": "sks"}}
ENDLESS = {
    "img_transform": {"random_crop": {"scale": [0.5, 1.0]}, "horizontal_flip": 0.3},
    "caption_transform": {"shuffle_parts": 0.4, "drop": 0.1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("data") / "photos")
    return make_folder(folder, names=("motorcycle_left.png", "retina.jpg", "ihc.png"), size=(72, 96))


@pytest.fixture(scope="module")
def job(folder, tmp_path_factory):
    return run(folder, tmp_path_factory.mktemp("data") / "store", **FLIPS)[0]


@pytest.fixture(scope="module")
def dataset(job):
    return encoded(job)


def keys(dataset, epochs=4):
    return [SampleKey(index, epoch) for epoch in range(epochs) for index in range(len(dataset))]


def test_samples_are_those_of_the_same_seed_and_epoch_online(job, dataset):
    for key in keys(dataset):
        sample, online = dataset[key], job.dataset
        assert sample["text"] == online.caption(key).text and sample["id"] == online.manifest[key.index].id
        image, _ = online.image(key)
        moments = job.models.encode_pictures(image[None])["moments"]
        mean, logvar = moments.chunk(2, dim=1)
        seed = int(dataset.prepare(key)["noise_seed"])
        noise = torch.empty_like(mean[0]).normal_(generator=torch.Generator().manual_seed(seed))
        scaling = job.models.scaling
        expected = (mean + torch.exp(0.5 * logvar) * noise - scaling["shift_factor"]) * scaling["scaling_factor"]
        torch.testing.assert_close(sample["latents"], expected[0], rtol=1e-4, atol=1e-4)
        (text,) = job.models.encode_texts([sample["text"]])
        torch.testing.assert_close(sample["prompt_embeds"], text["prompt_embeds"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(sample["pooled_prompt_embeds"], text["pooled_prompt_embeds"], rtol=1e-4, atol=1e-5)


def test_its_repr_says_what_it_is(dataset):
    expected = f"EncodedDataset(encodings of flux.1-dev in {dataset.store.path} of\n    TextToImageDataset("
    assert repr(dataset).startswith(expected)


def test_latents_are_drawn_anew_each_epoch_and_repeat_for_a_key(dataset):
    flips = {}
    for epoch in range(12):
        key = SampleKey(0, epoch)
        picture = dataset.records.image(key).key
        flips.setdefault(picture, []).append(dataset[key]["latents"])
        assert torch.equal(dataset[key]["latents"], flips[picture][-1])
    for drawn in flips.values():
        assert all(not torch.equal(drawn[0], other) for other in drawn[1:])


def test_latents_have_the_posterior_s_mean_and_spread(dataset):
    picture = dataset.records.image(SampleKey(0)).key
    epochs = [epoch for epoch in range(800) if dataset.records.image(SampleKey(0, epoch)).key == picture]
    drawn = torch.stack([dataset[SampleKey(0, epoch)]["latents"] for epoch in epochs])
    (row,) = dataset.store.find([picture])
    mean, logvar = dataset.store.get(int(row))["moments"].chunk(2)
    scale = dataset.scaling["scaling_factor"]
    mean, std = (mean - dataset.scaling["shift_factor"]) * scale, torch.exp(0.5 * logvar) * scale
    error = (drawn.mean(0) - mean) / (std / len(epochs) ** 0.5)
    assert error.abs().max() < 6 and error.std() == pytest.approx(1.0, abs=0.1)
    assert (drawn.std(0) / std).mean() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("options", [{"threads": 1}, {"threads": 3}, {"in_process": True}], ids=str)
@pytest.mark.parametrize("finished", ["by_the_threads", "in_the_trainer"])
def test_the_loader_gives_the_samples_of_its_plan_bit_for_bit(dataset, options, finished):
    dataset = dataset.with_cache(None)
    dataset.finishes_in_trainer = finished == "in_the_trainer"  # as where there is a GPU: the threads only read
    with calotype.Loader(dataset, 2, seed=3, **options) as loader:
        for epoch in range(2):
            plan = loader.plan.epoch(epoch)
            for step, batch in enumerate(loader):
                assert digest(batch) == digest(collate([dataset[key] for key in plan[step]]))


def test_finish_gives_the_same_for_a_batch_as_for_its_samples(dataset):
    some = [dataset.prepare(SampleKey(index, 1)) for index in (0, 1, 2)]
    loaded = [{k: v.load() if hasattr(v, "load") else v for k, v in sample.items()} for sample in some]
    together = dataset.finish(collate(loaded))
    assert digest(together) == digest(collate([dataset.finish(sample) for sample in some]))


def test_a_resumed_loader_goes_on_with_the_very_next_batch(dataset):
    with calotype.Loader(dataset, 2, seed=3) as loader:
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        rest = [digest(batch) for batch in batches]
    with calotype.Loader(dataset, 2, seed=3) as loader:
        loader.load_state_dict(state)
        assert [digest(batch) for batch in loader] == rest


def test_two_ranks_share_an_epoch(dataset):
    seen = Counter()
    for rank in (0, 1):
        with calotype.Loader(dataset, 1, seed=3, rank=rank, world_size=2, in_process=True) as loader:
            seen.update(ids(loader))
    assert set(seen) == set(dataset.manifest.ids.to_pylist())


def test_it_works_under_torch_s_dataloader_and_pickles(dataset):
    twin = pickle.loads(pickle.dumps(dataset))
    assert digest(collate([twin[0]])) == digest(collate([dataset[0]]))
    batches = torch.utils.data.DataLoader(dataset, batch_size=1, num_workers=1)
    assert sorted(batch["id"][0] for batch in batches) == sorted(dataset.manifest.ids.to_pylist())


@pytest.mark.parametrize("name", ["sdxl", "qwen-image"])
def test_other_families(folder, tmp_path, name):
    models = frozen(name)
    job, _ = run(folder, tmp_path / "store", models=models, caption_transform={"drop": 0.3})
    dataset = encoded(job)
    with calotype.Loader(dataset, 2, seed=1) as loader:
        batches = [batch for _ in range(2) for batch in loader]
    if name == "sdxl":
        for batch in batches:
            assert {tuple(size) for size in batch["original_size"].tolist()} in ({(72, 96)}, {(96, 72)})
        assert {"original_size", "crop_top_left", "target_size", "pooled_prompt_embeds"} <= batches[0].keys()
        return
    lengths = {batch["prompt_embeds"].shape[1] for batch in batches}
    assert len(lengths) == 1 and lengths.pop() < models.max_sequence_length  # one shape for all, the longest text's
    for batch in batches:
        for row, text in enumerate(batch["text"]):
            (record,) = models.encode_texts([text])
            count = len(record["prompt_embeds"])
            mask = batch["prompt_embeds_mask"][row]
            assert mask[:count].all() and not mask[count:].any()
            torch.testing.assert_close(
                batch["prompt_embeds"][row, :count], record["prompt_embeds"], rtol=1e-3, atol=1e-4
            )
            assert not batch["prompt_embeds"][row, count:].any()


@pytest.mark.parametrize("options", [FLIPS, ENDLESS, {}], ids=["flips", "variants", "nothing drawn"])
def test_what_is_remembered_of_a_sample_changes_no_bit(folder, tmp_path, monkeypatch, options):
    variants = Variants(image=2, caption=2) if options is ENDLESS else Variants()
    job, _ = run(folder, tmp_path / "store", variants=variants, **options)
    remembers, forgets = encoded(job), encoded(job)
    wanted = [SampleKey(index, epoch, seed=seed) for seed in (None, 7) for epoch in range(6) for index in range(4)]
    got = [digest(remembers[key]) for key in wanted for _ in range(2)]
    assert remembers._known.images and remembers._known.texts
    assert any(text is not None for text in remembers._known.fixed_texts.values()) == (not options)
    monkeypatch.setattr("calotype.encodings.dataset._MOST_KNOWN", 0)
    assert got == [digest(forgets[key]) for key in wanted for _ in range(2)]
    assert not forgets._known.images and not forgets._known.texts
    assert not pickle.loads(pickle.dumps(remembers))._known.images


def test_datasets_of_two_stores_may_share_one_record_cache(dataset, folder, tmp_path):
    other, _ = run(folder, tmp_path / "store", resolution=48, caption_transform={"trigger": "ohwx"})
    cache = RecordCache()
    for each in (dataset, encoded(other)):
        for key in keys(each, epochs=1):
            assert digest(each.with_cache(cache)[key]) == digest(each[key])
    assert len(cache)


def test_a_record_that_was_read_is_still_found_when_its_shard_is_pruned_or_broken(folder, tmp_path):
    job, _ = run(folder, tmp_path / "store", **FLIPS)
    dataset = encoded(job)
    key = SampleKey(0)
    stored = dataset.prepare(key)["moments"]
    first = stored.load()
    assert stored._found_at is not None
    dataset.store._files._files.clear()  # as when many shards are read: the descriptor is given up
    shard = dataset.store.path / "shards" / f"{stored._found_at.shard}.safetensors"
    torch.testing.assert_close(stored.load(), first, rtol=0, atol=0)
    dataset.store._files._files.clear()
    whole = shard.read_bytes()
    shard.write_bytes(whole[: stored._found_at.offset + 8])
    with pytest.raises(StoreError, match=f"{stored._found_at.shard}.*truncated"):
        stored.load()
    dataset.store._files._files.clear()
    shard.unlink()
    with pytest.raises(StoreError, match="its shard was deleted"):
        stored.load()
    shard.write_bytes(whole)
    torch.testing.assert_close(stored.load(), first, rtol=0, atol=0)


@pytest.mark.parametrize("in_process", [False, True])
def test_a_record_that_breaks_while_threads_only_read_is_named(folder, tmp_path, in_process):
    dataset = encoded(run(folder, tmp_path / "store", **FLIPS)[0])
    dataset.finishes_in_trainer = True
    row = dataset.store.find_one(dataset.records.image(SampleKey(0)).key)
    place = dataset.store.locate(row, "moments")
    with open(dataset.store.path / "shards" / f"{dataset.store.shard(row)}.safetensors", "r+b") as file:
        file.seek(place.offset)
        file.write(bytes(64))
    with calotype.Loader(dataset, 2, seed=3, in_process=in_process) as loader:
        for _ in range(8):  # more often than there are slots: a step that fails gives its own back
            loader.load_state_dict({"epoch": 0})
            with pytest.raises(StoreError, match="moments is not what was written: the checksum differs"):
                list(loader)


def test_memory_that_can_not_be_had_while_threads_only_read_is_an_error_of_its_step(dataset):
    class Full(HeapMemory):
        def reserve(self, specs):
            raise OSError(12, "Cannot allocate memory")

    producer = Producer(dataset, calotype.Loader(dataset, 2).plan, threads=2, on_error="raise", finish=False)
    memory = Full()
    assert producer.submit(memory) == [] and producer.ready()
    with pytest.raises(OSError, match="Cannot allocate memory"):
        producer.take()
    assert producer.seek(Cursor()) == [memory]


def test_a_picture_that_goes_while_threads_only_read_is_replaced_by_name(folder, tmp_path):
    dataset = encoded(run(folder, tmp_path / "store", **FLIPS)[0])
    dataset.finishes_in_trainer = True
    with calotype.Loader(dataset, 2, seed=3) as loader:
        dataset.records.leave_out(0, "gone")  # after the plan was made
        batches = list(loader)
        gone = dataset.manifest[0].id
        assert gone not in ids(batches) and len(ids(batches)) == len(dataset)
        assert {note.id for note in loader.ledger if note.kind == "replaced"} == {gone}


def test_what_is_not_encoded_is_an_error_that_names_the_command(folder, job, tmp_path):
    """The job's store, which has the empty caption and the scaling, and other texts and images."""
    shutil.copytree(job.store.path, tmp_path / "store")
    gaps = make_job(folder, tmp_path / "store")
    gaps.store.drop(gaps.store.rows("picture"))
    with pytest.raises(StoreError, match=r"7 images and 7 texts of 15 records.*calotype encode.*on_the_fly"):
        encoded(gaps)


def test_a_store_that_was_never_filled_is_refused_before_images_are_hashed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("calotype.encodings.dataset_records.scan_contents", lambda *_, **__: pytest.fail("hashed"))
    with pytest.raises(StoreError, match=r"images and texts of this dataset are not encoded for .*calotype encode"):
        encoded(make_job(folder, tmp_path / "store"))


@pytest.mark.parametrize("where", ["in_memory", "in_memory_of_the_process", "device_cache"])
def test_kept_records_change_no_bit_and_are_read_once(job, dataset, tmp_path, where):
    expected = [
        digest(b) for loader in [calotype.Loader(dataset, 3, in_process=True)] for _ in range(3) for b in loader
    ]
    store = tmp_path / "store"
    shutil.copytree(job.store.path, store)
    options = {"model": job.models.model, "store": store, "dtype": "float32"}
    if where == "device_cache":
        loader = calotype.Loader(calotype.encoded_dataset(job.dataset, **options), 3, device_cache=True)
    else:
        kept = calotype.encoded_dataset(job.dataset, **options, in_memory=True)
        loader = calotype.Loader(kept, 3, in_process=where == "in_memory")
    with loader:
        got = [digest(batch) for _ in range(3) for batch in loader]
        if where != "in_memory_of_the_process":
            cache = loader.dataset.record_cache
            assert len(cache) <= 2 * 7 + 2 * 8  # moments of each image and its mirror, two tensors of each text
            assert len(pickle.loads(pickle.dumps(cache))) == 0
            read = []
            loader.dataset.store.read_into = lambda *place: read.append(place)
            loader.load_state_dict({"epoch": 0})
            assert [digest(batch) for _ in range(3) for batch in loader] == expected and not read
    assert got == expected


def test_what_is_encoded_on_the_fly_is_kept_too(folder, job, tmp_path):
    made = calotype.Loader(encoded(make_job(folder, tmp_path / "a", **FLIPS), OnTheFlyDataset), 3, in_process=True)
    kept = calotype.Loader(encoded(make_job(folder, tmp_path / "b", **FLIPS), OnTheFlyDataset), 3, device_cache=True)
    with made, kept:
        for _ in range(3):
            assert [digest(batch) for batch in kept] == [digest(batch) for batch in made]
        assert len(kept.dataset.record_cache)


def test_variants_come_as_often_as_they_should(folder, tmp_path):
    job, _ = run(folder, tmp_path / "store", variants=Variants(image=3, caption=2), **ENDLESS)
    dataset = encoded(job)
    epochs = 1500
    seen, texts = Counter(), Counter()
    for epoch in range(epochs):
        key = SampleKey(1, epoch)
        seen[dataset.records.image(key).key] += 1
        texts[dataset.records.caption(key).text] += 1
        if epoch < 20:
            assert dataset[key]["latents"].shape == (16, 6, 10)
    program = dataset.img_transform
    content = int.from_bytes(dataset.records.contents[1].digest[:8], "little")
    size = dataset.buckets.sizes[dataset.records.buckets[1]]
    listed = program.outcomes((72, 96), SampleKey(1, size=size), content=content, variants=3)
    assert len(seen) == len(listed) == 6
    for one in listed:
        key = dataset.records._image_record(1, dataset.records.contents[1], one.geometry, one.variant).key
        assert seen[key] / epochs == pytest.approx(one.probability, abs=0.06)
    for text, probability in dataset.records.texts(1).items():
        assert texts[text] / epochs == pytest.approx(probability, abs=0.06)


def damaged(folder):
    """Four photos, one of which has a good header and then stops."""
    make_folder(folder)
    with Image.open(folder / "coffee.png") as image:
        image.convert("RGB").resize((320, 240)).save(folder / "coffee.jpg", quality=95)
    data = (folder / "coffee.jpg").read_bytes()
    (folder / "coffee.jpg").write_bytes(data[: len(data) // 2] + data[-2:])
    (folder / "coffee.png").unlink()
    return folder


def test_training_does_without_what_could_not_be_encoded_and_says_so(tmp_path):
    folder = damaged(tmp_path / "photos")
    job, report = run(folder, tmp_path / "store")
    assert [failure.id for failure in report.failures] == ["coffee.jpg"]
    with calotype.Loader(encoded(job), 2, seed=3) as loader:
        assert sorted(ids(loader)) == ["astronaut.png", "chelsea.png", "rocket.png"]
        assert [(entry.kind, entry.id) for entry in loader.ledger] == [("unreadable", "coffee.jpg")]
    make_folder(folder, names=("coffee.png",))
    (folder / "coffee.jpg").unlink()
    job, report = run(folder, tmp_path / "store")
    assert report.encoded == 1 and len(encoded(job).records.usable) == 4


class TestOnTheFly:
    """The first epoch encodes what is missing, inside the training process."""

    def batches(self, dataset, epochs=1, **options):
        with calotype.Loader(dataset, 2, seed=3, **options) as loader:
            return [batch for _ in range(epochs) for batch in loader]

    @pytest.mark.parametrize("in_process", [False, True])
    def test_its_batches_are_those_of_a_store_made_ahead(self, folder, job, tmp_path, in_process):
        dataset = encoded(make_job(folder, tmp_path / "store", **FLIPS), OnTheFlyDataset)
        assert len(dataset.store) == 0
        for made, ahead in zip(
            self.batches(dataset, 3, in_process=in_process), self.batches(encoded(job), 3), strict=True
        ):
            assert made.keys() == ahead.keys() and made["id"] == ahead["id"] and made["text"] == ahead["text"]
            for name, value in made.items():
                if isinstance(value, torch.Tensor):
                    torch.testing.assert_close(value, ahead[name], rtol=1e-3, atol=1e-4)

    def test_it_keeps_what_it_made_and_then_lets_the_models_go(self, folder, tmp_path):
        models = frozen.__wrapped__("flux.1-dev")
        job = make_job(folder, tmp_path / "store", models=models, caption_transform={"drop": 0.5})
        dataset = encoded(job, OnTheFlyDataset)
        with calotype.Loader(dataset, 2, seed=3) as loader:
            list(loader)
            assert models._vae is not None and models._pipe is not None
            assert len(dataset.store) > len(dataset) + 1
            second = iter(loader)  # what was not drawn in the first epoch is made before the second
            assert models._vae is None and models._pipe is None
            list(second)
            again = [digest(batch) for batch in loader]
        assert encode_job(make_job(folder, tmp_path / "store", caption_transform={"drop": 0.5})).encoded == 0
        read = EncodedDataset(job.dataset, models, job.store)
        with calotype.Loader(read, 2, seed=3) as loader:
            loader.load_state_dict({"epoch": 2})
            assert [digest(batch) for batch in loader] == again

    def test_a_store_that_has_some_is_filled_up(self, folder, tmp_path):
        half = make_folder(tmp_path / "half", names=NAMES[:2])
        run(half, tmp_path / "store")
        dataset = encoded(make_job(folder, tmp_path / "store"), OnTheFlyDataset)
        before = len(dataset.store)
        self.batches(dataset, 2)
        records = dataset.store.rows()
        assert len({bytes(key) for key in dataset.store.keys(records)}) == len(records) == before + 10

    def test_an_epoch_that_was_left_early_encodes_no_more_than_it_showed(self, folder, tmp_path):
        dataset = encoded(make_job(folder, tmp_path / "store"), OnTheFlyDataset)
        with calotype.Loader(dataset, 1, seed=3, in_process=True) as loader:
            next(iter(loader))
            assert len(dataset.store) == 3  # an image, a text, the scaling
            next(iter(loader))
            assert len(dataset.store) <= 5

    def test_two_ranks_share_what_was_not_drawn(self, folder, tmp_path):
        options = {"img_transform": {"horizontal_flip": 0.5, "vertical_flip": 0.5}}
        ranks = [encoded(make_job(folder, tmp_path / "store", **options), OnTheFlyDataset) for _ in range(2)]
        before = [len(dataset.store) for dataset in ranks]
        for rank, dataset in enumerate(ranks):
            dataset.begin_epoch(whole=True, rank=rank, world_size=2)
        assert before == [0, 0]
        store = ranks[1].store
        store.refresh()
        pictures = [bytes(key) for key in store.keys(store.rows("picture"))]
        assert len(pictures) == len(set(pictures)) == 4 * len(ranks[0])
        ranks[0].begin_epoch(whole=True, rank=0, world_size=2)
        assert ranks[0]._complete

    @pytest.mark.parametrize("in_process", [False, True])
    def test_a_picture_that_cannot_be_decoded_costs_only_itself(self, tmp_path, in_process):
        folder = damaged(tmp_path / "photos")
        dataset = encoded(make_job(folder, tmp_path / "store"), OnTheFlyDataset)
        with calotype.Loader(dataset, 2, seed=3, in_process=in_process) as loader:
            for _ in range(3):
                assert "coffee.jpg" not in ids(loader)
            assert dataset._complete
            assert {entry.id for entry in loader.ledger if entry.kind == "unreadable"} == {"coffee.jpg"}

    def test_the_keys_of_a_batch_are_derived_once(self, folder, tmp_path, monkeypatch):
        dataset = encoded(make_job(folder, tmp_path / "store", **FLIPS), OnTheFlyDataset)
        counts = Counter()
        for name in ("outcome", "image_of", "caption", "text_key"):
            method = getattr(dataset.records, name)

            def counted(*args, name=name, method=method):
                counts[name] += 1
                counts[args] += name in ("outcome", "caption")  # of a sample's key
                return method(*args)

            monkeypatch.setattr(dataset.records, name, counted)
        with calotype.Loader(dataset, 2, seed=3, in_process=True, threads=1, prefetch=1) as loader:
            begun = iter(loader)
            monkeypatch.setattr(dataset, "_complete_store", lambda **_: None)  # it derives all there are, not a batch's
            for encodes in (True, False):
                counts.clear()
                rows = len(dataset.store)
                list(begun if encodes else loader)
                assert (len(dataset.store) > rows) == encodes
                samples = counts["outcome"]  # further epochs are described ahead
                assert samples >= len(dataset) and all(
                    counts[n] == samples for n in ("image_of", "caption", "text_key")
                )
                assert max(count for name, count in counts.items() if isinstance(name, tuple)) == 2  # outcome, caption
                loader.load_state_dict({"epoch": 0})

    def test_one_sample_alone(self, folder, tmp_path):
        dataset = encoded(make_job(folder, tmp_path / "store"), OnTheFlyDataset)
        sample = dataset[0]
        assert torch.equal(sample["latents"], dataset[0]["latents"]) and sample["id"] == "astronaut.png"

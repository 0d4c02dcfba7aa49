"""NaN and inf never enter a store: what overflows is made again in float32, what is NaN there too is named."""

import json

import pytest
import torch
from encoding_helpers import copied_pipeline, encoded, make_dataset, make_folder, make_job, run
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from calotype.cli import app
from calotype.encodings.dataset_records import Variants
from calotype.encodings.encode import encode_job
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.keys import not_finite_key
from calotype.encodings.on_the_fly import OnTheFlyDataset
from calotype.encodings.store import EncodingStore
from calotype.errors import NotFiniteError
from calotype.loader import Loader

NAMES = ("astronaut.png", "chelsea.png", "coffee.png")


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "photos", NAMES)


def change(pipeline, component, name, work):
    """Changes one tensor of a component of a pipeline."""
    (file,) = (pipeline / component).glob("*.safetensors")
    tensors = load_file(file)
    tensors[name] = work(tensors[name])
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.fixture
def overflowing(tmp_path):
    """A pipeline whose autoencoder and text encoder overflow in float16 and not in float32."""
    pipeline = copied_pipeline(tmp_path / "pipeline", "sd-1.5")
    change(pipeline, "vae", "encoder.conv_in.weight", lambda weight: weight * 3e5)
    names = load_file(pipeline / "text_encoder" / "model.safetensors").keys()
    layer = next(name for name in names if name.endswith("layers.1.mlp.fc1.weight")).removesuffix("1.weight")
    change(pipeline, "text_encoder", f"{layer}1.weight", lambda weight: weight * 1e6)
    change(pipeline, "text_encoder", f"{layer}2.weight", lambda weight: weight * 1e-6)
    return pipeline


@pytest.fixture
def broken(tmp_path):
    """A pipeline whose text encoder gives NaN for `coffee` in every dtype."""
    pipeline = copied_pipeline(tmp_path / "pipeline", "sd-1.5")
    models = FrozenModels(pipeline, dtype=torch.float32)
    token = models._tokenizers().tokenizer("coffee").input_ids[1]
    names = load_file(pipeline / "text_encoder" / "model.safetensors").keys()
    name = next(name for name in names if name.endswith("token_embedding.weight"))
    change(pipeline, "text_encoder", name, lambda weight: weight.index_fill(0, torch.tensor([token]), torch.nan))
    return pipeline


def all_finite(store):
    records = [store.get(int(row)) for kind in ("picture", "text") for row in store.rows(kind)]
    assert len(records) >= 2 * len(NAMES)
    return all(value.isfinite().all() for record in records for value in record.values())


def test_what_overflows_in_float16_is_made_in_float32(folder, overflowing, tmp_path):
    models = FrozenModels(overflowing, dtype=torch.float16)
    image = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    assert not all(value.isfinite().all() for value in models.encode_pictures(image).values())
    assert not models.encode_texts(["a cup"])[0]["prompt_embeds"].isfinite().all()
    job, report = run(folder, tmp_path / "store", models=models)
    assert report.failed == 0 and all_finite(job.store)
    exact = FrozenModels(overflowing, dtype=torch.float32)
    (wanted,) = exact.encode_texts(["a photo of coffee, bright, large"])
    found = job.store.get(job.store.find_one(job.plan()[0].text_key("a photo of coffee, bright, large")))
    assert torch.equal(found["prompt_embeds"], wanted["prompt_embeds"].half())
    assert all(value.isfinite().all() for value in (sample["latents"] for sample in encoded(job)))


def test_latents_that_float16_can_t_hold_are_named_with_the_dtype_that_can(folder, tmp_path):
    pipeline = copied_pipeline(tmp_path / "pipeline", "sd-1.5")
    change(pipeline, "vae", "quant_conv.bias", lambda bias: bias + 6e4)
    change(pipeline, "vae", "quant_conv.weight", lambda weight: weight * 3e4)
    job, report = run(folder, tmp_path / "store", models=FrozenModels(pipeline, dtype=torch.float16))
    assert report.failed == len(NAMES) and {entry.kind for entry in report.failures} == {"not_finite"}
    assert all("more than float16 can hold; encodings.dtype=float32 can" in one.reason for one in report.failures)
    assert len(job.store.rows("picture")) == 0


def test_a_caption_without_a_finite_record_is_named_each_time_and_trained_without(folder, broken, tmp_path):
    models = FrozenModels(broken, dtype=torch.float32)
    job, report = run(folder, tmp_path / "store", models=models)
    for found in (report, encode_job(job)):
        assert [(entry.kind, entry.id) for entry in found.failures] == [("not_finite", "coffee.png")]
        assert "the text encoders gave NaN or inf for it, in float32 too" in found.failures[0].reason
    dataset = encoded(job)
    with Loader(dataset, 2, in_process=True) as loader:
        ids = [id for batch in loader for id in batch["id"]]
        assert sorted(ids) == ["astronaut.png", "chelsea.png"]
        assert loader.ledger.counts()["not_finite"] == 1


def test_on_the_fly_another_of_the_batch_stands_in_and_the_ledger_has_it(folder, broken, tmp_path):
    job = make_job(folder, tmp_path / "store", models=FrozenModels(broken, dtype=torch.float32))
    dataset = encoded(job, OnTheFlyDataset)
    with Loader(dataset, 3, in_process=True) as loader:
        for _ in range(2):
            (batch,) = list(loader)
            assert "coffee.png" not in batch["id"] and len(batch["id"]) == 3
            assert all(v.isfinite().all() for v in batch.values() if isinstance(v, torch.Tensor))
        (entry, *_) = [entry for entry in loader.ledger if entry.kind == "not_finite"]
        assert entry.id == "coffee.png" and "another of its batch stands in" in entry.reason
    alone = make_dataset(folder, "sd-1.5").select([2])
    other = OnTheFlyDataset(alone, job.models, EncodingStore(tmp_path / "other", create=True))
    with pytest.raises(NotFiniteError, match=r"coffee.png: the text encoders gave NaN"):
        list(Loader(other, 1, in_process=True))


def test_verify_finds_what_an_earlier_version_stored(folder, tmp_path):
    job, _ = run(folder, tmp_path / "store")
    (key,) = [bytes(job.store.keys(job.store.rows("picture")[:1])[0])]
    record = job.store.get(job.store.find_one(key))
    record["moments"].view(-1)[5] = torch.inf
    with job.store.writer() as writer:
        writer.put([key], [{name: value.bfloat16() for name, value in record.items()}], kind="picture")
    result = CliRunner().invoke(app, ["cache", "verify", str(tmp_path / "store"), "--drop", "--json"])
    assert result.exit_code == 1, result.output
    found = json.loads(result.stdout)
    assert found["dropped"] == 1 and "(picture) holds NaN or inf" in found["damaged"][0]["reason"]
    assert CliRunner().invoke(app, ["cache", "verify", str(tmp_path / "store")]).exit_code == 0


def test_a_mark_is_of_one_record():
    assert not_finite_key(b"a" * 16) != not_finite_key(b"b" * 16)


def test_variants_where_nothing_is_drawn_without_end_are_noted(folder, tmp_path):
    _, report = run(folder, tmp_path / "store", variants=Variants(image=2))
    assert [(one.kind, one.id) for one in report.notes] == [("no_effect", "encodings.image_variants")]

"""Encodings on a CUDA device: made there, copied there, drawn there."""

import pytest
import torch
from encoding_helpers import encoded, make_folder, make_job
from loader_helpers import digest
from tiny_pipelines import tiny_pipeline

import calotype
from calotype.encodings.encode import encode_job
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.on_the_fly import OnTheFlyDataset

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def models():
    return FrozenModels(tiny_pipeline("flux.1-dev"), device="cuda", dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "photos")


def batches(dataset, epochs=1):
    with calotype.Loader(dataset, 2, seed=3, device="cuda") as loader:
        return [
            {k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in b.items()}
            for _ in range(epochs)
            for b in loader
        ]


def test_what_was_kept_arrives_bit_for_bit_and_latents_repeat(folder, models, tmp_path):
    job = make_job(folder, tmp_path / "store", models=models)
    assert encode_job(job).failed == 0
    dataset = encoded(job)
    first, again = batches(dataset), batches(dataset)
    assert [digest(batch) for batch in first] == [digest(batch) for batch in again]
    for batch in first:
        for row, text in enumerate(batch["text"]):
            (record,) = dataset.store.find([dataset.records.text_key(text)])
            assert torch.equal(batch["prompt_embeds"][row], dataset.store.get(int(record))["prompt_embeds"])
        assert batch["latents"].isfinite().all()


def test_on_the_fly_gives_what_a_store_made_ahead_gives(folder, models, tmp_path):
    job = make_job(folder, tmp_path / "ahead", models=models)
    encode_job(job)
    made = batches(encoded(make_job(folder, tmp_path / "store", models=models), OnTheFlyDataset), 2)
    for one, other in zip(made, batches(encoded(job), 2), strict=True):
        assert one["id"] == other["id"]
        torch.testing.assert_close(one["latents"], other["latents"], rtol=2e-2, atol=2e-2)


def test_the_models_leave_the_device_one_after_the_other(folder, models, tmp_path):
    encode_job(make_job(folder, tmp_path / "store", models=models))
    models.release_pictures()
    models.release_texts()
    assert models._pipe is None and models._vae is None

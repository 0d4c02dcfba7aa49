"""A user's script over the public API: type checkers read it, nobody runs it (`test_public_types.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

import torch

import calotype
import calotype.bench.report
import calotype.bench.run
import calotype.captioning
import calotype.captioning.report
import calotype.check
import calotype.check.report
import calotype.convert
import calotype.distill
import calotype.distill.report
import calotype.encodings
import calotype.encodings.report
import calotype.train
import calotype.train.report
from calotype import models
from calotype.config import Config, read_config
from calotype.errors import ImageError
from calotype.ledger import LedgerEntry
from calotype.models import get_family, register
from calotype.models.family import split
from calotype.models.network import UNET_ATTENTION
from calotype.previews import Preview
from calotype.types import Batch, Geometry, ImageRef

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor


# -- A config's dataset and loader ----------------------------------------------------------------------------------


def from_a_config() -> None:
    raw = calotype.load_config("train.yaml", ["dataset.resolution=512"])
    assert_type(raw, dict[str, Any])
    config = read_config("train.yaml")
    assert_type(config, Config)
    assert_type(config.loader_device, str | None)

    dataset = calotype.build_dataset(config)
    assert_type(dataset, calotype.TextToImageDataset)
    assert_type(dataset[0], dict[str, Any])
    assert_type(len(dataset), int)
    assert_type(dataset.manifest, calotype.Manifest)

    with calotype.build_loader(raw) as loader:
        assert_type(loader, calotype.Loader)
        for batch in loader:
            assert_type(batch, Batch)
        position = loader.state_dict()
        loader.load_state_dict(position)
        for entry in loader.ledger:
            assert_type(entry, LedgerEntry)
            assert_type(entry.reason, str)


# -- Objects instead of a config ------------------------------------------------------------------------------------


def without_a_config(model_transform: calotype.FluxTransform) -> calotype.Loader:
    manifest = calotype.load_manifest("photos", exclude=["draft*"])
    assert_type(manifest, calotype.Manifest)
    assert_type(manifest[0], calotype.Row)
    assert_type(manifest[0].image, ImageRef)
    assert_type(manifest[0].captions, tuple[str, ...])

    dataset = calotype.text_to_image_dataset(
        model_transform,
        path=manifest,
        img_transform=calotype.ImageTransform(horizontal_flip=0.5),
        caption_transform=calotype.CaptionTransform(drop=0.1, shuffle_parts=0.3),
        resolution=512,
        buckets={"max_upscale": 2.0},
        seed=7,
    )
    assert_type(dataset, calotype.TextToImageDataset)
    calotype.text_to_image_dataset(path="photos", exclude=["draft*"], validation=0.25, split="validation")
    calotype.text_to_image_dataset(path="photos", recursiv=False)  # type: ignore[call-arg]  # a slip is found
    assert_type(dataset[calotype.SampleKey(3, epoch=2, size=(512, 512))], dict[str, Any])

    page = calotype.preview(dataset)
    assert_type(page, Preview)
    page.save("preview.html")
    ledger = calotype.Ledger("ledger.jsonl")
    assert_type(ledger.counts(), dict[str, int])
    return calotype.Loader(dataset, 4, device="cpu", remainder="repeat", on_error="raise", ledger=ledger)


def buckets() -> calotype.Buckets:
    return calotype.Buckets(resolution=512, multiple=16)


def transforms(folder: Path) -> None:
    transform = calotype.build_model_transform("sdxl", tokenizers=folder)
    sample = calotype.Sample(image=torch.zeros(3, 64, 64, dtype=torch.uint8), text="a cat")
    assert_type(sample.image, torch.Tensor)
    assert_type(transform(sample), dict[str, Any])
    assert_type(transform.prepare(sample), dict[str, Any])
    assert_type(transform.finish({"img": sample.image}), dict[str, Any])
    calotype.FluxTransform(clip_tokenizer_path=folder, t5_tokenizer_path=folder, t5_max_seq_len=256)
    calotype.SD15Transform(clip_tokenizer_path=folder)
    calotype.SDXLTransform(clip_l_tokenizer_path=folder, clip_g_tokenizer_path=folder)
    calotype.SD3Transform(clip_l_tokenizer_path=folder, clip_g_tokenizer_path=folder, t5_tokenizer_path=folder)
    calotype.PixelsTransform()


def step(loss_of: torch.nn.Module, batch: Batch) -> torch.Tensor:
    images: torch.Tensor = batch["img"]  # (B, 3, H, W), float in [-1, 1]
    loss = loss_of(images)
    assert isinstance(loss, torch.Tensor)
    return loss


# -- torch's DataLoader ---------------------------------------------------------------------------------------------


def data_loader(dataset: calotype.TextToImageDataset) -> dict[str, Any]:
    sampler = calotype.BatchSampler(dataset, batch_size=2, seed=0, num_replicas=1, rank=0)
    loader = torch.utils.data.DataLoader(
        dataset, batch_sampler=sampler, collate_fn=calotype.collate, num_workers=2, persistent_workers=True
    )
    for keys in sampler:
        assert_type(keys, list[calotype.SampleKey])
    for batch in loader:
        print(batch["img"].shape)
    assert_type(calotype.collate([dataset[0], dataset[1]]), Batch)
    state = sampler.state_dict(loader)
    sampler.load_state_dict(state)
    return state


# -- Encodings ------------------------------------------------------------------------------------------------------


def encodings(dataset: calotype.TextToImageDataset) -> calotype.Loader:
    report = calotype.encode_dataset(dataset, model="flux.1-dev", store="encodings", device="cpu", dtype="bfloat16")
    assert_type(report, calotype.encodings.report.EncodeReport)
    encoded = calotype.encoded_dataset(dataset, model="flux.1-dev", store="encodings")
    assert_type(encoded, calotype.EncodedDataset)
    assert_type(encoded[0], dict[str, Any])
    return calotype.Loader(encoded, batch_size=2, device_cache=True)


# -- Samples of another kind ----------------------------------------------------------------------------------------


class Latents(calotype.SampleSource):
    """Latents that another program wrote: one file for each sample."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*.pt"))

    def __len__(self) -> int:
        return len(self.files)

    def prepare(self, key: calotype.SampleKey) -> Mapping[str, torch.Tensor]:
        try:
            latents: torch.Tensor = torch.load(self.files[key.index])
        except OSError as error:
            raise ImageError(self.files[key.index].name, str(error)) from error
        return {"latents": latents}  # (C, h, w)

    def finish(self, batch: Mapping[str, Any]) -> Batch:
        return {**batch, "latents": batch["latents"].float() * 0.18215}

    def ids(self, start: int, stop: int) -> list[str]:
        return [file.name for file in self.files[start:stop]]

    def weights(self) -> npt.NDArray[np.float64] | None:
        return None


def other_samples() -> None:
    source = Latents(Path("latents"))
    assert_type(source[0], dict[str, Any])
    with calotype.Loader(source, batch_size=2) as loader:
        for batch in loader:
            print(batch["latents"].shape)


# -- A family of models ---------------------------------------------------------------------------------------------


class Toy(models.ModelFamily):
    """Stable Diffusion 2.1, in short."""

    def encode_prompt(
        self, pipe: Any, texts: Sequence[str], *, max_sequence_length: int | None, device: torch.device
    ) -> list[dict[str, Tensor]]:
        prompt_embeds, _ = pipe.encode_prompt(list(texts), device, 1, False)
        return split({"prompt_embeds": prompt_embeds})

    def conditioning(self, geometry: Geometry) -> dict[str, Tensor]:
        return {"scale": torch.tensor(geometry.scale)}


def predict(
    network: Any, x_t: Tensor, timesteps: Tensor, batch: Mapping[str, Tensor], guidance: float | None
) -> Tensor:
    prediction: Tensor = network(x_t, timesteps, encoder_hidden_states=batch["prompt_embeds"], return_dict=False)[0]
    return prediction


TOY = Toy(
    name="toy",
    models=(
        models.ModelSpec(
            name="toy-1",
            hub=("me/toy-1",),
            family="toy",
            resolution=768,
            multiple=8,
            tokenizers=(models.TokenizerSpec(name="clip", kind="clip", subfolder="tokenizer"),),
            encodings=models.EncodingSpec(
                latent_channels=4,
                texts=(models.TextOutput(key="prompt_embeds", tokens=77, width=1024),),
                text_flops=2.0 * 289_715_200 * 77,
            ),
        ),
    ),
    pipelines=("StableDiffusionPipeline",),
    network=models.Network(predict=predict, lora_targets=UNET_ATTENTION, component="unet"),
)


def families() -> None:
    register(TOY)
    assert_type(get_family("toy"), models.ModelFamily)
    assert_type(calotype.get_spec("toy-1"), models.ModelSpec)
    assert_type(calotype.list_specs(), list[models.ModelSpec])


# -- Commands -------------------------------------------------------------------------------------------------------


def commands() -> None:
    config = calotype.load_config("train.yaml")
    try:
        checked = calotype.check.run(config, deep=True)
        assert_type(checked, calotype.check.report.Report)
        assert_type(calotype.encodings.run(config, device="cpu"), calotype.encodings.report.EncodeReport)
        captioned = calotype.captioning.run(config, backend="http", n=2)
        assert_type(captioned, calotype.captioning.report.CaptionReport)
        trained = calotype.train.run(config, resume=True, show=lambda progress: print(progress.step, progress.loss))
        assert_type(trained, calotype.train.report.TrainReport)
        assert_type(calotype.distill.run(config), calotype.distill.report.DistillReport)
        assert_type(calotype.bench.run.bench_config(config, steps=5), calotype.bench.report.BenchReport)
        rows = calotype.load_manifest("photos", missing_captions="empty")
        plan = calotype.convert.plan_conversion(rows, "shards", to="webdataset")
        assert_type(calotype.convert.run_conversion(plan), calotype.convert.ConvertReport)
    except calotype.CalotypeError as error:
        print(error)

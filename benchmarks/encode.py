"""How much time does `calotype encode` add to decoding and the models' forward passes?

    python benchmarks/encode.py                       # two cores, float32: about six minutes; a GPU, bfloat16: the same
    python benchmarks/encode.py --vae-channels 32 64 128 128 --t5-layers 4     # smaller models: more overhead
    python benchmarks/encode.py --json out.json

The models are a FLUX.1 pipeline built from configs with random weights. The autoencoder and CLIP-L have FLUX's own
shapes. T5 is XXL on a GPU, v1.1-base on a CPU, which would take minutes for each caption otherwise. The tokenizers are
real (`tests/real_tokenizers.py`), the images photos (`_photos.py`), at 1024² on a GPU and 256² on a CPU.

On a CPU, decoding and models share the cores: the wall time of the whole job (`encode_job`: find the work, hash files
and weights, load, decode, encode, write, flush) relative to only loading, decoding and the same forward passes on the
same batches in sequence. On a GPU: the throughput of texts and of images, decoding and writing included, relative to
the forward passes alone on batches on the device; loading is excluded from both. Job and bare passes take turns; ratios
are computed within a round.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from _photos import PHOTOS, photo_sets
from _process import machine, say
from _report import print_table, print_text

import calotype
from calotype.data.dataset import TextToImageDataset
from calotype.encodings.encode import encode_job
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.job import EncodeJob
from calotype.encodings.store import EncodingStore

HERE = Path(__file__).parent
CUDA = torch.cuda.is_available()
DTYPE = torch.bfloat16 if CUDA else torch.float32
DEVICE = torch.device("cuda" if CUDA else "cpu")
WORDS = ("photo", "red", "green", "blue", "cat", "dog", "house", "tree", "sky", "light", "shadow", "river", "bright")

T5 = {
    "xxl": {"d_model": 4096, "d_ff": 10240, "num_heads": 64, "num_layers": 24},
    "base": {"d_model": 768, "d_ff": 2048, "num_heads": 12, "num_layers": 12},
}
T = TypeVar("T")

AIM_CPU, AIM_CUDA = 1.15, 0.95


@dataclass
class Batches:
    """What the worker gave to the models: the bare passes get the same."""

    texts: list[list[str]] = field(default_factory=list)
    image_shapes: list[tuple[int, ...]] = field(default_factory=list)
    """(B, 3, H, W) of each batch."""


class Noting(FrozenModels):
    """FrozenModels that note their batches."""

    def note(self, batches: Batches) -> None:
        self._batches = batches

    def encode_texts(self, texts: Sequence[str]) -> list[dict[str, torch.Tensor]]:
        self._batches.texts.append(list(texts))
        return super().encode_texts(texts)

    def encode_pictures(self, img: torch.Tensor) -> dict[str, torch.Tensor]:
        self._batches.image_shapes.append(tuple(img.shape))
        return super().encode_pictures(img)


def build_pipeline(folder: Path, options: argparse.Namespace) -> None:
    """A pipeline's folder as a user has it, without its transformer."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()  # it would say that the transformer is None
    transformers.utils.logging.disable_progress_bar()
    sys.path.append(str(HERE.parent / "tests"))
    from real_tokenizers import tokenizer

    t5 = T5[options.t5] | ({"num_layers": options.t5_layers} if options.t5_layers else {})
    torch.manual_seed(0)
    torch.set_default_dtype(DTYPE)
    with DEVICE, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = diffusers.FluxPipeline(
            scheduler=None,
            transformer=None,
            vae=diffusers.AutoencoderKL(
                down_block_types=["DownEncoderBlock2D"] * 4,
                up_block_types=["UpDecoderBlock2D"] * 4,
                block_out_channels=options.vae_channels,
                layers_per_block=2,
                latent_channels=16,
                sample_size=1024,
                scaling_factor=0.3611,
                shift_factor=0.1159,
                use_quant_conv=False,
                use_post_quant_conv=False,
            ),
            text_encoder=transformers.CLIPTextModel(
                transformers.CLIPTextConfig(
                    hidden_size=768,
                    intermediate_size=3072,
                    num_hidden_layers=12,
                    num_attention_heads=12,
                    bos_token_id=0,
                    eos_token_id=2,
                )
            ),
            tokenizer=transformers.CLIPTokenizer.from_pretrained(tokenizer("clip_l")),
            text_encoder_2=transformers.T5EncoderModel(
                transformers.T5Config(vocab_size=32128, d_kv=64, feed_forward_proj="gated-gelu", **t5)
            ),
            tokenizer_2=transformers.T5TokenizerFast.from_pretrained(tokenizer("t5")),
        )
        torch.set_default_dtype(torch.float32)
        pipeline.save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_name_or_path": "black-forest-labs/FLUX.1-dev"}))


def build_images(folder: Path, count: int, cache: Path) -> None:
    """So many photos, each with a caption of its own."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    files = [file for photos in photo_sets(cache, None, ["small", "large"]) for file in photos.files]
    for number, file in enumerate(files[:count]):
        os.link(file, folder / f"{number:03d}.jpg")
        words = " ".join(draw.choice(WORDS, draw.integers(8, 60)))
        (folder / f"{number:03d}.txt").write_text(f"{number}, {words}")


class Bench:
    """The job and the bare passes on the same images, captions and models.

    Args:
        root: Holds `pictures` and `pipeline`.
        resolution: Side of the square that the photos become.
    """

    def __init__(self, root: Path, resolution: int) -> None:
        self._root = root
        self._threads = os.cpu_count() or 1
        self.batches = Batches()
        self._dataset: TextToImageDataset = calotype.text_to_image_dataset(
            calotype.PixelsTransform(),
            path=root / "pictures",
            model="flux.1-dev",
            img_transform={"resize": resolution, "center_crop": True},
        )

    def job(self) -> dict[str, float]:
        """Into a new store, with nothing remembered of files; seconds."""
        self.batches = Batches()
        with tempfile.TemporaryDirectory(dir=self._root) as folder:
            os.environ["CALOTYPE_CACHE"] = str(Path(folder) / "cache")
            models = Noting(self._root / "pipeline", device=DEVICE, dtype=DTYPE)
            models.note(self.batches)
            job = EncodeJob(
                dataset=self._dataset,
                models=models,
                store=EncodingStore(Path(folder) / "store", create=True),
                threads=self._threads,
            )
            return self._phases(job) if CUDA else {"whole": clocked(lambda: encode_job(job))[0]}

    def _phases(self, job: EncodeJob) -> dict[str, float]:
        """Texts and images, with models that are loaded and warm."""
        _, work = job.plan()
        with job.worker() as worker:
            job.models.encode_texts([one.text for one in work.texts[-8:]])
            self.batches.texts.clear()
            texts, _ = clocked(lambda: worker.texts(work.texts))
            job.models.release_texts()
            height, width = work.images[0].geometry.target_size
            job.models.encode_pictures(torch.zeros(2, 3, height, width, dtype=torch.uint8))
            self.batches.image_shapes.clear()
            images, _ = clocked(lambda: worker.images(work.images))
        return {"texts": texts, "pictures": images}

    def bare(self) -> dict[str, float]:
        """Loading, texts, decoding, images, one after the other; seconds of each."""
        seconds = self._texts()
        gc.collect()
        with ThreadPoolExecutor(self._threads) as pool:
            rows = range(len(self._dataset))
            seconds["decode"], images = clocked(lambda: list(pool.map(lambda row: self._dataset.image(row)[0], rows)))
        batches = [torch.stack(part).to(DEVICE) for part in _parts(images, self.batches.image_shapes)]
        load, pipe = self._load(text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None)
        seconds["load"] += load
        if CUDA:
            _encode(pipe.vae, batches[:1])
        seconds["pictures"], _ = clocked(lambda: _encode(pipe.vae, batches))
        return seconds

    def _texts(self) -> dict[str, float]:
        load, pipe = self._load(vae=None)
        if CUDA:
            _encode_prompt(pipe, self.batches.texts[:1])
        return {"load": load, "texts": clocked(lambda: _encode_prompt(pipe, self.batches.texts))[0]}

    def _load(self, **absent: None) -> tuple[float, Any]:
        import diffusers

        absent |= {"transformer": None, "scheduler": None}
        folder = self._root / "pipeline"
        return clocked(lambda: diffusers.FluxPipeline.from_pretrained(folder, dtype=DTYPE, **absent).to(DEVICE))


@torch.no_grad()
def _encode_prompt(pipe: Any, batches: list[list[str]]) -> None:
    for texts in batches:
        pipe.encode_prompt(texts, None, device=DEVICE, max_sequence_length=512)


@torch.no_grad()
def _encode(vae: Any, batches: list[torch.Tensor]) -> None:
    for images in batches:
        vae.encode((images.float() / 127.5 - 1).to(DTYPE)).latent_dist.parameters  # noqa: B018


def _parts(images: list[torch.Tensor], shapes: list[tuple[int, ...]]) -> Iterator[list[torch.Tensor]]:
    left = iter(images)
    for count, *_ in shapes:
        yield list(islice(left, count))


def clocked(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds until it is done, on the device too; and what came of it."""
    if CUDA:
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = work()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def report(rounds: list[dict[str, dict[str, float]]], counts: dict[str, int], *, markdown: bool) -> None:
    def median(side: str, what: str) -> float:
        return statistics.median(one[side][what] for one in rounds)

    if not CUDA:
        ratios = [one["job"]["whole"] / sum(one["bare"].values()) for one in rounds]
        parts = [(f"bare: {what}", f"{median('bare', what):.2f}", "") for what in rounds[0]["bare"]]
        whole = ("the whole job", f"{median('job', 'whole'):.2f}", f"{statistics.median(ratios):.3f}")
        print_table("Wall time", ("", "seconds", "× bare"), [*parts, whole], markdown=markdown)
        reached = "yes" if statistics.median(ratios) <= AIM_CPU else "no"
        aim = (f"≤ {AIM_CPU}× decoding and forward passes", f"{min(ratios):.3f} – {max(ratios):.3f}", reached)
        print_table("Aims", ("aim", "from – to", "reached"), [aim], markdown=markdown)
        return
    rows = []
    for what in ("texts", "pictures"):
        ratios = [one["bare"][what] / one["job"][what] for one in rounds]
        rates = [f"{counts[what] / median(side, what):.1f}" for side in ("job", "bare")]
        reached = "yes" if statistics.median(ratios) >= AIM_CUDA else "no"
        rows.append(
            (what, *rates, f"{statistics.median(ratios):.3f}", f"{min(ratios):.3f} – {max(ratios):.3f}", reached)
        )
    columns = ("", "job, a second", "forward alone, a second", "ratio", "from – to", f"≥ {AIM_CUDA}")
    print_table("Throughput", columns, rows, markdown=markdown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2 * PHOTOS if CUDA else 16, help=f"up to {2 * PHOTOS}")
    parser.add_argument("--resolution", type=int, default=1024 if CUDA else 256, help="side of the square, in pixels")
    parser.add_argument("--vae-channels", type=int, nargs=4, default=[128, 256, 512, 512])
    parser.add_argument("--t5", choices=list(T5), default="xxl" if CUDA else "base")
    parser.add_argument("--t5-layers", type=int, help="fewer than the model's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--cache", type=Path, default=HERE.parent / ".cache/benchmarks", help="where the photos are kept"
    )
    parser.add_argument("--dir", type=Path, help="where to write; a temporary folder of the system if not given")
    parser.add_argument("--json", type=Path, help="write every figure of every round to this file")
    parser.add_argument("--markdown", action="store_true", help="print the tables as markdown")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="calotype-encode-", dir=options.dir) as folder:
        build_pipeline(Path(folder) / "pipeline", options)
        build_images(Path(folder) / "pictures", options.pictures, options.cache)
        bench = Bench(Path(folder), options.resolution)
        say("warming up")
        bench.job()
        rounds: list[dict[str, dict[str, float]]] = []
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            sides = [("job", bench.job), ("bare", bench.bare)]
            rounds.append({name: side() for name, side in (sides if number % 2 == 0 else sides[::-1])})
    counts = {"pictures": options.pictures, "texts": sum(map(len, bench.batches.texts))}
    facts = {name: value for name, value in vars(options).items() if name not in ("cache", "dir", "json", "markdown")}
    device = torch.cuda.get_device_name() if CUDA else "CPU"
    print_text(
        f"{machine()}; {device}, {DTYPE}; {counts['pictures']} images of {options.resolution}², {counts['texts']} "
        f"texts, T5 {options.t5}, autoencoder {options.vae_channels}; medians of {options.rounds} rounds.",
        markdown=options.markdown,
    )
    report(rounds, counts, markdown=options.markdown)
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine(), **facts, "rounds": rounds}, indent=1) + "\n")


if __name__ == "__main__":
    main()

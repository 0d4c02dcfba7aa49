"""The RFC's config under torchtune 0.6.1, the way its recipes use it. Runs in `make torchtune`'s environment only."""

from __future__ import annotations

import shutil
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("torchao", reason="torchtune is not installed here: make torchtune", exc_type=ImportError)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torchtune's and torchao's own, about this Python and this PyTorch
    torchtune = pytest.importorskip("torchtune", reason="not installed here: make torchtune", exc_type=ImportError)
    from torchtune import config as tune
    from torchtune.config._utils import _get_component_from_path
    from torchtune.utils import batch_to_device

import real_tokenizers
import skimage
from omegaconf import OmegaConf
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

from calotype.config import build_dataset, instantiate, load_config
from calotype.demo import write_demo
from calotype.errors import ConfigError

RFC = """
dataset:
    _component_: torchtune.datasets.img_caption_dataset
    path: ~/my_dataset/data.tsv
    img_transform:
        resize: [256, 256]
        center_crop: true
        horizontal_flip: 0.5
    caption_transform:
        drop: 0.05
        shuffle_parts: 0.1
tokenizer:
    _component_: torchtune.models.flux.FluxTransform
    clip_tokenizer_path: ...
    t5_tokenizer_path: ...
    t5_max_seq_len: 256
"""
OURS = RFC.replace("torchtune.datasets.img_caption_dataset", "calotype.text_to_image_dataset").replace(
    "torchtune.models.flux.FluxTransform", "calotype.FluxTransform"
)
CAPTIONS = {
    "astronaut.png": "a woman in an orange space suit, a flag behind her, smiling",
    "chelsea.png": "a ginger cat, close up, looking to the side",
    "coffee.png": "a cup of coffee, a wooden table, a spoon on the saucer",
    "rocket.jpg": "a rocket on its launch pad, at night, lit from below",
}


@pytest.fixture(scope="module")
def tokenizers():
    return real_tokenizers.flux_tokenizers()


@pytest.fixture
def rfc(tmp_path, monkeypatch, tokenizers):
    """The RFC's config over photos in `~/my_dataset`, with only its `...` filled in. Gives (file, torchtune's cfg)."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "my_dataset"
    folder.mkdir()
    for photo in CAPTIONS:
        shutil.copy(Path(skimage.__file__).parent / "data" / photo, folder)
    (folder / "data.tsv").write_text("".join(f"{photo}\t{text}\n" for photo, text in CAPTIONS.items()))
    clip, t5 = tokenizers
    text = OURS.replace("clip_tokenizer_path: ...", f"clip_tokenizer_path: {clip}")
    text = text.replace("t5_tokenizer_path: ...", f"t5_tokenizer_path: {t5}")

    def write(more=""):
        file = tmp_path / "rfc.yaml"
        file.write_text(text.replace("dataset:\n", f"dataset:\n{more}"))
        return file, OmegaConf.load(file)

    return write


def same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


def test_only_the_components_paths_differ_from_the_rfc():
    ours, rfc = yaml.safe_load(OURS), yaml.safe_load(RFC)
    for section in ("dataset", "tokenizer"):
        assert ours[section].pop("_component_") != rfc[section].pop("_component_")
    assert ours == rfc


def test_a_recipe_builds_the_rfcs_config_and_gets_what_our_config_gives(rfc):
    file, cfg = rfc()
    tokenizer = tune.instantiate(cfg.tokenizer)
    dataset = tune.instantiate(cfg.dataset, tokenizer)
    ours = build_dataset(load_config(file))

    assert len(dataset) == len(ours) == len(CAPTIONS)
    assert sorted(dataset[0]) == ["clip_text_tokens", "img", "t5_text_tokens"]
    assert dataset[0]["img"].shape == (3, 256, 256)
    assert dataset[0]["img"].dtype == torch.float32
    assert dataset[0]["clip_text_tokens"].shape == (77,)
    assert dataset[0]["t5_text_tokens"].shape == (256,)
    for index in range(len(CAPTIONS)):
        same(dataset[index], ours[index])
    assert not torch.equal(dataset[0]["t5_text_tokens"], dataset[1]["t5_text_tokens"])


def test_our_instantiate_takes_torchtunes_config_objects(rfc):
    _, cfg = rfc()
    theirs = tune.instantiate(cfg.dataset, tune.instantiate(cfg.tokenizer))
    same(theirs[1], instantiate(cfg.dataset, instantiate(cfg.tokenizer))[1])


def test_a_nested_component_which_torchtune_hands_over_raw_is_built(rfc):
    grey = {"_component_": "torchvision.transforms.v2.Grayscale", "num_output_channels": 3}
    file, cfg = rfc()
    cfg.dataset.img_transform.custom = grey
    dataset = tune.instantiate(cfg.dataset, tune.instantiate(cfg.tokenizer))
    red, green, blue = dataset[0]["img"]
    assert torch.equal(red, green)
    assert torch.equal(red, blue)

    OmegaConf.save(cfg, file)
    same(dataset[0], build_dataset(load_config(file))[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_recipes_data_loading_works_to_the_device(rfc, workers):
    """`_setup_data` of torchtune 0.6.1's full_finetune_single_device recipe, line by line."""
    _, cfg = rfc("    packed: false\n")
    tokenizer = tune.instantiate(cfg.tokenizer)
    dataset = tune.instantiate(cfg.dataset, tokenizer)
    collate_fn = _get_component_from_path("calotype.data.collate.collate")
    loader = StatefulDataLoader(
        dataset=dataset,
        batch_size=2,
        sampler=StatefulDistributedSampler(dataset, num_replicas=1, rank=0, shuffle=True, seed=0),
        collate_fn=partial(collate_fn, padding_idx=tokenizer.pad_id, ignore_idx=-100),
        drop_last=True,
        num_workers=workers,
    )
    batches = list(loader)
    assert len(batches) == 2
    for batch in batches:
        batch_to_device(batch, torch.device("cpu"))  # raises on what is not a tensor
        assert batch["img"].shape == (2, 3, 256, 256)
        assert batch["t5_text_tokens"].shape == (2, 256)


def test_the_example_builds_as_a_recipe_does(tmp_path, tokenizers):
    write_demo(tmp_path)
    file = Path(__file__).parents[2] / "examples" / "torchtune.yaml"
    cfg = OmegaConf.load(file)
    cfg.data, cfg.tokenizers = str(tmp_path / "photos"), str(real_tokenizers.flux_pipeline())
    dataset = tune.instantiate(cfg.dataset, tune.instantiate(cfg.tokenizer))
    ours = build_dataset(load_config(file, [f"data={cfg.data}", f"tokenizers={cfg.tokenizers}"]))
    assert len(dataset) == len(ours) == 11
    same(dataset[3], ours[3])
    batch = _get_component_from_path(cfg.collate_fn)([dataset[0], dataset[1]], padding_idx=0, ignore_idx=-100)
    batch_to_device(batch, torch.device("cpu"))
    assert batch["img"].shape == (2, 3, 512, 512)


def test_a_misspelt_option_is_named_at_construction(rfc):
    _, cfg = rfc()
    tokenizer = tune.instantiate(cfg.tokenizer)
    cfg.dataset.img_transform.horizontal_filp = 0.5
    with pytest.raises(ConfigError, match="'horizontal_filp'; did you mean 'horizontal_flip'"):
        tune.instantiate(cfg.dataset, tokenizer)


def test_a_packed_dataset_is_refused(rfc):
    _, cfg = rfc("    packed: true\n")
    with pytest.raises(ConfigError, match="packed: found True"):
        tune.instantiate(cfg.dataset, tune.instantiate(cfg.tokenizer))

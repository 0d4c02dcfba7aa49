"""What a resumed run is compared with: weights, encodings, transforms, order and samples; other samples when asked."""

import json
import re
import shutil

import pytest
import torch
from encoding_helpers import frozen
from safetensors.torch import load_file, save_file
from tiny_pipelines import tiny_pipeline
from train_helpers import config, make_folder, run, trained_weights

from calotype import train
from calotype.errors import ConfigError
from calotype.loader import Loader
from calotype.train.checkpoint import latest
from calotype.train.data import build_loaders, open_training
from calotype.train.identity import Identity, resume_as

TRIGGER = {"caption_transform": {"trigger": "sks", "drop": 0.2}, "img_transform": {"horizontal_flip": 0.5}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Photos and a run of three steps, the second epoch's first being the last: its folder is copied for each test."""
    made = tmp_path_factory.mktemp("made")
    make_folder(made / "photos")
    run(made / "photos", made / "out", max_steps=3, dataset=TRIGGER)
    return made


@pytest.fixture
def photos(made, tmp_path):
    return shutil.copytree(made, tmp_path, dirs_exist_ok=True) / "photos"


def resumed(photos, *, said=None, changed=False, **options):
    """Resumes the run until step 6, or `max_steps`."""
    options = {"max_steps": 6, "dataset": TRIGGER} | options
    made = config(photos, output_dir=str(photos.parent / "out"), **options)
    tell = said.append if said is not None else lambda text: None
    return train.run(made, resume=True, changed_dataset=changed, tell=tell)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"dataset": {**TRIGGER, "caption_transform": {"trigger": "ohwx", "drop": 0.2}}},
            "trigger was 'sks', is 'ohwx'",
        ),
        ({"dataset": {**TRIGGER, "caption_transform": {"trigger": "sks"}}}, r"caption_transform.drop was 0.2, is 0.0"),
        ({"dataset": {**TRIGGER, "img_transform": {}}}, r"dataset.img_transform.horizontal_flip was 0.5, is 0.0"),
        ({"dataset": {**TRIGGER, "resolution": 128}}, r"dataset.buckets was 'Buckets\(resolution=\(64, 64\)"),
        ({"dataset": {**TRIGGER, "seed": 1}}, "seed was 0, is 1"),
        ({"dataset": {**TRIGGER, "background": [0, 0, 0]}}, r"dataset.background was \[255, 255, 255\]"),
        ({"loader": {"batch_size": 1}}, "loader.batch_size was 2, is 1"),
        ({"loader": {"remainder": "repeat"}}, "loader.remainder was 'short', is 'repeat'"),
        ({"encodings": {"latents": "mean"}}, "encodings.latents was 'moments', is 'mean'"),
        ({"encodings": {"max_sequence_length": 16}}, "encodings.max_sequence_length was 32, is 16"),
        ({"model": "flux.1-schnell"}, "model was 'flux.1-dev', is 'flux.1-schnell'"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_what_would_compute_something_else_is_refused_with_what_was_and_is(photos, options, message):
    with pytest.raises(
        ConfigError, match=f"step-00000003: was written with other data or weights: .*{message}"
    ) as error:
        resumed(photos, **options)
    assert str(error.value).endswith("begin anew in another output_dir (lora_weights starts from a LoRA)")


@pytest.mark.parametrize("component", ["transformer", "vae", "scheduler"])
def test_other_weights_under_the_same_name_are_refused_and_the_same_elsewhere_are_not(photos, component, tmp_path):
    model = shutil.copytree(tiny_pipeline("flux.1-dev"), tmp_path / "moved")
    made = config(photos, output_dir=str(tmp_path / "out"), dataset=TRIGGER, max_steps=4) | {"model": str(model)}
    if component == "transformer":  # once is enough
        assert train.run(made, resume=True).steps == 4
    if component == "scheduler":
        file = model / component / "scheduler_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"shift": 5.0}))
    else:
        (file,) = (model / component).glob("*.safetensors")
        tensors = load_file(file)
        tensors[sorted(tensors)[-1]] += 1e-3  # the same names, shapes and sizes
        save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=rf"the files of {component} differ \(hash \w{{8}}, now \w{{8}}\)"):
        train.run(made, resume=True)


def changed_set(photos):
    """One image more, one less, one with another caption, one with another image."""
    names = sorted(path.stem for path in photos.glob("*.txt"))
    make_folder(photos, names=("ihc.png",))
    for file in photos.glob(f"{names[0]}.*"):
        file.unlink()
    (photos / f"{names[1]}.txt").write_text("another caption")
    shutil.copy(photos / "ihc.png", photos / f"{names[2]}.png")


def test_a_changed_dataset_is_refused_with_its_counts_and_continues_at_a_new_epoch_when_asked(photos, tmp_path):
    changed_set(photos)
    counts = r"1 added: ihc.png; 2 changed \(image, captions, bucket or repeats\): \w+.png, \w+.png; 1 removed"
    with pytest.raises(
        ConfigError, match=rf"the dataset has changed: {counts}. Restore it, or --resume --changed-datas"
    ):
        resumed(photos)
    twin = shutil.copytree(tmp_path, tmp_path / "twin") / "photos"
    said = []
    whole = resumed(photos, said=said, changed=True)
    epoch = r"it continues at the beginning of epoch \d"
    assert any(re.search(f"note: the dataset has changed: {counts}; {epoch}", line) for line in said)
    assert [step for step, _ in whole.losses] == [4, 5, 6]
    # From there on it is as exact as ever, over another resume too, which needs no permission any more.
    resumed(twin, changed=True, max_steps=5)
    assert resumed(twin).losses == whole.losses[-1:]
    ends = [trained_weights(where / "out", 6) for where in (tmp_path, tmp_path / "twin")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_flag_without_a_change_is_said_and_without_resume_refused(photos):
    said = []
    resumed(photos, said=said, changed=True, max_steps=3)
    assert "note: the dataset is unchanged: --changed-dataset has no effect" in said
    with pytest.raises(ConfigError, match="changed_dataset: has no effect without resume"):
        train.run(config(photos), changed_dataset=True)


def test_a_moved_folder_and_options_that_say_the_default_are_the_same_run(photos, tmp_path):
    moved = photos.rename(tmp_path / "elsewhere")
    caption = TRIGGER["caption_transform"] | {"shuffle_parts": False, "choose": "random"}
    said = []
    made = config(moved, output_dir=str(tmp_path / "out"), dataset=TRIGGER | {"caption_transform": caption})
    train.run(made | {"train": made["train"] | {"max_steps": 4}}, resume=True, tell=said.append)
    assert not any("changed" in line or "compared" in line for line in said)


def test_a_checkpoint_of_an_earlier_version_resumes_and_says_once_what_is_not_compared(photos, tmp_path):
    last = tmp_path / "out" / "checkpoints" / "step-00000003"
    state = json.loads((last / "state.json").read_text())
    for name in ("identity.json", "samples.safetensors"):
        (last / name).unlink()
        del state["files"][name]
    (last / "state.json").write_text(json.dumps(state))
    assert Identity.read(last) is None
    with pytest.raises(ConfigError, match=r"loader\.batch_size was 2, is 1"):  # that it says
        resumed(photos, loader={"batch_size": 1})
    said = []
    resumed(photos, said=said, max_steps=4)
    assert sum("written by an earlier version" in line for line in said) == 1
    (photos / "coffee.png").unlink()
    shutil.rmtree(tmp_path / "out" / "checkpoints" / "step-00000004")
    with pytest.raises(ConfigError, match=r"the dataset has changed: it has other samples\. Restore it"):
        resumed(photos)
    assert resumed(photos, changed=True).steps == 6


def test_two_ranks_share_the_new_epoch_of_a_changed_dataset(photos, tmp_path):
    found = latest(tmp_path / "out" / "checkpoints")
    changed_set(photos)
    made = config(photos, dataset=TRIGGER)
    loaders = build_loaders(made, open_training(made, device="cpu"))
    loader = loaders.training
    ranks = [Loader(loader.dataset, 2, seed=0, in_process=True, rank=rank, world_size=2) for rank in (0, 1)]
    identity = Identity.of(ranks[0], loaders.encoded, frozen(max_sequence_length=32))
    resumed, notes = resume_as(found, identity, ranks[0], changed_dataset=True)
    assert notes[0].startswith("note: the number of ranks was 1, is 2")
    for rank in ranks:  # all take what the main process decided
        rank.load_state_dict(resumed.loader)
        assert rank.state_dict()["step"] == 0 and rank.epoch == resumed.loader["epoch"] >= 1
    epochs = [rank.plan.epoch(rank.epoch) for rank in ranks]
    assert len(epochs[0]) == len(epochs[1])
    shown = [key.index for epoch in epochs for step in range(len(epoch)) for key in epoch[step]]
    assert set(shown) == set(range(len(loader.dataset)))

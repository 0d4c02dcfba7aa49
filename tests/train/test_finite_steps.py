"""NaN and inf: no weight takes them in, the samples are named, the last good checkpoint stays; short batches."""

import json
import math
import shutil

import pytest
import torch
from encoding_helpers import frozen, make_job
from safetensors.torch import save_file
from train_helpers import checkpoints, make_folder, run, trained_weights

from calotype.encodings.store import EncodingStore
from calotype.errors import ConfigError, NotFiniteError
from calotype.terminal import emit
from calotype.train.guard import Guard, end_after_several, guarded_adamw


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three photos of one shape, encoded, and a run of two steps on them."""
    made = tmp_path_factory.mktemp("made")
    folder = make_folder(made / "photos", names=("astronaut.png", "chelsea.png", "coffee.png"))
    run(folder, made / "first", max_steps=2)
    return made


@pytest.fixture
def folder(made, tmp_path):
    """The same, to change."""
    return shutil.copytree(made, tmp_path, dirs_exist_ok=True) / "photos"


def poison(folder, value, indices):
    """Puts `value` into the latents of some rows, as a store of an earlier version may have them."""
    path = folder.parent / "store-flux.1-dev"
    job = make_job(folder, path, models=frozen(max_sequence_length=32))
    records, _ = job.plan()
    store = EncodingStore(path, create=True)
    for index in indices:
        (picture,) = records.images(index)
        (row,) = store.find([picture.key]).tolist()
        record = store.get(row)
        store.drop([row])
        with store.writer() as writer:
            writer.put([picture.key], [{"moments": torch.full_like(record["moments"], value)}], kind="picture")
    return [job.dataset.manifest[index].id for index in indices]


def steps(optimizer, layer, gradients):
    """Takes a step for each gradient; gives which were skipped."""
    guard = Guard(optimizer)
    for gradient in gradients:
        loss = guard.loss(layer(torch.ones(1, 2)).square().flatten(), "batch")
        loss.backward()
        layer.weight.grad.add_(gradient)
        guard.decide(torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0))
        optimizer.step()
        optimizer.zero_grad()
    return guard, [one.step for one in guard.settle()]


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_skipped_step_leaves_weights_moments_and_count_as_if_it_had_not_been(bad):
    ends = []
    for gradients in ([0.0, bad, 0.1], [0.0, 0.1]):
        layer = torch.nn.Linear(2, 1)
        torch.nn.init.ones_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        optimizer = guarded_adamw(layer.parameters(), lr=0.1, weight_decay=0.1)
        optimizer.load_state_dict(torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1).state_dict())
        guard, skipped = steps(optimizer, layer, gradients)
        ends.append([*layer.parameters(), *(v for state in optimizer.state.values() for v in state.values())])
        assert skipped == ([2] if len(gradients) == 3 else [])
        assert guard.in_a_row == [] and guard.unsettled == 0
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


def test_a_loss_that_is_not_finite_has_no_finite_gradient():
    """Without the guard, the gradient of the first is 1/2."""
    weight = torch.nn.Parameter(torch.ones(1))
    losses = torch.stack([weight[0], weight[0].detach() * torch.nan])
    Guard(guarded_adamw([weight], lr=0.1, weight_decay=0.0)).loss(losses, None).backward()
    assert weight.grad.isnan().all()


def test_a_nan_in_the_store_is_named_its_steps_are_skipped_and_training_goes_on(folder, tmp_path, capsys):
    (bad,) = poison(folder, torch.nan, [1])
    said = []
    report = run(folder, tmp_path / "run", max_steps=8, tell=said.append, loader={"batch_size": 1})
    notes = [line for line in said if "skipped" in line]
    assert 2 <= report.skipped <= 3 and len(notes) == report.skipped
    assert all(f"{bad}: step " in note and "its latents hold NaN or inf" in note for note in notes)
    assert all(value.isfinite().all() for value in trained_weights(tmp_path / "run", 8).values())
    emit(report.to_json())  # a step that was skipped has no loss

    def refuse(word):
        raise AssertionError(word)

    assert None in [loss for _, loss in json.loads(capsys.readouterr().out, parse_constant=refuse)["losses"]]
    together = run(folder, tmp_path / "together", max_steps=8, log_every=8, loader={"batch_size": 1})
    ((_, mean),) = together.losses  # of the steps that were not skipped
    assert together.skipped >= 2 and math.isfinite(mean)


@pytest.mark.parametrize("value", [torch.nan, 1e19], ids=["nan", "gradient"])
def test_nothing_but_nan_ends_a_run_and_keeps_its_checkpoint(folder, tmp_path, value):
    """1e19: its loss is a number, and the gradient is none."""
    kept = trained_weights(tmp_path / "first", 2)
    poison(folder, value, [0, 1, 2])
    more = {"max_steps": 30, "resume": True, "checkpoint_every": 2, "log_every": 30, "keep_checkpoints": 1}
    with pytest.raises(NotFiniteError, match=r"in each of the steps 3 to .*chelsea.*last good checkpoint is .*step-0"):
        run(folder, tmp_path / "first", **more)
    last = checkpoints(tmp_path / "first")[-1]
    weights = trained_weights(tmp_path / "first", int(last[-8:]))
    assert all(torch.equal(weights[name], kept[name]) for name in kept)


def test_five_in_a_row_end_a_run(tmp_path):
    guard = Guard(guarded_adamw([torch.nn.Parameter(torch.ones(1))], lr=0.1, weight_decay=0.0))
    guard.in_a_row = [1, 2, 3, 4]
    end_after_several(guard, checkpoints=tmp_path, samples=[])
    guard.in_a_row.append(5)
    with pytest.raises(NotFiniteError, match=r"steps 1 to 5; no weight changed\. There is no checkpoint yet"):
        end_after_several(guard, checkpoints=tmp_path, samples=[])


def test_they_do_so_in_time_where_little_is_logged(folder, tmp_path):
    poison(folder, torch.nan, [0, 1, 2])
    with pytest.raises(NotFiniteError, match="in each of the steps 1 to 25 "):
        run(folder, tmp_path / "run", max_steps=30, log_every=30)


def change_state(checkpoint, change):
    """Makes a checkpoint one of an earlier version, which had no checksums."""
    state = json.loads((checkpoint / "state.json").read_text())
    del state["files"]
    change(state)
    (checkpoint / "state.json").write_text(json.dumps(state))


def test_a_checkpoint_with_nan_is_not_resumed_from(folder, tmp_path):
    weights = trained_weights(tmp_path / "first", 2)
    next(iter(weights.values())).fill_(torch.nan)
    checkpoint = tmp_path / "first" / "checkpoints" / "step-00000002"
    save_file(weights, checkpoint / "trained.safetensors")
    change_state(checkpoint, lambda state: None)
    with pytest.raises(NotFiniteError, match=r"step-00000002: 1 of \d+ trained tensors hold NaN or inf.*delete it"):
        run(folder, tmp_path / "first", max_steps=4, resume=True)


def moments(output):
    """The optimizer's first moments after one step: a tenth of the gradients."""
    state = torch.load(output / "checkpoints" / "step-00000001" / "optimizer.pt", weights_only=True)
    return [one["exp_avg"] for one in state["optimizer"]["state"].values() if one["exp_avg"].any()]


def test_an_image_of_a_short_batch_pulls_as_the_others_or_more_as_is_said(folder, tmp_path):
    said, losses = [], {}
    for name in ("image", "batch"):
        options = {"loss_average": name, "loader": {"batch_size": 4}, "max_steps": 1, "max_grad_norm": 0}
        losses[name] = run(folder, tmp_path / name, tell=said.append, **options).losses
    for one, other in zip(moments(tmp_path / "image"), moments(tmp_path / "batch"), strict=True):
        assert torch.allclose(one, 0.75 * other)
    assert losses["image"] == losses["batch"]
    by_image, by_batch = (line for line in said if "batches are short" in line)
    assert (
        "1 of an epoch's 1 batches are short, the smallest of 3 instead of 4: its loss is multiplied by 0.75"
        in by_image
    )
    assert "its images weigh 1.3 times as much as others (loss_average: batch)" in by_batch


def test_a_run_from_before_the_average_was_an_option_is_told_of_it(folder, tmp_path):
    checkpoint = tmp_path / "first" / "checkpoints" / "step-00000002"
    change_state(checkpoint, lambda state: state["options"].pop("loss_average"))
    with pytest.raises(ConfigError, match="loss_average was 'batch', is 'image'"):
        run(folder, tmp_path / "first", max_steps=3, resume=True)
    assert run(folder, tmp_path / "first", max_steps=3, resume=True, loss_average="batch").steps == 3


@pytest.mark.parametrize(
    ("options", "before"),
    [
        ({"loader": {"batch_size": 1}}, {"loss_average": "batch"}),
        ({}, {"lr_warmup_steps": 10}),
        ({"method": "full"}, {"lora_rank": 32, "lora_alpha": 8.0}),
        ({"model": "sd-1.5", "encodings": {"max_sequence_length": None}}, {"guidance": 2.0}),
    ],
)
def test_a_run_of_an_earlier_version_with_an_option_that_had_no_effect_resumes_without_it(tmp_path, options, before):
    """Such an option is refused now, and a checkpoint that has it must not be lost."""
    folder = make_folder(tmp_path / "photos", names=("astronaut.png", "chelsea.png"))
    run(folder, tmp_path / "run", max_steps=1, **options)
    change_state(tmp_path / "run/checkpoints/step-00000001", lambda state: state["options"].update(before))
    assert run(folder, tmp_path / "run", max_steps=2, resume=True, **options).steps == 2

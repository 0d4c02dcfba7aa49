"""The learning rate of a resumed run: its own schedule's, whose max_steps may be another; skipped steps count."""

import pytest
import torch

from calotype.config.train import TrainConfig
from calotype.train.guard import Guard, guarded_adamw
from calotype.train.schedule import adopt_schedule, make_schedule

LIBRARIES = ("diffusers.optimization", "transformers")


def begin(library, name, max_steps, warmup=2):
    options = TrainConfig(lr_scheduler=name, max_steps=max_steps, lr_warmup_steps=warmup)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = guarded_adamw([weight], lr=0.1, weight_decay=0.0)
    return options, optimizer, make_schedule(library, options, optimizer, section="train")


def rates(optimizer, schedule, count):
    """The learning rate with which each of the next steps is done."""
    used = []
    for _ in range(count):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return used


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", ["cosine", "linear", "polynomial", "cosine_with_restarts"])
@pytest.mark.parametrize("longer", [12, 5])
def test_with_other_max_steps_a_schedule_continues_as_the_new_run_would_have_it(library, name, longer):
    before, optimizer, schedule = begin(library, name, 8)
    rates(optimizer, schedule, 4)
    states = optimizer.state_dict(), schedule.state_dict()
    options, optimizer, schedule = begin(library, name, longer)
    optimizer.load_state_dict(states[0])
    schedule.load_state_dict(states[1])
    note = adopt_schedule(schedule, options, {"max_steps": before.max_steps})
    assert note.startswith(f"note: max_steps was 8, is {longer}: {name} continues as in a run of {longer} steps")
    assert schedule.get_last_lr() == [optimizer.param_groups[0]["lr"]]
    _, of_new, new = begin(library, name, longer)
    assert rates(optimizer, schedule, longer - 4) == rates(of_new, new, longer)[4:]


@pytest.mark.parametrize(("name", "warmup"), [("constant", 0), ("constant_with_warmup", 2)])
def test_a_schedule_that_does_not_depend_on_max_steps_says_nothing(name, warmup):
    _, optimizer, schedule = begin(LIBRARIES[0], name, 8, warmup)
    rates(optimizer, schedule, 1)
    options, other, resumed = begin(LIBRARIES[0], name, 100, warmup)
    resumed.load_state_dict(schedule.state_dict())
    assert adopt_schedule(resumed, options, {"max_steps": 8}) is None
    assert rates(other, resumed, 3) == rates(optimizer, schedule, 3)


def test_a_skipped_step_counts_in_the_schedule_as_it_does_in_max_steps():
    """So the rate of a step follows from its number, and the schedule ends where the run does."""
    _, of_whole, whole = begin(LIBRARIES[0], "cosine", 6)
    _, optimizer, schedule = begin(LIBRARIES[0], "cosine", 6)
    guard, used, (weight,) = Guard(optimizer), [], optimizer.param_groups[0]["params"]
    for bad in (False, True, False, False, True, False):
        weight.grad = torch.full_like(weight, torch.nan if bad else 1.0)
        guard.decide(weight.grad.norm())
        used += rates(optimizer, schedule, 1)
    assert used == rates(of_whole, whole, 6) and schedule.get_last_lr() == [0.0]
    assert [one.step for one in guard.settle()] == [2, 5]
    assert optimizer.state[weight]["step"] == 4

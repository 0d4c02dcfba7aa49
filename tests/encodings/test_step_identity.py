"""What a custom step is told by: its code, its state and what they refer to; never an address or a row."""

import collections
import dataclasses
import functools
import importlib
import logging
import marshal
import operator
import random
import re
import sys
import threading
import types

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image, ImageFilter
from torchvision import transforms as v1
from torchvision.transforms import v2

from calotype.encodings.step_identity import _version, step_identity
from calotype.errors import ConfigError

TABLE = np.arange(256, dtype=np.uint8)
LEVEL = 3
LOGGER = logging.getLogger("steps")


class Plain:
    """An object whose repr shows nothing."""

    def __init__(self, k):
        self.k = k

    def __call__(self, image):
        return image // int(1 + self.k)


class Slotted:
    __slots__ = ("k",)

    def __init__(self, k):
        self.k = k

    def __call__(self, image):
        return image // self.k


class Derived(Plain):
    pass


class Constant(Plain):
    LEVELS = (1, 2)


class Module(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((2,), weight))
        self.register_buffer("table", torch.zeros(3))

    def forward(self, image):
        return (image * self.weight[0]).byte()


@dataclasses.dataclass
class Data:
    k: float
    names: list = dataclasses.field(default_factory=list)

    def __call__(self, image):
        return image


class Keyed:
    def __init__(self, cache_key, lock=None):
        self.cache_key, self.lock = cache_key, lock

    def __call__(self, image):
        return image


def closure(strength):
    def step(image):
        return image // strength

    return step


def default(strength):
    def step(image, strength=strength):
        return image // strength

    return step


def keyword(strength):
    def step(image, *, strength=strength):
        return image // strength

    return step


def attribute(strength):
    def step(image):
        return image // step.strength

    step.strength = strength
    return step


def reads_a_global(image):
    LOGGER.debug("%s", image.shape)
    return image // LEVEL


def reads_a_table(image):
    def inner():
        return torch.from_numpy(TABLE)[image.long()]

    return inner()


def helper(image):
    return image // LEVEL


def calls_a_helper(image):
    return helper(image)


def all_different(steps):
    found = [step_identity(step) for step in steps]
    assert len(set(found)) == len(found), found
    return found


@pytest.mark.parametrize(
    "make",
    [
        *(Plain, Slotted, Derived, Module, Data, closure, default, keyword, attribute),
        lambda k: functools.partial(operator.floordiv, b=k),
        lambda k: Plain(k).__call__,
        lambda k: v2.Compose([v2.Grayscale(3), Plain(k)]),
        lambda k: v1.Lambda(closure(k)),
        lambda k: Plain({"deep": [(k, {k})]}),
        lambda k: Plain(np.array([k])),
        lambda k: Plain(np.float32(k)),
        lambda k: Plain(re.compile(str(k))),
        lambda k: Plain(collections.OrderedDict(a=k)),
        lambda k: Plain(collections.deque([k])),
        lambda k: Plain(Image.new("L", (2, 2), int(10 * k))),
        lambda k: Plain(ImageFilter.GaussianBlur(k)),
        lambda k: v2.GaussianBlur(3, (0.1, float(k))),
        lambda k: v2.RandomAffine(20, interpolation=list(v2.InterpolationMode)[round(2 * k) % 3]),
    ],
)
def test_state_that_no_repr_shows_tells_steps_apart(make):
    all_different([make(0.5), make(0.9), make(1.5)])
    assert step_identity(make(0.5)) == step_identity(make(0.5))


def test_classes_and_functions_are_told_apart_by_their_code():
    all_different([Plain(1), Slotted(1), Derived(1), Constant(1), Data(1), Module(1.0), helper, reads_a_global])
    all_different([lambda image: image // 2, lambda image: image // 3, lambda image, k=2: image // k])  # one line
    all_different([lambda image: image.abs(), lambda image: image.neg()])  # only a name is another
    one, two = (v2.Grayscale(3), v2.RandomInvert(1.0))
    all_different([one, two, v2.Compose([one, two]), v2.Compose([two, one]), v2.RandomChoice([one, two])])


def test_arrays_are_told_apart_by_shape_and_dtype_too():
    zeros = [torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32)]
    all_different([Plain(each) for each in (*zeros, *(zero.numpy() for zero in zeros))])


def test_a_library_s_step_is_told_by_its_version_and_its_own_code(monkeypatch):
    def identity(version):
        monkeypatch.setattr(torchvision, "__version__", version)
        _version.cache_clear()
        return step_identity(v2.Grayscale(3))

    before = identity("1.2+cpu")
    assert identity("1.2+cu128") == before != identity("1.3+cpu")
    monkeypatch.setattr(v2.Grayscale, "transform", lambda self, image, params: image)
    assert identity("1.2+cpu") != before
    _version.cache_clear()


@pytest.mark.parametrize(
    ("step", "name", "value"),
    [
        (reads_a_global, "LEVEL", 4),
        (calls_a_helper, "LEVEL", 4),
        (calls_a_helper, "helper", lambda image: image),
        (reads_a_table, "TABLE", TABLE[::-1]),
        (Plain(1), "unused", 1),
    ],
)
def test_a_global_that_a_step_reads_is_part_of_it(monkeypatch, step, name, value):
    before = step_identity(step)
    monkeypatch.setitem(globals(), name, value)
    assert (step_identity(step) == before) == (name == "unused")


def test_a_class_s_members_and_bases_are_part_of_its_objects(monkeypatch):
    before = [step_identity(each) for each in (Plain(1), Derived(1), Constant(1))]
    monkeypatch.setattr(Constant, "LEVELS", (1, 3))
    after = [step_identity(each) for each in (Plain(1), Derived(1), Constant(1))]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False]
    monkeypatch.setattr(Plain, "__call__", lambda self, image: image)
    assert not {*before, *after} & {step_identity(each) for each in (Plain(1), Derived(1), Constant(1))}


def test_a_module_of_the_user_s_is_part_of_what_calls_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "step_of_mine.py").write_text(
        "import step_helpers\n"
        "def by_name(image):\n    return step_helpers.darker(image)\n"
        "def inside(image):\n    from step_helpers import darker\n    return darker(image)\n"
        "def other(image):\n    return step_helpers.OTHER\n"
    )

    def identities(helpers):
        (tmp_path / "step_helpers.py").write_text(helpers)
        for name in ("step_helpers", "step_of_mine"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        module = importlib.import_module("step_of_mine")
        return [step_identity(each) for each in (module.by_name, module.inside, module.other)]

    first = identities("OTHER = 1\ndef darker(image):\n    return image // 2\n")
    second = identities("OTHER = 1\ndef darker(image):\n    return image // 333\n")
    assert [a == b for a, b in zip(first, second, strict=True)] == [False, False, True]


@pytest.mark.parametrize(
    "hidden",
    [
        threading.Lock(),
        sys.__stderr__,
        random.Random(1),
        np.random.default_rng(1),
        torch.Generator(),
        (i for i in "ab"),
    ],
    ids=["lock", "file", "random", "numpy", "torch", "generator"],
)
def test_what_can_t_be_seen_is_refused_until_it_has_a_key(hidden):
    with pytest.raises(ConfigError, match=r"custom: .* can't be told from another step .*; give it .* `cache_key`"):
        step_identity(Plain([hidden]))
    all_different([Keyed("1", hidden), Keyed("2", hidden), Plain(Keyed("1", hidden)), Plain(Keyed("2", hidden))])


def test_a_cache_key_is_a_text():
    with pytest.raises(ConfigError, match="cache_key of type object; expected a text"):
        step_identity(Keyed(object()))


def test_identities_are_the_same_from_source_and_from_a_compiled_file():
    source = (
        "PAIR = (1, 2)\n"
        "class Step:\n"
        "    def __init__(self, *names): self.names = {*names}\n"
        "    def __call__(self, image): return (1, 2)[0] // PAIR[1] if image in {'x', 'y', 'z'} else helper(image)\n"
        "def helper(image): return (1, 2), step, image\n"
        "def step(image): return helper(image)\n"
    )
    found = []
    code = compile(source, "steps_elsewhere.py", "exec")
    # A compiled file may have equal constants apart that were one object; sets have no order of their own.
    for each, names in ((code, (8, 0, 16, "a")), (marshal.loads(marshal.dumps(code)), ("a", 16, 8, 0))):
        module = types.ModuleType("steps_elsewhere")
        exec(each, vars(module))
        found.append([step_identity(step) for step in (module.Step(*names), module.step, module.helper)])
    assert found[0] == found[1]

"""What everything else stands on: errors that travel, draws that stay apart, a ledger that keeps, progress."""

import ast
import importlib
import inspect
import itertools
import json
import pickle
import pkgutil
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import calotype
from calotype import errors
from calotype.config.instantiate import locate
from calotype.core.former_modules import FORMER
from calotype.core.rng import Stream, generator, sample_seed
from calotype.data.pixel_cache import PixelCache
from calotype.errors import FetchError, ImageError, MissingDependencyError, unknown_key
from calotype.ledger import Ledger
from calotype.progress import track
from calotype.types import Geometry, SampleKey


def test_every_error_is_in_the_tree_and_drawn_at_the_top_of_the_file():
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    assert len(kinds) > 10
    for kind in kinds:
        assert issubclass(kind, errors.CalotypeError)
        assert kind.__name__ in errors.__doc__
        assert kind.__name__ in errors.__all__


@pytest.mark.parametrize(
    "error",
    [
        FetchError("https://example.org/a.jpg", "404 Not Found"),
        MissingDependencyError("lmdb", extra="lmdb", purpose="to read LMDB"),
        errors.ConfigError("resize: found x"),
    ],
)
def test_errors_cross_to_another_process(error):
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is type(error) and str(other) == str(error)
    assert vars(other) == vars(error)
    if isinstance(error, ImageError):
        assert str(other) == "https://example.org/a.jpg: 404 Not Found"
    if isinstance(error, MissingDependencyError):
        assert "pip install 'calotype[lmdb]'" in str(other)


def test_unknown_key_names_the_nearest_and_all():
    error = unknown_key("img_transform", "rezise", ["resize", "center_crop"])
    assert str(error) == "img_transform: unknown option 'rezise'; did you mean 'resize'? (known: center_crop, resize)"
    assert "did you mean" not in str(unknown_key("x", "qqq", ["resize"]))


def test_draws_follow_from_all_of_the_key_and_nothing_else():
    keys = [SampleKey(i, epoch, None, None, repeat) for i in range(3) for epoch in range(3) for repeat in range(2)]
    draws = {}
    for seed, key, stream in itertools.product((0, 1, -1, -2, 2**63), keys, Stream):
        value = generator(seed, key, stream).random(4).tobytes()
        assert value == generator(seed, key._replace(size=(8, 8), seed=5), stream).random(4).tobytes()
        draws[seed, key, stream] = value
    assert len(set(draws.values())) == len(draws)


def test_long_draws_of_neighbours_do_not_overlap():
    """The counter's low word is left to the stream itself: 2⁶⁴ blocks before a neighbour's."""
    one = generator(0, SampleKey(0), Stream.COLOUR).random(100_000)
    two = generator(0, SampleKey(1), Stream.COLOUR).random(100_000)
    assert not np.intersect1d(one, two).size


def test_a_generator_is_numpys_philox_of_seed_and_stream():
    rng = generator(7, SampleKey(3, epoch=2, repeat=1), Stream.GEOMETRY)
    plain = np.random.Generator(np.random.Philox(key=np.array([7, 2], np.uint64), counter=np.array([0, 3, 2, 1])))
    assert np.array_equal(rng.random(100), plain.random(100)) and rng.integers(2**63) == plain.integers(2**63)
    assert pickle.loads(pickle.dumps(rng)).random() == rng.random()


def test_a_drawn_seed_is_what_the_generator_would_draw():
    for seed, index, epoch, repeat in itertools.product((0, 7, 2**64 + 7, -1), (0, 5, 2**40), (0, 3), (0, 1 << 20)):
        key = SampleKey(index, epoch=epoch, repeat=repeat)
        drawn = sample_seed(seed, key, Stream.LATENT_NOISE)
        assert drawn == generator(seed, key, Stream.LATENT_NOISE).integers(2**63)
        assert type(drawn) is int


def test_ledger_keeps_in_memory_and_in_its_file(tmp_path):
    ledger = Ledger(tmp_path / "deep" / "ledger.jsonl")
    ledger.add("unreadable", "ä.jpg", "truncated")
    ledger.add("unreadable", "b.jpg", "empty")
    ledger.add("remainder", "c.jpg", "left over")
    assert ledger.counts() == {"unreadable": 2, "remainder": 1} and len(ledger) == 3
    lines = (tmp_path / "deep" / "ledger.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"kind": "unreadable", "id": "ä.jpg", "reason": "truncated"}
    assert [json.loads(line)["id"] for line in lines] == [entry.id for entry in ledger]


def test_geometry_scale_says_when_a_picture_is_enlarged():
    geometry = Geometry(original_size=(100, 300), box=(0, 50, 100, 200), crop_top_left=(0, 100), target_size=(200, 400))
    assert geometry.scale == 2.0


def test_pixel_cache_keeps_what_it_has_and_travels_empty():
    cache = PixelCache(max_images=2, max_bytes=30)
    a, b, c = (torch.full((10,), n, dtype=torch.uint8) for n in range(3))
    cache.put("a", a, "note")
    cache.put("big", torch.zeros(25, dtype=torch.uint8))
    cache.put("b", b)
    cache.put("c", c)
    assert cache.get("a") == (a, "note") and cache.get("c") is None and cache.get("big") is None
    assert (len(cache), cache.nbytes, cache.hits, cache.misses) == (2, 20, 1, 2)
    twin = pickle.loads(pickle.dumps(cache))
    assert (len(twin), twin.max_images, twin.max_bytes) == (0, 2, 30)
    with pytest.raises(errors.ConfigError, match="max_bytes is -1"):
        PixelCache(max_bytes=-1)


def test_progress_is_silent_when_it_is_quick_and_talks_when_it_is_not(capsys, monkeypatch):
    with track("reading") as show:
        for done in range(100):
            show(done, 100)
    assert capsys.readouterr().err == ""
    now = itertools.count(step=4.0)
    monkeypatch.setattr("calotype.progress.time.monotonic", lambda: next(now))
    with track("reading") as show:
        for done in range(1, 11):
            show(done * 10, 100)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 5
    assert all(line.startswith("reading: ") and line.endswith(" s left") for line in lines[1:-1]), lines
    assert lines[-1] == "reading: 100/100 images, 2.5/s"


def test_every_module_has_its_layer_and_none_is_exempt():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    contracts = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    assert contracts[0]["containers"] == ["calotype"]
    assert all(one["exhaustive"] for one in contracts if one["type"] == "layers")
    assert not any("ignore_imports" in one for one in contracts)


def test_progress_has_one_type():
    """Every `progress` argument is a `calotype.progress.Show`: no module writes another one."""
    root = Path(errors.__file__).parent
    own = {
        f"{file.relative_to(root)}: {ast.unparse(node.annotation)}"
        for file in root.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.arg) and node.arg == "progress" and node.annotation is not None
    }
    assert {one for one in own if not one.endswith((": Show", ": Show | None"))} == set()


ROOT = Path(errors.__file__).parent


def test_at_most_six_files_lie_at_the_top():
    assert len([file for file in ROOT.glob("*.py") if file.name != "__main__.py"]) <= 6


@pytest.mark.parametrize(("former", "today"), FORMER.items())
def test_a_former_module_name_gives_the_module_of_today(former, today):
    with pytest.warns(DeprecationWarning, match=r"is now calotype\.") as warned:  # packages around it may warn as well
        module = importlib.import_module(f"calotype.{former}")
    assert any(f"calotype.{former} is now calotype.{today};" in str(one.message) for one in warned)
    current = pkgutil.resolve_name(f"calotype.{today}")
    public = getattr(current, "__all__", ())
    assert module is current or all(getattr(module, name) is getattr(current, name) for name in public)
    assert hasattr(current, "__path__") == (module is not current)
    del sys.modules[f"calotype.{former}"]


def test_collate_is_a_function_and_the_module_it_was():
    from torch.utils.data import DataLoader

    assert calotype.collate is importlib.import_module("calotype.data.collate").collate
    with pytest.warns(DeprecationWarning, match="calotype.collate is now"):
        from calotype.collate import check_same, collate, collate_values
    assert collate is calotype.collate is calotype.collate.collate  # the import does not hide the function
    assert {check_same.__module__, collate_values.__module__} == {"calotype.data.collate"}
    assert locate("calotype.collate.collate") is locate("calotype.collate") is collate
    assert pickle.loads(pickle.dumps(collate)) is collate  # spawned workers get it
    assert next(iter(DataLoader([{"a": 1}, {"a": 2}], 2, collate_fn=calotype.collate)))["a"].tolist() == [1, 2]
    del sys.modules["calotype.collate"]


@pytest.mark.parametrize("module", ["calotype", "calotype.transforms", "calotype.transforms.{}"])
@pytest.mark.parametrize(
    ("former", "today"), [("ImageProgram", "ImageTransform"), ("CaptionProgram", "CaptionTransform")]
)
def test_a_config_may_have_a_class_by_its_former_name(module, former, today):
    path = f"{module.format(former.removesuffix('Program').lower())}.{former}"
    with pytest.warns(DeprecationWarning, match=f"{path} is now"):
        found = locate(path)
    assert found is getattr(importlib.import_module("calotype"), today)


@pytest.mark.parametrize("package", ["captioning", "check", "distill", "encodings", "train"])
def test_each_command_is_one_call(package):
    module = importlib.import_module(f"calotype.{package}")
    assert module.run is importlib.import_module(f"calotype.{package}.command").run
    former = {"captioning": "caption", "encodings": "encode"}.get(package, package)
    with pytest.warns(DeprecationWarning, match=rf"calotype\.{package}\.run"):
        assert getattr(module, f"{former}_config") is module.run

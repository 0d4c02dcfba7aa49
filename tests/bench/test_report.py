"""The rule that recommends, the break-even and the table, on figures that are made up."""

import json

import pytest

from calotype.bench.report import BenchReport, BenchRow, Recommendation, break_even, recommend
from calotype.bench.show import lines
from calotype.bench.strategies import STRATEGIES, choose, settings
from calotype.config import Config
from calotype.errors import ConfigError

TABLE = {one.name: one for one in STRATEGIES}


def row(name, epoch, *, first=None, prepare=0.0, host=1 << 30, device=None, **more):
    strategy = TABLE[name]
    return BenchRow(
        strategy=name,
        title=strategy.title,
        config=strategy.config,
        images_per_second=100 / epoch,
        data_wait=0.25,
        host_bytes=host,
        device_bytes=device,
        prepare_seconds=prepare,
        first_epoch_seconds=epoch if first is None else first,
        epoch_seconds=epoch,
        **more,
    )


def refused(name, reason="out of memory on cuda"):
    return BenchRow(strategy=name, title=TABLE[name].title, config=TABLE[name].config, refused=reason)


NOTHING = row("none", 100.0)


@pytest.mark.parametrize(
    ("other", "epochs"),
    [
        (row("encodings", 40.0, prepare=600.0), 10),  # 600 s ahead of the first step, 60 s won in each epoch
        (row("encodings", 40.0, prepare=601.0), 11),
        (row("encodings", 40.0, prepare=50.0), 1),
        (row("on_the_fly", 40.0, first=130.0), 2),
        (row("pixel_cache", 99.0, first=100.0), 1),
        (row("pixel_cache", 99.0, first=110.5), 12),
        (row("pixel_cache", 100.0, first=90.0), None),
        (row("downloads", 120.0), None),
    ],
)
def test_break_even_is_the_first_epoch_that_is_not_behind(other, epochs):
    assert break_even(other, NOTHING) == epochs
    if epochs is not None:
        assert other.seconds(epochs) <= NOTHING.seconds(epochs) + 1e-9
        assert epochs == 1 or other.seconds(epochs - 1) > NOTHING.seconds(epochs - 1)


def test_break_even_needs_both():
    assert break_even(refused("encodings"), NOTHING) is None
    assert break_even(NOTHING, refused("none")) is None


def test_the_recommendation_follows_from_the_length_of_the_training():
    rows = [NOTHING, row("pixel_cache", 80.0, first=100.0), row("encodings", 40.0, prepare=600.0)]
    assert recommend(rows, 1).strategy == "none"  # nothing is kept before the first epoch has gone by
    assert recommend(rows, 5).strategy == "pixel_cache"  # 420 s: nothing takes 500, encodings 800
    assert recommend(rows, 50).strategy == "encodings"
    reason = recommend(rows, 50).reason
    assert "43 min for the 50 epochs of this config, 1 h 23 min with nothing" in reason and "25.0 %" in reason


def test_what_is_faster_by_less_than_a_tenth_is_not_worth_another_line():
    disk, memory = row("encodings", 40.0, prepare=60.0), row("encodings_memory", 38.0, prepare=60.0)
    found = recommend([NOTHING, disk, memory], 50)
    assert found.strategy == "encodings" and "encodings in memory is faster by less than a tenth" in found.reason
    assert recommend([NOTHING, disk, row("encodings_memory", 20.0, prepare=60.0)], 50).strategy == "encodings_memory"
    assert recommend([NOTHING, row("pixel_cache", 95.0)], 50).strategy == "none"


def test_what_does_not_fit_or_run_is_not_recommended():
    disk, device = row("encodings", 60.0), row("encodings_device", 20.0, device=100 << 30)
    found = recommend([NOTHING, disk, device], 50, host_room=8 << 30, device_room=80 << 30)
    assert found.strategy == "encodings" and "not enough memory here for encodings on the device" in found.reason
    assert recommend([NOTHING, row("pixel_cache", 10.0, host=9 << 30)], 50, host_room=8 << 30).strategy == "none"
    found = recommend([refused("none"), disk], 50)
    assert found.strategy == "encodings" and "with nothing it does not run here" in found.reason
    assert recommend([refused("none"), refused("encodings")], 50) is None


def test_the_table_shows_what_was_found():
    rows = (
        NOTHING,
        row("encodings", 40.0, prepare=600.0, break_even_epochs=10, notes=("a note",)),
        refused("downloads"),
    )
    report = BenchReport(
        model="flux.1-dev",
        pictures=1000,
        samples=1000,
        measured_pictures=92,
        batch_size=4,
        steps=20,
        epochs=50,
        device="cpu",
        machine="2 cores",
        rows=rows,
        recommendation=Recommendation(strategy="encodings", reason="because"),
    )
    text = list(lines(report))
    assert text[0].startswith("flux.1-dev, 1,000 images, batches of 4; up to 20 batches timed each way on 92")
    (encodings,) = (line for line in text if line.startswith("encodings on disk  "))
    assert encodings.split()[3:] == ["2.50", "25.0", "%", "1.07", "GB", "-", "0", "10", "min", "epoch", "10"]
    assert "encodings on disk: encodings.store: encodings" in text and "encodings on disk: a note" in text
    assert "download cache: left out: out of memory on cuda" in text
    assert text[-1] == "Recommended: encodings on disk. because"
    assert json.loads(json.dumps(report.to_json()))["rows"][2]["refused"] == "out of memory on cuda"


def test_strategies_are_named():
    assert [one.name for one in choose(["encodings", "pixel_cache"])] == ["none", "pixel_cache", "encodings"]
    assert choose(None) == STRATEGIES
    with pytest.raises(ConfigError, match="encodings_memory"):
        choose(["encoding_memory"])


def test_a_strategy_takes_the_place_of_the_caches_that_are_there():
    config = {
        "model": "flux.1-dev",
        "dataset": {"path": "p", "downloads": "d", "resolution": 64},
        "loader": {"batch_size": 2},
        "encodings": {"store": "s", "on_the_fly": True, "in_memory": True, "dtype": "float32"},
    }
    for caches in ({"dataset": {"path": "p", "pixel_cache": 8}}, {"loader": {"device_cache": True}}):
        cached = settings(Config.parse({"model": "flux.1-dev", "dataset": {"path": "p"}, **caches}), TABLE["none"], "x")
        assert cached.to_mapping()["dataset"] == {"path": "p", "include": ["text"]}
        assert not cached.to_mapping().get("loader")
    plain = settings(Config.parse(config), TABLE["none"], "/tmp/x").to_mapping()
    assert plain["dataset"] == {"path": "p", "resolution": 64, "include": ["text"]}
    assert plain["loader"] == {"batch_size": 2} and plain["encodings"]["dtype"] == "float32"
    assert "on_the_fly" not in plain["encodings"]
    assert (
        settings(Config.parse(config), TABLE["downloads"], "/tmp/x").to_mapping()["dataset"]["downloads"]
        == "/tmp/x/downloads"
    )
    kept = settings(Config.parse(config), TABLE["encodings_memory"], "/tmp/x").to_mapping()
    assert kept["encodings"] == {"dtype": "float32", "store": "/tmp/x/encodings", "in_memory": True}
    assert "include" not in kept["dataset"]
    for strategy in STRATEGIES:  # the lines that a person is told are what is measured
        changed = settings(Config(), strategy, "x").to_mapping()
        said = {line.partition(":")[0] for line in strategy.config}
        assert said <= {
            f"{section}.{key}" for section in ("dataset", "loader", "encodings") for key in changed[section]
        }

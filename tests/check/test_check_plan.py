"""The plan in numbers: what a Loader over the same data really does, counted."""

import json

import numpy as np
import pytest

import calotype
from calotype.check.plan import plan_facts
from calotype.errors import ConfigError


def dataset(path, **options):
    return calotype.text_to_image_dataset(path=path, resolution=256, **options)


def facts(data, unusable=(), **options):
    refs = data.manifest.refs()
    sizes = np.array([data.reader.size(ref) for ref in refs], np.int32)
    usable = np.ones(len(refs), bool)
    usable[list(unusable)] = False
    return plan_facts(data, sizes, usable, **options)


def counted(data, **options):
    """What the loader's batches hold, the slow way: (batches, samples, short ones, times each row came)."""
    loader = calotype.Loader(data, in_process=True, **options)
    size = options["batch_size"]
    epoch = loader.plan.epoch(0)
    batches = [epoch[step] for step in range(len(epoch))]
    times = np.bincount([key.index for batch in batches for key in batch], minlength=len(data))
    loader.close()
    return len(batches), sum(map(len, batches)), sum(len(batch) < size for batch in batches), times


@pytest.mark.parametrize("batch_size", [1, 3, 5])
@pytest.mark.parametrize("remainder", ["short", "repeat", "drop"])
def test_the_numbers_are_the_loaders(photos, batch_size, remainder):
    data = dataset(photos)
    found, _ = facts(data, batch_size=batch_size, remainder=remainder)
    for policy in found.policies:
        try:
            batches, samples, short, times = counted(data, batch_size=batch_size, remainder=policy.policy)
        except ConfigError:
            assert policy.batches == 0
            continue
        assert (policy.batches, policy.samples, policy.short_batches) == (batches, samples, short)
        assert policy.left_out == (times == 0).sum() and policy.repeated == np.maximum(times - 1, 0).sum()
    chosen = next(policy for policy in found.policies if policy.policy == remainder)
    assert found.batches == chosen.batches and found.samples == 12


def test_buckets_the_fullest_first(photos):
    found, _ = facts(dataset(photos))
    assert sum(count for *_, count in found.buckets) == 12
    assert [count for *_, count in found.buckets] == sorted((count for *_, count in found.buckets), reverse=True)
    assert all(height % 16 == width % 16 == 0 for height, width, _ in found.buckets)


def test_without_buckets(photos):
    found, _ = facts(dataset(photos, buckets=False), batch_size=5)
    assert found.buckets == () and found.batches == 3


def test_what_is_left_out_is_named(photos):
    data = dataset(photos)
    _, findings = facts(data, batch_size=3, remainder="drop")
    left = {one.where for one in findings if one.kind == "left_out"}
    *_, times = counted(data, batch_size=3, remainder="drop")
    assert left == {data.manifest[int(row)].id for row in np.flatnonzero(times == 0)} and left
    assert all("steps take 3" in one.detail for one in findings if one.kind == "left_out")


def test_no_batch_at_all(photos):
    found, findings = facts(dataset(photos), batch_size=50, remainder="drop")
    assert found.batches == 0
    assert "no_batches" in {one.kind for one in findings}
    _, findings = facts(dataset(photos), unusable=range(12))
    assert [one.kind for one in findings] == ["no_batches"] and "none of the 12" in findings[0].detail


def test_ranks_share_the_steps(photos):
    alone, _ = facts(dataset(photos), batch_size=2)
    four, findings = facts(dataset(photos), batch_size=2, world_size=4)
    assert four.world_size == 4 and four.batches < alone.batches
    assert four.policies[0].samples >= 12
    if four.policies[0].repeated:
        assert "repeated" in {one.kind for one in findings}


def test_unusable_pictures_are_not_planned(photos):
    found, _ = facts(dataset(photos), unusable=[0, 5])
    assert found.samples == 10 and sum(count for *_, count in found.buckets) == 10


def test_weights_count(photos, tmp_path):
    lines = [{"file_name": str(photos / f"{n:02d}.jpg"), "text": "x", "repeats": 3 if n else 1} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found, _ = facts(dataset(tmp_path / "rows.jsonl"))
    assert found.samples == 10 and sum(count for *_, count in found.buckets) == 4


def test_small_pictures_by_the_configs_choice(photos):
    data = calotype.text_to_image_dataset(path=photos, resolution=320)
    warned, findings = facts(data, on_upscale="warn")
    assert warned.samples == 12 and not [one for one in findings if one.kind == "left_out"]
    skipped, findings = facts(data, on_upscale="skip")
    left = [one for one in findings if one.kind == "left_out"]
    assert skipped.samples == 12 - len(left) and left and all("too small" in one.detail for one in left)
    loader = calotype.Loader(data, on_upscale="skip", in_process=True)
    assert len(loader) == skipped.batches
    loader.close()
    _, findings = facts(data, on_upscale="error")
    assert [one.kind for one in findings if one.level == "error"] == ["no_batches"]


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"remainder": "shrot"}])
def test_wrong_values_are_refused(photos, options):
    with pytest.raises((ConfigError, ValueError)):
        facts(dataset(photos), **options)

"""What caches cost: the bytes are those that the caches really hold; the seconds are measured."""

import json

import numpy as np
import pytest
import torch
from real_tokenizers import flux_pipeline
from safetensors.torch import save
from tiny_pipelines import tiny_pipeline

import calotype
from calotype.check import command as check_command
from calotype.check.cost import cost_facts, target_sizes
from calotype.check.facts import Facts, scan_facts
from calotype.data.pixel_cache import PixelCache
from calotype.images import ImageReader
from calotype.models import list_specs


def costs(data, **options):
    facts = scan_facts(data.manifest.refs(), ImageReader(), deep=False, threads=2, progress=None)
    sizes = np.array([one.header.size if one.header else (0, 0) for one in facts], np.int32)
    return {one.level: one for one in cost_facts(data, facts, sizes, threads=2, **options)}


def held(data, keys):
    """Bytes of a real cache after each sample was asked for once."""
    cache = PixelCache()
    twin = data.with_cache(cache)
    for key in keys:
        twin.prepare(key)
    return cache.nbytes


def planned(data):
    loader = calotype.Loader(data, in_process=True)
    epoch = loader.plan.epoch(0)
    loader.close()
    return [key for step in range(len(epoch)) for key in epoch[step]]


@pytest.mark.parametrize(
    "options",
    [
        {"resolution": 256},
        {"resolution": 256, "buckets": False},
        {"resolution": 256, "img_transform": {"random_crop": True}},
        {"img_transform": {"resize": 128}},
    ],
)
def test_pixels_take_what_the_cache_holds(photos, options):
    data = calotype.text_to_image_dataset(path=photos, **options)
    keys = planned(data) if "resolution" in options else range(12)
    assert costs(data)["pixel_cache"].bytes == held(data, keys)


def test_device_takes_what_the_loader_keeps(photos):
    data = calotype.text_to_image_dataset(path=photos, resolution=256)
    found = costs(data)["device_cache"]
    assert found.bytes == held(data, planned(data)) and found.epoch_seconds > 0
    moving = calotype.text_to_image_dataset(path=photos, resolution=256, img_transform={"random_crop": True})
    found = costs(moving)["device_cache"]
    assert found.bytes is None and "not possible" in found.note


def test_times_are_measured_and_in_order(photos):
    found = costs(calotype.text_to_image_dataset(path=photos, resolution=256))
    assert list(found) == ["none", "downloads", "pixel_cache", "device_cache", "encodings"]
    assert 0 < found["pixel_cache"].epoch_seconds < found["none"].epoch_seconds
    assert found["downloads"].bytes == 0 and "remote" in found["downloads"].note
    assert found["encodings"].bytes is None and "--model" in found["encodings"].note
    assert all(one.note for one in found.values())


def test_weights_make_epochs_longer_and_caches_no_larger(photos, tmp_path):
    def data(repeats):
        lines = [{"file_name": str(photos / f"{n:02d}.jpg"), "text": "x", "repeats": repeats} for n in range(12)]
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return calotype.text_to_image_dataset(path=tmp_path / "rows.jsonl", resolution=256)

    once, often = costs(data(1)), costs(data(50))
    assert once["pixel_cache"].bytes == often["pixel_cache"].bytes
    assert often["none"].epoch_seconds > 5 * once["none"].epoch_seconds


def test_encodings_are_those_of_tensors_of_such_shapes(photos):
    data = calotype.text_to_image_dataset(path=photos, model="flux.1-dev", tokenizers=flux_pipeline(), resolution=256)
    record = {"prompt_embeds": torch.zeros(512, 4096), "pooled_prompt_embeds": torch.zeros(768)}
    text = sum(value.bfloat16().nbytes for value in record.values())
    assert data.spec.encodings.text_bytes == text
    pictures = 0
    for height, width in target_sizes(data, np.array([(320, 320), (320, 480), (360, 240)] * 4), np.arange(12)):
        pictures += torch.zeros(2 * 16, height // 8, width // 8, dtype=torch.bfloat16).nbytes
    found = costs(data)["encodings"]
    assert found.bytes == pictures + (24 + 1) * text  # two captions each, and the empty one
    assert found.fill_seconds > 0 and found.epoch_seconds > 0


def test_a_local_pipeline_s_own_encoders_count(photos):
    """A tiny pipeline is encoded in seconds, whatever its model takes."""
    config = {"model": str(tiny_pipeline("flux.1-dev")), "dataset": {"path": str(photos), "resolution": 256}}
    tiny, full = (
        next(cost for cost in check_command.run(made, fresh=True).cost if cost.level == "encodings")
        for made in (config, config | {"model": "flux.1-dev", "tokenizers": flux_pipeline()})
    )
    assert 1000 * tiny.fill_seconds < full.fill_seconds and 10 * tiny.bytes < full.bytes


def test_flux_at_1024_takes_what_the_design_says():
    spec = calotype.get_spec("flux.1-dev").encodings
    assert spec.picture_bytes(1024, 1024) == 1_048_576
    assert spec.text_bytes == 512 * 4096 * 2 + 768 * 2
    moments = {"moments": torch.zeros(32, 128, 128, dtype=torch.bfloat16)}
    assert 0 < len(save(moments)) - spec.picture_bytes(1024, 1024) < 200  # the header


@pytest.mark.parametrize("spec", list_specs(), ids=lambda spec: spec.name)
def test_every_model_has_its_facts(spec):
    facts = spec.encodings
    assert facts.texts[0].key == "prompt_embeds" and facts.text_bytes > 100_000
    assert spec.multiple % facts.latent_factor == 0
    assert facts.text_flops > 1e9 < facts.picture_flops(512, 512)


def test_nothing_usable_costs_nothing(photos):
    data = calotype.text_to_image_dataset(path=photos, resolution=256)
    broken = [Facts(header=None, problem=("truncated", "x"))] * 12
    assert cost_facts(data, broken, np.zeros((12, 2), np.int32)) == ()


def test_pictures_from_a_server(photos, tmp_path):
    """Fetching is part of the cost without downloads, and their bytes are the files'."""
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=photos))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    lines = [{"url": f"{address}/{n:02d}.jpg", "text": f"photo {n}"} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = calotype.text_to_image_dataset(
        path=tmp_path / "rows.jsonl", resolution=256, fetch={"allow_private": True}, downloads=tmp_path / "kept"
    )
    reader = data.reader
    facts = scan_facts(data.manifest.refs(), reader, deep=False, threads=2, progress=None)
    sizes = np.array([one.header.size for one in facts], np.int32)
    found = {one.level: one for one in cost_facts(data, facts, sizes, threads=2)}
    server.shutdown()
    server.server_close()
    assert found["downloads"].bytes == sum((photos / f"{n:02d}.jpg").stat().st_size for n in range(4))
    assert found["downloads"].fill_seconds > 0
    assert found["downloads"].epoch_seconds < found["none"].epoch_seconds
    assert data.reader is reader and reader.fetcher.downloads is not None

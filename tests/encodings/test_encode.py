"""The encode job: what is kept is what the models give, each thing once, and only what changed is made again."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from encoding_helpers import NAMES, copied_pipeline, encoded, frozen, make_dataset, make_folder, make_job, run
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_pipelines import tiny_pipeline

import calotype
from calotype.encodings.dataset_records import Variants
from calotype.encodings.encode import encode_job
from calotype.encodings.frozen import FrozenModels
from calotype.encodings.missing_records import find_missing
from calotype.encodings.on_the_fly import OnTheFlyDataset
from calotype.encodings.store import EncodingStore
from calotype.encodings.store.summary import summarise_store
from calotype.encodings.worker import picture_pixels
from calotype.errors import CalotypeError, ConfigError
from calotype.images.locks import DECODING
from calotype.transforms import ImageTransform
from calotype.types import SampleKey


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "photos")


def counts(job):
    """Records of a store by kind."""
    kinds = [job.store.kind(int(row)) for row in job.store.rows()]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def planned(job):
    """(images, texts) that are still to be made."""
    _, work = job.plan()
    return len(work.images), len(work.texts)


def test_a_decoded_image_counts_until_its_outcomes_are_resampled(folder, tmp_path, monkeypatch):
    job, used, resample = make_job(folder, tmp_path / "store"), [], ImageTransform.resample
    monkeypatch.setattr(ImageTransform, "resample", lambda *args: (used.append(DECODING.used), resample(*args))[1])
    (picture,) = job.plan()[0].images(0)
    picture_pixels(job.dataset, [picture])
    height, width = picture.geometry.original_size
    assert used == [3 * height * width] and DECODING.used == 0


def test_each_picture_flip_and_text_once(folder, tmp_path):
    (folder / "twin.txt").write_text((folder / "coffee.txt").read_text())
    shutil.copy(folder / "coffee.png", folder / "twin.png")
    job, report = run(folder, tmp_path / "store", img_transform={"horizontal_flip": 0.5})
    assert counts(job) == {"picture": 2 * len(NAMES), "scaling": 1, "text": len(NAMES) + 1}
    assert report.encoded == 3 * len(NAMES) + 1 and report.reused == report.failed == 0
    assert report.bytes > 1000
    again = encode_job(job)
    assert (again.encoded, again.reused, again.bytes) == (0, report.encoded, 0)


def test_records_are_what_the_models_give_for_the_pixels_and_texts_of_training(folder, tmp_path):
    job, _ = run(
        folder,
        tmp_path / "store",
        batch_size=1,
        img_transform={"horizontal_flip": 0.5},
        caption_transform={"trigger": "sks"},
    )
    online = job.dataset
    records, _ = job.plan()
    for index in range(len(online)):
        for epoch in range(3):
            key = SampleKey(index, epoch)
            picture = records.image(key)
            image, _ = online.image(key)
            (pixels,) = picture_pixels(online, [picture])
            assert torch.equal(pixels, image)
            (row,) = job.store.find([picture.key])
            expected = job.models.encode_pictures(image[None])
            kept = job.store.get(int(row))
            assert kept.keys() == expected.keys()
            assert all(torch.equal(kept[name], expected[name][0]) for name in kept)
            text = online.caption(key).text
            (row,) = job.store.find([records.text_key(text)])
            (expected,) = job.models.encode_texts([text])
            kept = job.store.get(int(row))
            # The encoders saw another number of texts at once: a matrix product may add up in another order.
            for name in kept:
                torch.testing.assert_close(kept[name], expected[name], rtol=1e-4, atol=1e-5)


def test_images_by_url_are_fetched_ahead_of_the_decoders(gathering, photos, tmp_path):
    base, _, waiting = gathering
    lines = (json.dumps({"url": f"{base}/{n:02d}.jpg", "caption": f"number {n}"}) for n in range(12))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    options = {"buckets": False, "resolution": None, "img_transform": {"resize": [64, 64], "center_crop": True}}
    job = make_job(tmp_path / "rows.jsonl", tmp_path / "web", fetch={"allow_private": True}, **options)
    job.plan()  # hashes the files, over as many connections
    waiting.clear()
    report = encode_job(job)
    assert waiting["most"] >= 10 and report.failed == 0
    local, _ = run(photos, tmp_path / "local", **options)
    stored = [one.store.keys(one.store.rows("picture")).tolist() for one in (job, local)]
    assert sorted(stored[0]) == sorted(stored[1])


def test_drop_recomputes_nothing(folder, tmp_path):
    run(folder, tmp_path / "store", caption_transform={"drop": 0.05})
    for drop in (0.1, 0.0):
        assert planned(make_job(folder, tmp_path / "store", caption_transform={"drop": drop})) == (0, 0)


def test_a_trigger_recomputes_texts_only(folder, tmp_path):
    run(folder, tmp_path / "store")
    assert planned(make_job(folder, tmp_path / "store", caption_transform={"trigger": "sks"})) == (0, len(NAMES))


def test_another_trigger_in_captions_that_wait_for_one_recomputes_texts_only(folder, tmp_path):
    for file in folder.glob("*.txt"):
        file.write_text(f"{{trigger}} and {file.stem}")
    stems = [file.stem for file in folder.glob("*.txt")]
    job, _ = run(folder, tmp_path / "store", caption_transform={"trigger": "sks"})
    again = make_job(folder, tmp_path / "store", caption_transform={"trigger": "ohwx"})
    _, work = again.plan()
    assert not work.images and {text.text for text in work.texts} == {f"ohwx and {stem}" for stem in stems}
    assert planned(job) == (0, 0)


def test_one_caption_recomputes_one_text(folder, tmp_path):
    run(folder, tmp_path / "store")
    (folder / "coffee.txt").write_text("a cup")
    assert planned(make_job(folder, tmp_path / "store")) == (0, 1)


def test_a_caption_in_another_case_is_another_text(folder, tmp_path):
    """Encoders tell `Rose` from `rose`: a key that does not would give one the other's record."""
    run(folder, tmp_path / "store")
    before = (folder / "coffee.txt").read_text()
    (folder / "coffee.txt").write_text(before.swapcase())
    job = make_job(folder, tmp_path / "store")
    assert planned(job) == (0, 1)
    records, _ = job.plan()
    assert records.text_key(before) != records.text_key(before.swapcase())
    assert len({records.text_key(text) for text in ("a Rose", "a rose", "A ROSE")}) == 3


def test_one_image_more_is_one_picture_and_one_text(folder, tmp_path):
    run(folder, tmp_path / "store")
    Image.new("RGB", (96, 72), "red").save(folder / "aaa.png")  # sorts before all others
    (folder / "aaa.txt").write_text("red")
    assert planned(make_job(folder, tmp_path / "store")) == (1, 1)


def test_other_pixels_under_the_same_name_length_and_time(folder, tmp_path):
    run(folder, tmp_path / "store")
    path = folder / "coffee.png"
    before = path.stat()
    data = bytearray(path.read_bytes())
    Image.open(path).transpose(Image.Transpose.ROTATE_180).save(path)
    changed = path.read_bytes()[: len(data)].ljust(len(data), b"\0")  # bytes behind a PNG's end are no part of it
    if len(path.read_bytes()) > len(data):
        Image.new("RGB", (96, 72), "blue").save(path)
        changed = path.read_bytes().ljust(len(data), b"\0")
    path.write_bytes(changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    assert planned(make_job(folder, tmp_path / "store")) == (1, 0)


def test_a_renamed_folder_and_file_keep_everything(folder, tmp_path):
    run(folder, tmp_path / "store")
    folder = folder.rename(tmp_path / "elsewhere")
    for end in ("png", "txt"):
        (folder / f"coffee.{end}").rename(folder / f"zebra.{end}")
    (tmp_path / "store").rename(tmp_path / "moved")
    assert planned(make_job(folder, tmp_path / "moved")) == (0, 0)


def test_another_size_decode_background_or_crop_is_another_record(folder, tmp_path):
    run(folder, tmp_path / "store")
    everything = (len(NAMES), 0)
    for options in (
        {"resolution": 128},
        {"img_transform": {"interpolation": "bicubic"}},
        {"background": [0, 0, 0]},
        {"decode": "fast"},
        {"buckets": False, "resolution": None, "img_transform": {"resize": [64, 64], "center_crop": True}},
    ):
        assert planned(make_job(folder, tmp_path / "store", **options)) == everything, options


def test_other_weights_under_the_same_name_recompute_what_they_made(folder, tmp_path):
    pipeline = copied_pipeline(tmp_path / "pipeline")
    run(folder, tmp_path / "store", models=FrozenModels(pipeline, dtype=torch.float32))
    assert planned(make_job(folder, tmp_path / "store", models=frozen())) == (0, 0)  # the same under another name

    file = next((pipeline / "vae").glob("*.safetensors"))
    weights = load_file(file)
    name = sorted(weights)[0]
    save_file(weights | {name: weights[name] + 1e-3}, file, metadata={"format": "pt"})
    job = make_job(folder, tmp_path / "store", models=FrozenModels(pipeline, dtype=torch.float32))
    assert planned(job) == (len(NAMES), 0)

    file = next((pipeline / "text_encoder").glob("*.safetensors"))
    weights = load_file(file)
    name = sorted(weights)[0]
    save_file(weights | {name: weights[name] + 1e-3}, file, metadata={"format": "pt"})
    job = make_job(folder, tmp_path / "store", models=FrozenModels(pipeline, dtype=torch.float32))
    assert planned(job) == (len(NAMES), len(NAMES) + 1)


def test_another_dtype_or_kind_of_latents_is_another_record(folder, tmp_path):
    run(folder, tmp_path / "store")
    half = FrozenModels(tiny_pipeline("flux.1-dev"), dtype=torch.bfloat16)
    mean = FrozenModels(tiny_pipeline("flux.1-dev"), dtype=torch.float32, latents="mean")
    assert planned(make_job(folder, tmp_path / "store", models=half)) == (len(NAMES), len(NAMES) + 1)
    assert planned(make_job(folder, tmp_path / "store", models=mean)) == (len(NAMES), 0)


def test_a_corrupt_image_costs_only_itself(folder, tmp_path):
    for name, data in (("cut.png", (folder / "coffee.png").read_bytes()[:3000]), ("page.jpg", b"<!doctype html>")):
        (folder / name).write_bytes(data)
        (folder / name).with_suffix(".txt").write_text(f"a {name}")
    job, report = run(folder, tmp_path / "store")
    assert counts(job)["picture"] == len(NAMES)
    assert report.failed == 2 and {one.id for one in report.failures} == {"cut.png", "page.jpg"}
    assert encode_job(job).encoded == 0


def test_a_file_that_changes_meanwhile_is_named_and_not_kept(folder, tmp_path):
    job = make_job(folder, tmp_path / "store")
    records, work = job.plan()
    shutil.copy(folder / "rocket.png", folder / "coffee.png")
    seen = []
    with job.worker() as worker:
        done = worker.images(work.images, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(NAMES), len(NAMES)) and seen == sorted(set(seen))
    assert [one.id for one in done.failures] == ["coffee.png"] and "changed" in done.failures[0].reason
    assert len(records) == len(NAMES) and counts(job)["picture"] == len(NAMES) - 1


class Cramped:
    """Models on a device without the memory for more than one image or two texts. The memory alone is made up."""

    def __init__(self, models):
        self._models = models
        self.asked = []

    def __getattr__(self, name):
        return getattr(self._models, name)

    def encode_pictures(self, img):
        self.asked.append(len(img))
        if len(img) > 1:
            raise torch.OutOfMemoryError("made up")
        return self._models.encode_pictures(img)

    def encode_texts(self, texts):
        if len(texts) > 2:
            raise torch.OutOfMemoryError("made up")
        return self._models.encode_texts(texts)


def test_out_of_memory_halves_the_batch_for_good(folder, tmp_path):
    models = Cramped(frozen())
    job = make_job(folder, tmp_path / "store", models=models, batch_size=4)
    report = encode_job(job)
    assert report.encoded == 2 * len(NAMES) + 1 and report.failed == 0
    assert models.asked == [4, 2, 1, 1, 1, 1]


def test_not_enough_memory_for_one_is_an_error_that_says_so(folder, tmp_path):
    models = Cramped(frozen())
    models.encode_pictures = models.encode_texts = lambda batch: (_ for _ in ()).throw(
        torch.OutOfMemoryError("made up")
    )
    with pytest.raises(CalotypeError, match="not enough memory"):
        encode_job(make_job(folder, tmp_path / "store", models=models))


ENDLESS = {
    "img_transform": {"random_crop": True, "color_jitter": {"hue": 0.1}},
    "caption_transform": {"shuffle_parts": 0.5},
}


def test_what_has_no_end_needs_a_number(folder, tmp_path):
    with pytest.raises(
        ConfigError, match=r"random_crop, color_jitter make.*image_variants=4.*each variant takes .* kB"
    ):
        run(folder, tmp_path / "store", **ENDLESS)
    with pytest.raises(ConfigError, match=r"shuffle_parts makes.*caption_variants=4"):
        run(folder, tmp_path / "store", variants=Variants(image=2), **ENDLESS)
    for bad in (0, -1, True, 1.5):
        with pytest.raises(ConfigError, match="image_variants"):
            Variants(image=bad)


def test_variants_are_encoded_once_whatever_seed_or_order(folder, tmp_path):
    variants = Variants(image=3, caption=2)
    job, _ = run(folder, tmp_path / "store", variants=variants, **ENDLESS)
    assert counts(job)["picture"] == 3 * len(NAMES)
    # One text as it is, up to two shuffled, for each; and the empty one.
    assert len(NAMES) + 1 <= counts(job)["text"] <= 3 * len(NAMES) + 1
    Image.new("RGB", (96, 72), "red").save(folder / "aaa.png")
    (folder / "aaa.txt").write_text("red")
    assert planned(make_job(folder, tmp_path / "store", variants=variants, seed=9, **ENDLESS)) == (3, 1)
    assert planned(make_job(folder, tmp_path / "store", variants=Variants(image=4, caption=2), **ENDLESS))[0] == 5 + 3


def test_two_datasets_share_what_they_have_in_common(folder, tmp_path):
    run(folder, tmp_path / "store")
    other = make_folder(tmp_path / "other", names=(*NAMES[:2], "motorcycle_left.png"))
    assert planned(make_job(other, tmp_path / "store")) == (1, 1)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_done(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("calotype.encodings.estimate.free_bytes", lambda path: 1000)
    with pytest.raises(CalotypeError, match=r"encoding 4 images takes .* are free; choose a --store"):
        run(folder, tmp_path / "store")
    assert len(EncodingStore(tmp_path / "store")) == 0
    # The texts of this pipeline, and the 64 MiB that are left alone, are what is too much here.
    monkeypatch.setattr("calotype.encodings.estimate.free_bytes", lambda path: 67_150_000)
    texts = r"5 texts \d+(\.\d)? kB; with 67.1 MB left alone, .* the 67.2 MB that are free"
    with pytest.raises(CalotypeError, match=texts):
        run(folder, tmp_path / "store")
    job = make_job(folder, tmp_path / "store")
    with pytest.raises(CalotypeError, match=texts):
        encoded(job, OnTheFlyDataset)


@pytest.mark.parametrize(
    ("model", "options"),
    [("flux.1-dev", {"latents": "mean"}), ("sd3-medium", {"max_sequence_length": 48}), ("chroma", {})],
)
def test_the_bytes_that_are_said_are_those_that_a_store_then_has(folder, tmp_path, model, options):
    """By the pipeline's own sizes: those of its model are far larger."""
    models = frozen(model, **options)
    (folder / "rocket.txt").write_text("a much longer caption than those of the others, with more in it to be read")
    job = make_job(folder, tmp_path / "store", models=models)
    expected = job.expect(job.plan()[1])
    assert expected.operations < 1e-2 * len(NAMES) * models.spec.encodings.picture_flops(64, 64)
    assert expected.texts == len(NAMES) + 1 and expected.picture_bytes + expected.text_bytes == expected.bytes
    assert expected.bytes == pytest.approx(encode_job(job).bytes, rel=0.05)
    assert expected.bytes == pytest.approx(summarise_store(job.store).bytes, rel=0.05)


def test_custom_steps_are_told_apart(folder, tmp_path):
    from torchvision.transforms import v2

    variants = Variants(image=1)
    run(folder, tmp_path / "store", variants=variants, img_transform=[{}, v2.Grayscale(3)])
    same = make_job(folder, tmp_path / "store", variants=variants, img_transform=[{}, v2.Grayscale(3)])
    other = make_job(folder, tmp_path / "store", variants=variants, img_transform=[{}, v2.GaussianBlur(3)])
    assert planned(same) == (0, 0) and planned(other) == (len(NAMES), 0)
    strength = 3
    step = {"img_transform": [{}, lambda image: image // strength]}
    assert planned(make_job(folder, tmp_path / "store", variants=variants, **step)) == (len(NAMES), 0)
    drawn = np.random.default_rng()  # seeded by nobody knows what
    step = {"img_transform": [{}, lambda image: image // int(1 + drawn.integers(3))]}
    with pytest.raises(ConfigError, match=r"holds a Generator.*cache_key"):
        planned(make_job(folder, tmp_path / "store", variants=variants, **step))


def test_texts_that_are_cut_are_noted(folder, tmp_path):
    (folder / "coffee.txt").write_text("very " * 200 + "long")
    _, report = run(folder, tmp_path / "store")
    assert {(note.kind, note.id) for note in report.notes} == {("caption_cut", "coffee.png")}
    assert any("tokens where the model reads 77" in note.reason for note in report.notes)


def test_work_is_listed_by_size_and_length(folder, tmp_path):
    make_folder(folder, names=("motorcycle_left.png",), size=(72, 96))
    job = make_job(folder, tmp_path / "store")
    records, _ = job.plan()
    work = find_missing(records, job.store)
    sizes = [one.geometry.target_size for one in work.images]
    lengths = [len(one.text) for one in work.texts]
    assert sizes == sorted(sizes) and lengths == sorted(lengths) and lengths[0] == 0


def test_from_python(folder, tmp_path):
    dataset = make_dataset(folder)
    options = {"model": str(tiny_pipeline("flux.1-dev")), "store": tmp_path / "store", "dtype": "float32"}
    assert calotype.encode_dataset(dataset, **options).encoded == 2 * len(NAMES) + 1
    assert calotype.encode_dataset(dataset, **options, latents="mean").encoded == len(NAMES)
    encoded = calotype.encoded_dataset(dataset, **options)
    assert encoded[0]["latents"].shape == (16, 6, 10)
    for wrong, message in (
        ({"dtpye": "float32"}, "did you mean 'dtype'"),
        ({"latents": "median"}, "expected moments or mean"),
        ({"engine": "spark"}, "expected local or ray"),
        ({"address": "10.0.0.1:6379"}, "without engine ray"),
    ):
        with pytest.raises(ConfigError, match=message):
            calotype.encode_dataset(dataset, **options | wrong)

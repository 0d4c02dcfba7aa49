"""The promise of a preview: it shows the Loader's batches, bit for bit, and tells the truth about each sample."""

import shutil

import numpy as np
import pytest
import torch
from loader_helpers import AUGMENT, digest
from PIL import Image
from real_tokenizers import flux_pipeline

import calotype
from calotype.data.pixel_cache import PixelCache
from calotype.images import ImageReader
from calotype.previews.gather import gather
from calotype.previews.page import render_page
from calotype.previews.round_trip import psnr
from calotype.types import SampleKey

BROKEN = "04.jpg"


@pytest.fixture(scope="module")
def some_broken(photos, tmp_path_factory):
    """The photos, one of which ends in the middle."""
    folder = tmp_path_factory.mktemp("broken") / "photos"
    shutil.copytree(photos, folder)
    whole = (folder / BROKEN).read_bytes()
    (folder / BROKEN).write_bytes(whole[: len(whole) // 2])
    return folder


def dataset_of(path, **options):
    return calotype.text_to_image_dataset(**{"path": path, "resolution": 256, "seed": 5} | AUGMENT | options)


def loader_of(dataset, batch_size=3, **options):
    return calotype.Loader(dataset, batch_size, **{"in_process": True, "threads": 2} | options)


def denormalised(image):
    return ((image + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()


def samples_of(views):
    return [sample for view in views for sample in view.samples]


# --- The promise


def test_the_batches_are_the_loaders_bit_for_bit(some_broken):
    dataset = dataset_of(
        some_broken, model="flux.1-dev", tokenizers=flux_pipeline(), include=("id", "text"), buckets={"max_upscale": 4}
    )
    with loader_of(dataset, in_process=False, seed=9) as training:  # the loader process, as a trainer has it
        training.load_state_dict({"epoch": 2})
        trained = [({k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in b.items()}) for b in training]
    views = gather(loader_of(dataset, seed=9), epoch=2, batches=100, draws=2)
    assert [digest(view.batch) for view in views] == [digest(batch) for batch in trained]
    assert len({batch["img"].shape[2:] for batch in trained}) > 1
    assert {(view.epoch, view.seed, view.steps) for view in views} == {(2, 9, len(trained))}
    assert [view.step for view in views] == list(range(len(trained)))
    for view, batch in zip(views, trained, strict=True):
        assert [sample.id for sample in view.samples] == batch["id"]
        assert [sample.caption.text for sample in view.samples] == batch["text"]
        for sample, image in zip(view.samples, batch["img"], strict=True):
            np.testing.assert_array_equal(sample.image, denormalised(image))
            assert sample.repeatable
        for place, key in enumerate(("clip_text_tokens", "t5_text_tokens")):
            for sample, ids in zip(view.samples, batch[key].tolist(), strict=True):
                tokens = sample.tokens[place]
                assert (tokens.key, tokens.limit) == (key, len(ids))
                assert [piece.id for piece in tokens.pieces if piece.kind != "cut"] == ids[: len(ids) - tokens.padding]
                assert len(set(ids[len(ids) - tokens.padding :])) <= 1
    assert {len(sample.caption.parts) > 0 and sample.captions for sample in samples_of(views)} == {2}
    # The broken one has a stand-in, which is told by name.
    (stand_in,) = [sample for sample in samples_of(views) if sample.stands_in_for]
    assert stand_in.stands_in_for == BROKEN
    assert BROKEN not in {sample.id for sample in samples_of(views)}


def test_several_broken_ones_have_the_stand_ins_that_the_loader_took(photos, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    for number in (1, 4, 7, 10):  # all of one bucket: the stand-ins come from others
        (folder / f"{number:02d}.jpg").write_bytes((folder / f"{number:02d}.jpg").read_bytes()[:2000])
    dataset = dataset_of(folder, include=("id",))
    loader = loader_of(dataset, batch_size=2)
    views = gather(loader, batches=100, draws=0)
    told = {(note.id, note.reason.split()[0]) for note in loader.ledger if note.kind == "replaced"}
    assert {(sample.stands_in_for, sample.id) for sample in samples_of(views) if sample.stands_in_for} == told
    assert len(told) == 4
    for view in views:
        assert [sample.id for sample in view.samples] == view.batch["id"]
        assert all(sample.repeatable for sample in view.samples)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"img_transform": None},
        {"img_transform": {"random_crop": True, "rotate": 15, "vertical_flip": 0.5}},
        {"decode": "fast", "resolution": 64},
        {"decode": "fast", "resolution": 64, "pixel_cache": 4},
        {"decode": "fast", "resolution": 64, "pixel_cache": 4, "img_transform": {"horizontal_flip": 0.5}},
        {"img_transform": {"resize": [96, 128]}, "resolution": None},
    ],
    ids=str,
)
def test_what_explains_a_sample_gives_the_batchs_pixels(photos, options):
    dataset = dataset_of(photos, **options)
    views = gather(loader_of(dataset), epoch=1, batches=2, draws=2)
    fresh = dataset.with_cache(PixelCache(max_images=0) if dataset.pixel_cache is not None else None)
    for view in views:
        for sample, image in zip(view.samples, view.batch["img"], strict=True):
            np.testing.assert_array_equal(sample.image, denormalised(image))
            assert sample.repeatable
            expected, geometry = fresh.image(sample.key)
            np.testing.assert_array_equal(sample.image, expected.permute(1, 2, 0).numpy())
            assert sample.geometry == geometry
            for draw in sample.draws:
                key = sample.key._replace(epoch=draw.epoch)
                expected, geometry = fresh.image(key)
                np.testing.assert_array_equal(draw.image, expected.permute(1, 2, 0).numpy())
                assert (draw.geometry, draw.text) == (geometry, fresh.caption(key).text)


def test_a_sample_knows_its_row_and_its_original(photos):
    dataset = dataset_of(photos)
    (view,) = gather(loader_of(dataset))
    for sample in view.samples:
        assert dataset.manifest[sample.key.index].id == sample.id
        np.testing.assert_array_equal(sample.original, np.asarray(Image.open(photos / sample.id)))
        assert [draw.epoch for draw in sample.draws] == [1, 2, 3]
        assert sample.caption == dataset.caption(sample.key)


def test_a_large_original_is_made_smaller(tmp_path, skimage_data):
    picture = Image.open(skimage_data / "coffee.png").resize((1800, 1200))
    picture.save(tmp_path / "a.jpg")
    (view,) = gather(loader_of(calotype.text_to_image_dataset(path=tmp_path, resolution=256, missing_captions="empty")))
    (sample,) = view.samples
    assert sample.original.shape == (341, 512, 3)
    assert sample.geometry.original_size == (1200, 1800)
    assert np.abs(sample.original.astype(int) - np.asarray(picture.resize((512, 341)))).mean() < 2
    assert sample.tokens == ()


def test_draws_of_large_pictures_are_made_small_and_look_the_same(photos):
    dataset = dataset_of(photos, resolution=768, buckets={"max_upscale": 9})
    (view,) = gather(loader_of(dataset, batch_size=2), draws=2)
    for sample in view.samples:
        assert max(sample.image.shape) > 700
        for draw in sample.draws:
            full, geometry = dataset.image(sample.key._replace(epoch=draw.epoch))
            assert draw.geometry == geometry
            height, width = draw.image.shape[:2]
            assert max(height, width) == 512
            expected = Image.fromarray(full.permute(1, 2, 0).numpy()).resize((width, height), Image.Resampling.LANCZOS)
            assert psnr(draw.image, np.asarray(expected)) > 35


def test_custom_steps_draw_at_the_full_size(photos):
    seen = []
    dataset = dataset_of(photos, resolution=768, img_transform={"custom": lambda x: seen.append(tuple(x.shape)) or x})
    (view,) = gather(loader_of(dataset, batch_size=1), draws=1)
    assert min(max(shape) for shape in seen) >= 768
    assert max(view.samples[0].draws[0].image.shape) == 512


# --- What it takes


class CountingReader(ImageReader):
    def __init__(self):
        super().__init__()
        self.read_by_name = []

    def read(self, ref, **options):
        self.read_by_name.append(ref.name)
        return super().read(ref, **options)


def test_any_number_of_draws_takes_one_decode(photos):
    dataset = dataset_of(photos).with_reader(CountingReader())
    (view,) = gather(loader_of(dataset, batch_size=2, prefetch=1), draws=6)
    # Batches made ahead are the loader's own affair.
    assert [dataset.reader.read_by_name.count(sample.id) for sample in view.samples] == [2, 2]


def test_progress_tells_of_every_sample(photos):
    told = []
    gather(loader_of(dataset_of(photos)), batches=2, draws=0, progress=lambda *numbers: told.append(numbers))
    assert told == [(done, 6) for done in range(1, 7)]


def test_the_loader_goes_on_where_it_was(photos):
    loader = loader_of(dataset_of(photos, include=("id",)))
    expected = [digest(batch) for batch in loader]
    loader.load_state_dict({"epoch": 0})
    found = [digest(next(iter(loader)))]
    state = loader.state_dict()
    gather(loader, epoch=3, draws=0)
    assert loader.state_dict() == state
    assert found + [digest(batch) for batch in loader] == expected


# --- What can't be told


class Unsteady:
    """Another image at each call, whatever the seed."""

    def __init__(self):
        self.calls = 0

    def __call__(self, image):
        self.calls += 1
        return (image // 2 + self.calls % 100).to(torch.uint8)


def test_a_picture_that_cannot_be_repeated_is_marked(photos):
    dataset = dataset_of(photos, img_transform={"custom": Unsteady()})
    with pytest.warns(UserWarning, match="two different images"):
        views = gather(loader_of(dataset, threads=1))
    for sample, image in zip(samples_of(views), views[0].batch["img"], strict=True):
        np.testing.assert_array_equal(sample.image, denormalised(image))  # what is shown is what is trained
        assert not sample.repeatable
    assert render_page(views, title="t").count("no run will repeat this image") == 3


def test_a_model_transform_without_img_shows_what_it_was_given(photos):
    dataset = calotype.text_to_image_dataset(
        lambda sample: {"mean": sample["image"].float().mean((1, 2)), "text": sample["text"]},
        path=photos,
        resolution=128,
        **AUGMENT,
    )
    (view,) = gather(loader_of(dataset))
    for sample, mean in zip(view.samples, view.batch["mean"], strict=True):
        np.testing.assert_allclose(sample.image.mean((0, 1)), mean, atol=1e-3)
    assert [entry.key for entry in view.entries] == ["mean", "text"]


def test_uint8_pictures_of_a_batch_are_shown_as_they_are(photos):
    dataset = calotype.text_to_image_dataset(lambda sample: {"img": sample["image"]}, path=photos, resolution=128)
    (view,) = gather(loader_of(dataset))
    for sample, image in zip(view.samples, view.batch["img"], strict=True):
        np.testing.assert_array_equal(sample.image, image.permute(1, 2, 0).numpy())


def test_weights_show_a_repeat_as_one(tmp_path, photos):
    shutil.copy(photos / "00.jpg", tmp_path)
    (tmp_path / "data.jsonl").write_text('{"file_name": "00.jpg", "text": "a", "weight": 3}\n')
    dataset = dataset_of(tmp_path / "data.jsonl")
    views = gather(loader_of(dataset, batch_size=3), draws=1)
    assert sorted(sample.key.repeat for sample in samples_of(views)) == [0, 1, 2]
    assert {sample.draws[0].geometry for sample in samples_of(views)} == {
        dataset.image(SampleKey(0, 1, samples_of(views)[0].key.size))[1]
    }

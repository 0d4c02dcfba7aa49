"""text_to_image_dataset: what its options come to, and what it says of those that can't be."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from real_tokenizers import flux_tokenizers, sdxl_tokenizers

import calotype
from calotype.data.pixel_cache import PixelCache
from calotype.errors import (
    ConfigError,
    DecodeError,
    DecompressionBombError,
    MissingCaptionError,
    MissingTokenizerError,
)
from calotype.images import ImageReader
from calotype.images.locks import DECODING
from calotype.transforms import CaptionTransform, ImageTransform
from calotype.types import SampleKey


def load(photos, *args, **options):
    return calotype.text_to_image_dataset(*args, path=photos, **options)


def test_public_names_are_sorted_and_there():
    assert calotype.__all__ == [
        "BatchSampler",
        "Buckets",
        "CalotypeError",
        "CaptionTransform",
        "EncodedDataset",
        "FluxTransform",
        "ImageTransform",
        "Ledger",
        "Loader",
        "Manifest",
        "PixelsTransform",
        "Row",
        "SD3Transform",
        "SD15Transform",
        "SDXLTransform",
        "Sample",
        "SampleKey",
        "SampleSource",
        "TextToImageDataset",
        "build_dataset",
        "build_loader",
        "build_model_transform",
        "collate",
        "encode_dataset",
        "encoded_dataset",
        "get_spec",
        "list_specs",
        "load_config",
        "load_manifest",
        "preview",
        "text_to_image_dataset",
    ]
    for name in calotype.__all__:
        assert getattr(calotype, name) is not None


def test_captions_that_wait_for_a_trigger_are_not_trained_on_without_one(tmp_path, photos):
    rows = [("0.jpg", "{trigger} sits"), ("1.jpg", "a dog")]
    lines = [json.dumps({"image": str(photos / f"0{name}"), "caption": text}) for name, text in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=r"captions of 1 of 2 images have {trigger} in them .*set caption_t"):
        load(tmp_path / "rows.jsonl")
    lenient = load(tmp_path / "rows.jsonl", on_error="skip")
    assert lenient.manifest.ledger.counts() == {"placeholder": 1}
    dataset = load(tmp_path / "rows.jsonl", caption_transform={"trigger": "sks"})
    assert [dataset.caption(SampleKey(i)).text for i in range(2)] == ["sks sits", "sks, a dog"]


def test_a_trigger_hides_no_captions_that_were_not_recognised(tmp_path, photos):
    for name in ("00.jpg", "01.jpg"):
        (tmp_path / name).write_bytes((photos / name).read_bytes())
    trigger = {"caption_transform": {"trigger": "sks"}}
    assert load(tmp_path, **trigger).caption(SampleKey(0)).text == "sks", "nothing is there that was not read"
    (tmp_path / "README.txt").write_text("about these photos")
    assert load(tmp_path, **trigger).manifest.ledger.counts() == {"no_picture": 1}, "it is no caption"
    (tmp_path / "README.txt").rename(tmp_path / "captions.txt")
    with pytest.raises(MissingCaptionError, match=r"captions\.txt: a caption file with no image beside it"):
        load(tmp_path, **trigger)
    (tmp_path / "captions.txt").unlink()
    (tmp_path / "00.tags").write_text("1girl")
    with pytest.raises(MissingCaptionError, match=r"none of the 2 images .* 00\.tags: .*caption_suffix=\.tags"):
        load(tmp_path, **trigger)
    with pytest.raises(MissingCaptionError, match="none of the 2"):
        load(tmp_path, caption_transform={"template": "{caption}, film grain"}, on_error="skip")
    assert load(tmp_path, missing_captions="empty", **trigger).caption(SampleKey(0)).text == "sks", "a decision"
    assert load(tmp_path, caption_suffix=".tags", **trigger).caption(SampleKey(0)).text == "sks, 1girl"
    (tmp_path / "01.txt").write_text("a cat")
    assert load(tmp_path, **trigger).manifest.ledger.counts() == {"unused_captions": 1}, "some have captions: a warning"


def test_placeholders_of_other_programs_wait_for_a_trigger_too(tmp_path, photos):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": str(photos / "00.jpg"), "caption": "a [Trigger] sits"}))
    with pytest.raises(ConfigError, match=r"set caption_transform\.trigger"):
        load(tmp_path / "rows.jsonl")
    dataset = load(tmp_path / "rows.jsonl", caption_transform={"trigger": "sks"})
    assert dataset.caption(SampleKey(0)).text == "a sks sits"


def test_a_flux_sample(photos):
    dataset = load(
        photos,
        calotype.FluxTransform(*flux_tokenizers(), t5_max_seq_len=256),
        img_transform={"resize": [256, 192], "center_crop": True},
        caption_transform={"choose": "first"},
        include=("id", "text", "index", "captions"),
    )
    sample = dataset[4]
    assert sample["img"].shape == (3, 256, 192) and sample["img"].dtype == torch.float32
    assert sample["img"].min() >= -1 and sample["img"].max() <= 1
    assert sample["clip_text_tokens"].shape == (77,) and sample["t5_text_tokens"].shape == (256,)
    assert sample["id"] == "04.jpg" and sample["index"] == 4
    assert sample["text"] == "photo 4, red, green, blue" == sample["captions"][0]
    prepared = dataset.prepare(4)
    assert prepared["img"].dtype == torch.uint8
    assert torch.equal(dataset.finish(prepared)["img"], (prepared["img"] / 127.5) - 1)
    assert torch.equal(dataset[-8]["img"], sample["img"])
    with pytest.raises(IndexError, match="sample 12 of a dataset of 12"):
        dataset[12]


def test_sdxl_gets_the_numbers_of_its_geometry(photos):
    dataset = load(
        photos,
        calotype.SDXLTransform(*sdxl_tokenizers()),
        img_transform={"resize": 128, "center_crop": True},
        include=("id",),
    )
    sample = dataset[1]  # 480 × 320: resized to 192 × 128, then 32 columns go on each side
    assert sample["original_size"].tolist() == [320, 480]
    assert sample["crop_top_left"].tolist() == [0, 32]
    assert sample["target_size"].tolist() == [128, 128]


def test_a_bare_folder_gets_buckets_of_1024(photos):
    dataset = load(photos)
    assert dataset.buckets.resolution == (1024, 1024)
    assert all(side % 64 == 0 for size in dataset.buckets.sizes for side in size)


def test_the_model_fills_in_its_sizes(photos):
    dataset = load(photos, calotype.PixelsTransform(), model="sd-1.5")
    assert dataset.buckets.resolution == (512, 512)
    with pytest.raises(ConfigError, match=r"100.*16|16.*100"):
        load(photos, calotype.PixelsTransform(), model="flux.1-dev", resolution=100)
    with pytest.raises(ConfigError, match=r"250.*16|16.*250"):
        load(photos, calotype.PixelsTransform(), model="flux.1-dev", img_transform={"resize": [256, 250]})
    with pytest.raises(ConfigError, match="found multiple=24, expected a multiple of 16"):
        load(photos, calotype.PixelsTransform(), model="flux.1-dev", buckets={"multiple": 24})


def test_buckets_off_is_one_size(photos):
    dataset = load(photos, resolution=[96, 160], buckets=False)
    assert dataset.buckets is None
    assert {tuple(dataset[i]["img"].shape) for i in range(3)} == {(3, 96, 160)}


def test_a_sample_asked_by_number_goes_to_its_own_bucket(photos):
    dataset = load(photos, resolution=256)
    assigned, notes = dataset.scan()
    assert not notes
    for i in range(3):
        assert tuple(dataset[i]["img"].shape[1:]) == dataset.buckets.sizes[assigned[i]]
    assert tuple(dataset[SampleKey(0, size=(128, 64))]["img"].shape[1:]) == (128, 64)


def test_fast_decoding_is_near_and_exact_is_exact(skimage_data, tmp_path):
    from PIL import Image

    photo = Image.open(skimage_data / "astronaut.png").resize((2048, 2048), Image.Resampling.LANCZOS)
    photo.save(tmp_path / "big.jpg", quality=95)
    options = {"img_transform": {"resize": 256, "center_crop": True}, "missing_captions": "a photo"}
    exact, fast = (load(tmp_path, decode=decode, **options)[0]["img"] for decode in ("exact", "fast"))
    error = (exact - fast).mul(127.5).square().mean().sqrt()
    assert 0 < error < 1.5  # 255 / 1.5 is 44.6 dB


def test_missing_captions_and_triggers(skimage_data, tmp_path):
    (tmp_path / "cat.png").write_bytes((skimage_data / "chelsea.png").read_bytes())
    with pytest.raises(MissingCaptionError, match=r"cat\.png"):
        load(tmp_path)
    assert load(tmp_path, missing_captions="a cat").caption(0).text == "a cat"
    assert load(tmp_path, caption_transform={"trigger": "chelsea_cat"}).caption(0).text == "chelsea_cat"


def test_a_manifest_that_is_loaded_already(photos):
    manifest = calotype.load_manifest(photos).select([3, 1])
    dataset = load(manifest, calotype.PixelsTransform(), resolution=64)
    assert dataset.manifest is manifest
    with pytest.raises(ConfigError, match="recursive: come too late"):
        load(manifest, calotype.PixelsTransform(), recursive=False)


def test_include_takes_extra_columns(photos, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"image": str(photos / "00.jpg"), "text": "x", "artist": "A. N. Other"}) + "\n")
    options = {"img_transform": {"resize": 32, "center_crop": True}}
    assert load(file, include=("artist",), **options)[0]["artist"] == "A. N. Other"
    with pytest.raises(ConfigError, match="include: found 'artits', expected some of id, text"):
        load(file, include=("artits",), **options)


def test_a_bad_picture_is_the_callers_to_handle(tmp_path):
    (tmp_path / "page.jpg").write_text("<html><body>404</body></html>")
    with pytest.raises(DecodeError, match=r"page\.jpg: .*HTML"):
        load(tmp_path, missing_captions="empty")[0]


def test_tokenizers_that_cannot_be_had(photos, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingTokenizerError, match=r"FLUX\.1-dev"):
        load(photos, model="flux.1-dev")
    assert load(photos, calotype.PixelsTransform(), model="flux.1-dev", resolution=256)[0]["img"].dim() == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"packed": True}, "packed: found True"),
        ({"source": "x"}, "expected one of `path` or `source`"),
        ({"resolution": 256, "img_transform": {"resize": 256}}, "found resize, which decides the size"),
        (
            {"resolution": 256, "buckets": False, "img_transform": {"resize": 256}},
            "found resize, which decides the size",
        ),
        ({"img_transform": {"rezise": 256}}, "did you mean 'resize'"),
        ({"caption_transform": {"shufle_parts": 1}}, "did you mean 'shuffle_parts'"),
        ({"buckets": {"multipel": 8}}, "did you mean 'multiple'"),
        ({"resolution": "big"}, "resolution: found 'big'"),
        ({"background": [0, 0]}, r"background: found \[0, 0\]"),
        ({"pixel_cache": {"images": 3}}, "pixel_cache: .*did you mean .max_images"),
        ({"downloads": {"max_images": 3}}, "expected a `directory` among them"),
        ({"decode": "quick"}, "decode: expected 'exact' or 'fast'"),
        ({"model": "flux.1-dve"}, "flux.1-dev"),
        ({"column_mapp": {}}, "column_mapp"),
        ({"fetch": {"time_out": 3}}, "time_out"),
    ],
)
def test_wrong_options_name_the_right_ones(photos, options, message):
    with pytest.raises(ConfigError, match=message):
        load(photos, **options)


@pytest.mark.parametrize("options", [{"buckets": False}, {"resolution": 48}, {"img_transform": {"random_crop": True}}])
def test_twins_that_share_a_pixel_cache_never_share_another_ones_pixels(photos, options):
    dataset = load(photos, pixel_cache={"max_images": 1000}, seed=3, **({"resolution": 64} | options))
    fresh = dataset.with_cache(PixelCache(max_images=0))

    def same(twin, plain):
        return [torch.equal(twin[i]["img"], plain[i]["img"]) for i in range(len(plain))]

    for _ in range(2):  # the second time from the cache
        assert all(same(dataset, fresh))
        for rows in ([3, 2], [0], [1, 3, 0]):
            assert all(same(dataset.select(rows), fresh.select(rows)))
        assert all(same(dataset.select([3, 2]).select([1, 0]), fresh.select([2, 3])))
        for reader in (ImageReader(background=(9, 9, 9)), ImageReader(decode="fast")):
            assert all(same(dataset.with_reader(reader), fresh.with_reader(reader)))
    assert dataset.pixel_cache.hits
    strict = dataset.with_reader(ImageReader(max_pixels=10))  # refuses what the cache has already
    with pytest.raises(DecompressionBombError):
        strict[0]


def test_datasets_of_other_sizes_or_resampling_may_share_one_pixel_cache(photos):
    cache = PixelCache()
    for options in (
        {"img_transform": {"resize": [32, 48]}},
        {"img_transform": {"resize": [32, 48], "center_crop": True}},
        {"img_transform": {"resize": [32, 48], "interpolation": "bilinear"}},
        {"resolution": 64},
        {"resolution": 48},
        {"resolution": 64, "img_transform": {"random_crop": True}},
    ):
        plain = load(photos, **options)
        cached = plain.with_cache(cache)
        assert all(torch.equal(cached[i]["img"], plain[i]["img"]) for i in range(2) for _ in range(2))


def test_a_decoded_image_counts_until_it_is_resampled(photos, monkeypatch):
    used, resample = [], ImageTransform.resample
    monkeypatch.setattr(ImageTransform, "resample", lambda *args: (used.append(DECODING.used), resample(*args))[1])
    height, width = load(photos, resolution=64).image(0)[1].original_size
    assert used == [3 * height * width] and DECODING.used == 0


def test_folders_with_images_of_the_same_names_may_share_one_pixel_cache(tmp_path):
    cache = PixelCache()
    for level in (10, 200):
        (folder := tmp_path / f"{level}").mkdir()
        Image.new("RGB", (64, 64), (level, level, level)).save(folder / "a.png")
        dataset = load(folder, resolution=64, missing_captions="empty").with_cache(cache)
        assert dataset.image(0)[0].unique().tolist() == [level]


def test_what_the_data_gives_no_occasion_for_is_said(tmp_path, caplog):
    (tmp_path / "local.jsonl").write_text('{"image": "a.jpg", "caption": "a"}\n')
    away = {"downloads": str(tmp_path / "kept"), "fetch": {"retries": 0}}
    load(tmp_path / "local.jsonl", caption_transform={"choose": "longest"}, **away)
    said = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("note: dataset.fetch and downloads: no effect here, as no image of") for line in said)
    assert "note: dataset.caption_transform.choose: no effect here, as no image has more than one caption" in said
    caplog.clear()
    rows = '{"image": "https://example.org/a.jpg", "captions": ["a", "b"]}\n'
    (tmp_path / "data.jsonl").write_text(rows)
    load(tmp_path / "data.jsonl", downloads=str(tmp_path / "kept"), caption_transform={"choose": "longest"})
    assert not [record for record in caplog.records if "no effect" in record.getMessage()]


def test_recursive_is_for_folders(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"image": "a.jpg", "caption": "a"}\n')
    with pytest.raises(ConfigError, match=r"recursive: has no effect on .*data\.jsonl, which is no folder"):
        load(tmp_path / "data.jsonl", recursive=False)


def test_its_repr_says_what_it_is(photos):
    dataset = load(
        photos,
        model="sdxl",
        model_transform=calotype.PixelsTransform(),
        resolution=512,
        seed=3,
        img_transform={"random_crop": {"scale": [0.8, 1.0]}, "horizontal_flip": 0.5},
        caption_transform={"drop": 0.1},
    )
    assert "template" not in repr(CaptionTransform(trigger="sks")) and "template='of {caption}'" in repr(
        CaptionTransform(template="of {caption}")
    )
    assert repr(dataset).splitlines() == [
        f"TextToImageDataset({dataset.manifest!r}, sdxl, "
        f"{len(dataset.buckets.sizes)} buckets of 512×512 pixels or less, seed 3,",
        "    ImageTransform(random_crop=(0.8, 1.0), horizontal_flip=0.5),",
        "    CaptionTransform(drop=0.1))",
    ]
    assert str(photos) in repr(dataset.manifest) and f"{len(dataset)} " in repr(dataset.manifest)
    loader = calotype.Loader(dataset, 5, rank=1, world_size=2)
    assert repr(loader) == (
        f"Loader({len(loader)} batches of 5 per epoch, shuffled, seed 3, rank 1 of 2; next: epoch 0, batch 0; on cpu,\n"
        f"    {dataset!r})"
    )
    sampler = calotype.BatchSampler(dataset, 5, shuffle=False)
    sampler.load_state_dict({"epoch": 2})
    assert repr(sampler) == (
        f"BatchSampler({len(sampler)} batches of 5 per epoch, in the order of the rows, seed 3; next: epoch 2, batch 0)"
    )


def test_a_path_without_its_name_is_named():
    for found in ("photos", Path("photos")):
        with pytest.raises(ConfigError, match=r"model_transform: found 'photos', .* by name: path='photos'"):
            calotype.text_to_image_dataset(found)

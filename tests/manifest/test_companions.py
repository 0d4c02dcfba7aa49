"""Masks, control images, regularisation sets, samples of runs and caches: left out, and named."""

import json

import pytest

from calotype.editing import open_captions
from calotype.errors import ManifestError
from calotype.manifest import load_manifest
from calotype.manifest.folders.companions import find_companions


def companions(images, captions=(), others=()):
    return sorted(find_companions(sorted(images), captions, others).images)


@pytest.mark.parametrize(
    "name",
    [
        "a-masklabel.png",
        "a-condlabel.png",
        "a.mask.png",
        "a_mask.webp",
        "a-mask-01.png",
        "a.jpg.mask.png",
        "a_canny.png",
        "A_MASK.PNG",
        "masks/a.png",
        "mask/a_mask.png",
        "Mask_Images/mask_a.png",
        "conditioning_data/a.png",
        "control/deeper/a.png",
        "_controls/a.depth.jpg",
        "thumbnails/a.jpg",
        "cache/a.jpg",
        "model/sample/x.png",
        "out/samples/0 - a dog/y.png",
        "samples/x_e000001_00_20240101120000_12.png",
        "here/1700000000000__000000250_0.jpg",
        "run/samples/0 - hi/2024-01-01_12-00-00-training-sample-500-5-0.png",
        "output/samples/step-00000250-0.png",
        "output/validation_images/step_500_a_1024x1024.png",
        "output/samples/000250_0.png",
        "output/lora/samples/x.png",
        "control_1/a.jpg",
        "images_mask/a.png",
    ],
)
def test_what_belongs_to_an_image_or_a_run_is_no_sample(name):
    others = ["cache/a.npz", "model/x-000010.safetensors", "out/checkpoint-500/model.bin", "output/checkpoint-9/a.bin"]
    others.append("output/lora/lora_000001000.safetensors")
    images = ["a.jpg", "b.jpg", "A.jpg"]
    assert companions([*images, name], ["a.txt", "b.txt"], others) == [name]


@pytest.mark.parametrize(
    "names",
    [
        ["mask.jpg", "pose.jpg", "control.png"],  # words alone
        ["cat_mask.jpg"],  # no cat
        ["girl.jpg", "girl_pose.jpg", "boat.jpg", "tree.jpg"],  # one of many, and a word of photos
        ["masks/venice.jpg", "masks/kabuki.jpg", "a.jpg"],  # photos of masks
        ["samples/a.jpg", "samples/b.jpg"],  # nothing of a run beside them
        ["cache/a.jpg"],
        ["registry/a.jpg", "references.jpg"],
        ["step_500_a.png", "IMG_20240101_120000.jpg", "a__000000250.jpg"],
    ],
)
def test_names_that_only_look_so_are_samples(names):
    assert companions(names) == []


def test_depth_maps_of_half_the_images_are_no_accident():
    images = ["a.jpg", "b.jpg", "c.jpg"]
    assert companions([*images, "a_depth.png", "b_depth.png"]) == ["a_depth.png", "b_depth.png"]
    assert companions([*images, "a_depth.png"]) == []


def test_words_before_a_name_tell_as_much_where_half_of_the_images_have_them():
    images = ["1.jpg", "2.jpg", "mask_1.png", "mask_2.png"]
    assert companions(images) == ["mask_1.png", "mask_2.png"]
    assert companions(["1.jpg", "mask_1.jpg", "boat.jpg", "tree.jpg"]) == []


def test_how_many_names_make_a_kind_of_companion():
    def left_out(folder, names, mirrored, captions=()):
        inside = [f"{folder}/{number}.png" for number in range(names)]
        found = companions([*inside, *(f"{number}.jpg" for number in range(mirrored))], captions)
        assert found in ([], inside)
        return bool(found)

    plain = [f"{letter}.jpg" for letter in "abcde"]
    depths = ["a_depth.png", "b_depth.png"]
    assert companions([*plain[:4], *depths]) == depths and companions([*plain, *depths]) == []
    assert companions(["a.jpg", "a_depth.png"]) == []
    assert left_out("masks", 4, 2) and not left_out("masks", 9, 4)
    assert left_out("depth", 5, 4) and not left_out("depth", 4, 3)
    half = ["masks/0.txt", "masks/1.txt"]
    assert left_out("masks", 4, 4, half) and not left_out("masks", 4, 4, [*half, "masks/2.txt"])


def test_a_cache_of_an_image_beside_it_is_no_checkpoint():
    assert companions(["a.jpg", "samples/b.jpg"], others=["a_1024x1024_flux.safetensors"]) == []
    assert companions(["a.jpg", "samples/b.jpg"], others=["my_lora.safetensors"]) == ["samples/b.jpg"]


def test_images_with_captions_of_their_own_are_samples_and_reported_as_doubtful():
    images = ["1.jpg", "2.jpg", "pose/1.jpg", "pose/2.jpg"]
    found = find_companions(images, ["pose/1.txt", "pose/2.txt"], [])
    assert not found.images and "pose/" in found.doubts[0] and "exclude" in found.doubts[0]
    found = find_companions(["masks/venice.jpg", "a.jpg"], [], [])
    assert "exclude='/masks/' leaves it out" in found.doubts[0]


def test_they_are_left_out_with_their_captions_and_named(put):
    put("a.jpg"), put("a.txt", "a"), put("a-masklabel.png"), put("masks/a.png"), put("masks/a.txt", "a")
    put("b.jpg"), put("b.txt", "b"), put("masks/b.png")
    manifest = load_manifest(put.root)
    assert manifest.ids.to_pylist() == ["a.jpg", "b.jpg"]
    assert [(entry.kind, entry.id.removeprefix(f"{put.root}/")) for entry in manifest.ledger] == [
        ("companion", "a-masklabel.png"),
        ("companion", "masks/a.png"),
        ("companion", "masks/b.png"),
    ]
    about = manifest.describe()
    assert about["left_out"] == {"companion": 3}
    assert "a-masklabel.png and 2 more" in " ".join(about["notes"])
    assert list(open_captions(put.root).read()) == ["a.jpg", "b.jpg"]


def test_what_a_metadata_file_lists_is_a_sample(put):
    put("a.jpg"), put("a_mask.png"), put("b.jpg"), put("b_mask.png")
    lines = [{"file_name": name, "text": name} for name in ("a.jpg", "b.jpg", "b_mask.png")]
    put("metadata.jsonl", "\n".join(map(json.dumps, lines)))
    manifest = load_manifest(put.root)
    assert sorted(manifest.ids.to_pylist()) == ["a.jpg", "b.jpg", "b_mask.png"]
    assert [entry.id for entry in manifest.ledger] == [str(put.root / "a_mask.png")]


def test_a_glob_takes_no_masks_along(put):
    put("a.png"), put("a.txt", "x"), put("a-masklabel.png")
    manifest = load_manifest(str(put.root / "*.png"))
    assert manifest.ids.to_pylist() == ["a.png"]
    assert manifest.ledger.counts() == {"companion": 1}


# ------------------------------------------------------------------------------------------------------------- kohya


def test_kohyas_project_root_has_repeats_and_leaves_regularisation_images_out(put):
    put("img/10_ohwx dog/a.jpg"), put("img/10_ohwx dog/a.txt", "x"), put("img/2_ohwx dog/below/b.jpg")
    put("reg/1_dog/c.jpg"), put("reg/1_dog/c.txt", "a dog")
    put("model/sample/ohwx_000500_00_20240101120000.png"), put("model/ohwx.safetensors", "x"), put("log/events", "x")
    manifest = load_manifest(put.root)
    assert [(row.id, row.weight, row.captions) for row in manifest] == [
        ("img/10_ohwx dog/a.jpg", 10, ("x",)),
        ("img/2_ohwx dog/below/b.jpg", 2, ("ohwx dog",)),
    ]
    assert manifest.ledger.counts() == {"regularisation": 1, "companion": 1}
    assert "reg/1_dog/c.jpg" in " ".join(manifest.describe()["notes"])
    states = open_captions(put.root).read()
    assert {id: state.captions for id, state in states.items()} == {row.id: row.captions for row in manifest}


def test_the_innermost_repeat_folder_counts(put):
    put("5_all/3_cat/a.jpg"), put("5_all/b.jpg")
    assert [(row.id, row.weight, row.captions) for row in load_manifest(put.root)] == [
        ("5_all/3_cat/a.jpg", 3, ("cat",)),
        ("5_all/b.jpg", 5, ("all",)),
    ]


def test_a_regularisation_folder_passed_as_path_is_read(put):
    put("img/10_x/a.jpg"), put("reg/1_dog/c.jpg")
    manifest = load_manifest([put.root / "img", put.root / "reg"])
    assert [(row.id, row.weight) for row in manifest] == [("img/10_x/a.jpg", 10), ("reg/1_dog/c.jpg", 1)]
    (put.root / "img" / "10_x" / "a.jpg").unlink()
    with pytest.raises(ManifestError, match=r"no row is left: .*reg/1_dog/c\.jpg: in reg/, a folder of regularisation"):
        load_manifest(put.root)

"""`calotype preview` from the command line, `dataset.preview()` as a notebook has it, and the sheet they can save."""

import html
import json
import shutil

import numpy as np
import pytest
import torch
from command import calotype as command
from page_tree import plain, read_page
from PIL import Image
from preview_examples import CAPTIONS, all_samples, example, round_trip, sample
from preview_examples import batch as batch_of
from tiny_pipelines import tiny_pipeline

import calotype
from calotype.errors import ConfigError
from calotype.previews import Preview, preview
from calotype.previews.crop import corners
from calotype.previews.sheet import contact_sheet


def run(*arguments):
    out, _ = command(*arguments)
    return out.splitlines()


@pytest.fixture
def config(photos, tmp_path):
    path = tmp_path / "photos.yaml"
    path.write_text(
        f"dataset:\n  path: {photos}\n  img_transform: {{resize: 288, random_crop: true, horizontal_flip: 0.5}}\n"
        "  caption_transform: {trigger: calotypist, shuffle_parts: 0.5}\n"
        "loader: {batch_size: 4, seed: 3, threads: 2}\n"
    )
    return path


def trained(config, *, epoch, **options):
    """The batches that a training run with this config gets."""
    config = calotype.load_config(config, ["dataset.include=[id,text]"])
    config["loader"] |= {"in_process": True} | options
    loader = calotype.build_loader(config)
    loader.load_state_dict({"epoch": epoch})
    return list(loader)


def tiles(batch):
    return ((batch["img"] + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


# --- The command


def test_a_page_of_what_training_gets(config, tmp_path):
    page = tmp_path / "deep" / "page.html"
    (line,) = run("preview", config, "-o", page, "--epoch", 2, "--batches", 2, "--seed", 8, "--draws", 1, "--json")
    document = json.loads(line)
    assert document["output"] == str(page)
    assert document["bytes"] == page.stat().st_size
    batches = trained(config, epoch=2, seed=8)[:2]
    for told, batch in zip(document["batches"], batches, strict=True):
        assert [one["id"] for one in told["samples"]] == batch["id"]
        assert [one["text"] for one in told["samples"]] == batch["text"]
        assert all(one["repeatable"] and one["stands_in_for"] is None for one in told["samples"])
        assert (told["epoch"], told["seed"]) == (2, 8)
    articles = read_page(page.read_text("utf-8")).all("article")
    assert [article["data-id"] for article in articles] == [id for batch in batches for id in batch["id"]]
    finals = [plain(article.one("p", class_="final"), without=("del",)) for article in articles]
    assert finals == [text for batch in batches for text in batch["text"]]
    assert {len(article.all(class_="draw")) for article in articles} == {1}


def test_a_section_that_is_null_is_none(photos, tmp_path):
    path, page = tmp_path / "photos.yaml", tmp_path / "page.html"
    path.write_text(f"dataset: {{path: {photos}, resolution: 256}}\nloader:\n")
    assert run("preview", path, "-o", page, "--batches", 1, "--draws", 0)[-1] == f"Open {page}"


def test_a_sheet_with_the_trained_pixels_in_it(config, tmp_path):
    sheet = tmp_path / "sheet.PNG"
    assert run("preview", config, "-o", sheet, "--batches", 1)[-1] == f"Open {sheet}"
    pixels = np.asarray(Image.open(sheet))
    (batch, *_) = trained(config, epoch=0)
    for place, tile in enumerate(tiles(batch)):  # 288 px is the size of a tile: drawn as it is
        corner = np.argwhere((pixels[: -287 or None, :-287] == tile[0, 0]).all(-1))
        assert any((pixels[y : y + 288, x : x + 288] == tile).all() for y, x in corner), place


@pytest.mark.parametrize("where", ["at the top", "in encodings"])
def test_with_encodings_the_page_shows_the_images_that_are_encoded(photos, tmp_path, where):
    pytest.importorskip("diffusers")
    model = f"model: {tiny_pipeline('flux.1-dev')}"
    path = tmp_path / "photos.yaml"
    path.write_text(
        f"dataset: {{path: {photos}, resolution: 64, img_transform: {{horizontal_flip: 0.5}}, include: [id, text]}}\n"
        f"{model if where == 'at the top' else ''}\n"
        f"encodings:\n  store: {tmp_path / 'store'}\n  on_the_fly: true\n"
        f"{'  ' + model if where == 'in encodings' else ''}\n"
        "loader: {batch_size: 4, seed: 3}\n"
    )
    out, err = command("preview", path, "-o", tmp_path / "page.html", "--draws", 0, "--batches", 2, "--json")
    assert "variants" not in err
    told = json.loads(out)["batches"]
    with calotype.build_loader(calotype.load_config(path, ["loader.in_process=true"])) as loader:
        batches = [batch for batch, _ in zip(loader, told, strict=False)]
    assert [[one["id"] for one in batch["samples"]] for batch in told] == [batch["id"] for batch in batches]
    assert [[one["text"] for one in batch["samples"]] for batch in told] == [batch["text"] for batch in batches]
    assert "t5_text_tokens" in (tmp_path / "page.html").read_text("utf-8")  # the model's tokens are on the page, too


def test_with_variants_a_note_says_what_the_page_samples(photos, tmp_path):
    path = tmp_path / "photos.yaml"
    path.write_text(
        f"dataset: {{path: {photos}, resolution: 64, img_transform: {{random_crop: true}}}}\n"
        f"model: {tiny_pipeline('flux.1-dev')}\nencodings: {{image_variants: 2}}\n"
    )
    _, err = command("preview", path, "-o", tmp_path / "page.html", "--draws", 0, "--batches", 1)
    assert err.count("training reads the stored variants") == 1


def test_encoded_adds_the_encoded_tensors_and_what_the_autoencoder_keeps(photos, tmp_path):
    pytest.importorskip("diffusers")
    path, page = tmp_path / "photos.yaml", tmp_path / "page.html"
    path.write_text(
        f"dataset: {{path: {photos}, resolution: 64}}\nmodel: {tiny_pipeline('flux.1-dev')}\n"
        f"encodings: {{store: {tmp_path / 'store'}, on_the_fly: true}}\nloader: {{batch_size: 2, seed: 3}}\n"
    )
    options = ["-o", page, "--draws", 0, "--batches", 2]
    run("preview", path, *options)
    assert not (tmp_path / "store").exists()  # a preview needs no encoders
    run("preview", path, *options, "--encoded")
    read = read_page(page.read_text("utf-8"))
    assert [table.all("code")[0].text() for table in read.all("table", class_="tensors")] == ["img", "latents"] * 2
    assert len(read.all("figure", class_="round-trip")) == len(read.all("article")) > 2


def test_the_round_trip_of_the_command(photos, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2).save_pretrained(tmp_path / "pipeline" / "vae")
    page = tmp_path / "page.html"
    options = ["--batches", 1, "--draws", 0, "--autoencoder", tmp_path / "pipeline", "-o", page, "--json"]
    (line,) = run("preview", photos, "resolution=128", *options)
    (told,) = json.loads(line)["batches"][0]["samples"]
    figure = read_page(page.read_text("utf-8")).one("figure", class_="round-trip")
    assert f"PSNR {told['psnr']:.1f} dB" in figure.text()
    assert 0 < told["psnr"] < 40


def test_a_line_says_what_to_look_at_first(tmp_path, skimage_data):
    for name in ("coffee.png", "chelsea.png"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        shutil.copy(skimage_data / name, tmp_path / "photos")
    shutil.copy(skimage_data / "coffee.png", tmp_path / "photos" / "copy.png")
    (tmp_path / "photos" / "chelsea.txt").write_text("a cat")
    arguments = ["preview", tmp_path / "photos", "missing_captions=empty", "--draws", 0, "-o", tmp_path / "p.html"]
    line, last = run(*arguments, "resolution=512")
    assert line == "3 samples: 3 enlarged, 2 without a caption, 2 duplicates"
    assert last == f"Open {tmp_path / 'p.html'}"
    document = json.loads(run(*arguments, "resolution=128", "--json")[0])
    found = {one["id"]: one["badges"] for batch in document["batches"] for one in batch["samples"]}
    assert found["coffee.png"] == found["copy.png"] == ["no-caption", "duplicate"] and found["chelsea.png"] == []


# --- In a notebook


def test_a_notebook_shows_the_page_in_a_frame_of_its_own(photos):
    dataset = calotype.text_to_image_dataset(path=photos, resolution=128)
    made = dataset.preview(batch_size=2, seed=4, epoch=1, draws=1)
    frame = read_page(made._repr_html_()).one("iframe")
    assert frame["srcdoc"] == made.to_html()
    assert frame["sandbox"] == "allow-scripts"  # and so not of the notebook's origin
    assert frame["title"].startswith("Preview of photos")
    assert repr(made).endswith("1 batches, 2 samples)")
    loader = calotype.Loader(dataset, 2, seed=4, in_process=True)
    loader.load_state_dict({"epoch": 1})
    assert torch.equal(made.batches[0].batch["img"], next(iter(loader))["img"])


def test_calotype_preview_is_what_the_method_hands_on_to(photos):
    dataset = calotype.text_to_image_dataset(path=photos, resolution=32)
    made = calotype.preview(dataset, batch_size=2, seed=4, draws=0)
    assert made.to_html() == dataset.preview(batch_size=2, seed=4, draws=0).to_html()
    for option in ({"batch_size": 2}, {"seed": 4}):
        with pytest.raises(ConfigError, match=f"preview: {next(iter(option))} has no effect on a Loader"):
            calotype.preview(calotype.Loader(dataset, in_process=True), **option)


def test_a_preview_of_a_loader_with_options_of_its_own(photos, tmp_path):
    dataset = calotype.text_to_image_dataset(path=photos, resolution=128, include=("id",))
    loader = calotype.Loader(dataset, 5, remainder="repeat", shuffle=False, in_process=True)
    made = preview(loader, batches=2)
    assert [view.batch["id"] for view in made.batches] == [batch["id"] for batch in list(loader)[:2]]
    assert made.save(tmp_path / "a.html").read_text("utf-8") == made.to_html()


@pytest.mark.parametrize("name", ["page.pdf", "page"])
def test_another_ending_names_both(tmp_path, name):
    with pytest.raises(ConfigError, match=rf"{name}'; expected a name that ends in \.html .* or \.png"):
        Preview((), title="t").save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# --- The sheet


def yellow(pixels):
    return (np.abs(pixels.astype(int) - (255, 214, 10)) <= 2).all(-1)


def test_the_frame_on_the_sheet_is_the_crop():
    view = sample("coffee.png", draws=0)
    pixels = np.asarray(contact_sheet([batch_of([view])], title="t"))
    height, width = view.geometry.original_size
    scale = 184 / max(height, width)
    left, top = 20 + 288 + 8, 20 + 18 + 20 + 18 + 8
    found = np.argwhere(yellow(pixels[top : top + 184, left : left + 184]))
    x, y = np.array(corners(view.geometry)).T * scale
    expected = [y.min(), x.min(), y.max(), x.max()]
    np.testing.assert_allclose([*found.min(0), *found.max(0)], expected, atol=1.5)


def test_a_sheet_of_everything():
    batches = example()
    sheet = contact_sheet(batches, title="photos")
    assert sheet.mode == "RGB"
    assert sheet.width == 2 * 20 + 2 * 480 + 20
    # Every sample has its image: as many tiles' left upper corners as there are samples.
    pixels = np.asarray(sheet)
    for view in all_samples(batches):
        small = Image.fromarray(view.image)
        small.thumbnail((288, 288), Image.Resampling.LANCZOS, reducing_gap=None)
        tile = np.asarray(small)
        corner = np.argwhere((pixels == tile[0, 0]).all(-1))
        h, w = tile.shape[:2]
        assert any(np.array_equal(pixels[y : y + h, x : x + w], tile) for y, x in corner), view.id


def test_a_longer_caption_takes_more_lines_up_to_four():
    def height(words):
        view = sample("coffee.png", draws=0, captions=(" ".join(["word"] * words),), round_trip=None)
        return contact_sheet([batch_of([view])], title="t").height

    assert height(1) < height(30) < height(60) <= height(90) == height(2000)


def test_no_batches_still_make_a_sheet():
    assert contact_sheet([], title="a title much longer than an empty sheet is wide " * 3).width > 400


def test_a_psnr_and_a_stand_in_do_not_break_the_line():
    view = sample("coffee.png", draws=0)
    plain_sheet = contact_sheet([batch_of([view])], title="t")
    more = sample("coffee.png", draws=0, round_trip=round_trip(view.image), stands_in_for="a/very/long/name" * 20)
    assert contact_sheet([batch_of([more])], title="t").size == plain_sheet.size


def test_the_captions_of_a_hostile_folder_are_text(tmp_path, skimage_data):
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(skimage_data / "coffee.png", folder / "a&b.png")
    caption = f"<script>alert(1)</script>, {CAPTIONS['coffee.png']}"
    (folder / "a&b.txt").write_text(caption)
    page = tmp_path / "page.html"
    run("preview", folder, "resolution=256", "-o", page)
    source = page.read_text("utf-8")
    assert html.escape("<script>alert(1)") in source
    assert source.count("<script>") == 1  # the page's own
    assert plain(read_page(source).one("p", class_="final")) == caption

"""Batches to show, made from real photos by the programs that train, for the tests of the page."""

import functools
from pathlib import Path

import numpy as np
import skimage
import torch
from page_tree import read_page
from PIL import Image

from calotype.loader.summary import describe_batch
from calotype.models.pieces import TokenPiece
from calotype.previews.page import render_page
from calotype.previews.views import BatchView, Draw, RoundTrip, SampleView, TokenView
from calotype.transforms import CaptionTransform, ImageTransform
from calotype.types import SampleKey

FOLDER = Path(skimage.__file__).parent / "data"

CAPTIONS = {
    "coffee.png": "a cup of espresso on a saucer, a spoon, brown wooden table, soft light from the left",
    "chelsea.png": "a tabby cat looking to the side, close-up, green eyes, warm light",
    "astronaut.png": "an astronaut in an orange suit, smiling, flag in the background, model of a shuttle",
    "rocket.jpg": "a rocket on its launch pad at night, floodlights, smoke, dark sky",
    "hubble_deep_field.jpg": "thousands of galaxies, deep field, black sky, spirals and ellipses",
    "motorcycle_left.png": "a motorcycle in a workshop, chrome, tools on the wall, concrete floor",
    "retina.jpg": "the retina of an eye, blood vessels, red on black",
    "ihc.png": "stained tissue under a microscope, brown and blue cells",
}
HOSTILE_CAPTION = (
    "<script>alert(1)</script> \"quoted\" & 'single', nul \x00, back \x08, turned \u202etxet\u202c, é 猫 🐈"
)
HOSTILE_ID = '"><img src=x onerror=alert(2)>\u202egpj.exe'

GEOMETRY = ImageTransform(random_crop={"scale": [0.6, 1.0]}, horizontal_flip=0.5, color_jitter={"brightness": 0.2})
WORDS = CaptionTransform(shuffle_parts=0.6, drop_parts=0.2, keep_parts=1, trigger="cpelletier")


@functools.cache
def photo(name):
    """uint8 (H, W, 3)."""
    return np.asarray(Image.open(FOLDER / name).convert("RGB"))


def enlarged(pixels, side):
    """The image at a larger size, with the noise of a sensor, so that it weighs what a real photo does."""
    height, width = pixels.shape[:2]
    scale = side / min(height, width)
    large = np.asarray(Image.fromarray(pixels).resize((round(width * scale), round(height * scale))))
    noise = np.random.default_rng(0).normal(0, 6, large.shape[:2])[..., None]
    return (large + noise).round().clip(0, 255).astype(np.uint8)


def small(pixels, side=512):
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    return np.asarray(image)


def trained(pixels, program, key, seed=0):
    """The sample's pixels, uint8 (H, W, 3), and its geometry."""
    geometry = program.draw(pixels.shape[:2], key, seed)
    image = program.finish(program.resample(pixels, geometry), geometry, key, seed)
    return image.permute(1, 2, 0).numpy(), geometry


def pieces(text, limit=77):
    """A tokenizer of the simplest kind: every word is one token."""
    words = text.split()
    kept, cut = words[: limit - 2], words[limit - 2 :]
    return TokenView(
        key="clip_text_tokens",
        pieces=(
            TokenPiece(text="<|startoftext|>", id=49406, kind="frame"),
            *(TokenPiece(text=f"{word} ", id=1000 + len(word), kind="text") for word in kept),
            *(TokenPiece(text=f"{word} ", id=1000 + len(word), kind="cut") for word in cut),
            TokenPiece(text="<|endoftext|>", id=49407, kind="frame"),
        ),
        limit=limit,
        padding=limit - len(kept) - 2,
    )


def sample(
    name,
    *,
    index=0,
    size=(384, 512),
    program=GEOMETRY,
    words=WORDS,
    captions=None,
    draws=3,
    tokens=pieces,
    pixels=None,
    **changes,
):
    """One photo as a sample, with the further draws of the epochs after the first."""
    pixels = photo(name) if pixels is None else pixels
    captions = (CAPTIONS[name],) if captions is None else captions
    image, geometry = trained(pixels, program, SampleKey(index, 0, size))
    others = []
    for epoch in range(1, draws + 1):
        key = SampleKey(index, epoch, size)
        other, where = trained(pixels, program, key)
        others.append(Draw(epoch=epoch, image=other, geometry=where, text=words.draw(captions, key, 0).text))
    caption = words.draw(captions, SampleKey(index, 0, size), 0)
    made = tokens(caption.text)
    values = {
        "key": SampleKey(index, 0, size),
        "id": name,
        "original": small(pixels),
        "geometry": geometry,
        "image": image,
        "draws": tuple(others),
        "caption": caption,
        "captions": len(captions),
        "tokens": made if isinstance(made, tuple) else (made,),
        "round_trip": None,
    }
    return SampleView(**values | changes)


def round_trip(image):
    """An image as a strong JPEG gives it back: what an autoencoder's loss looks like, roughly."""
    import io

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=30)
    back = np.asarray(Image.open(buffer))
    error = np.mean((image.astype(float) - back.astype(float)) ** 2)
    return RoundTrip(image=back, psnr=float(10 * np.log10(255**2 / error)))


def batch(samples, *, epoch=0, step=0):
    """A batch of samples of one size."""
    images = torch.stack([torch.from_numpy(np.array(s.image)).permute(2, 0, 1) for s in samples])
    tokens = torch.randint(0, 49407, (len(samples), 77), generator=torch.Generator().manual_seed(0))
    tensors = {"img": images / 127.5 - 1, "clip_text_tokens": tokens}
    values = tensors | {"id": [s.id for s in samples], "text": [s.caption.text for s in samples]}
    return BatchView(
        epoch=epoch,
        step=step,
        steps=12,
        seed=0,
        batch=values,
        entries=describe_batch(values),
        samples=tuple(samples),
    )


def example():
    """Two batches with everything that a page can show, hostile texts among it."""
    turned = ImageTransform(random_crop={"scale": [0.4, 0.6]}, rotate=20, vertical_flip=0.5)
    dropping = CaptionTransform(drop=1.0)
    cat = sample("chelsea.png", index=2, captions=(CAPTIONS["chelsea.png"], "a cat"), size=(384, 512))
    first = [
        sample("coffee.png", index=1),
        sample("motorcycle_left.png", index=3, program=turned, words=dropping, stands_in_for="broken/<b>.jpg"),
        SampleView(**{f: getattr(cat, f) for f in cat.__slots__} | {"round_trip": round_trip(cat.image)}),
        sample(
            "astronaut.png",
            index=4,
            captions=(f"{HOSTILE_CAPTION}, {' '.join(['word'] * 90)}",),
            words=CaptionTransform(),
            id=HOSTILE_ID,
        ),
    ]
    portrait = ImageTransform(resize=[640, 320], center_crop=True)
    second = [
        sample("rocket.jpg", index=5, size=(640, 320), program=portrait, words=CaptionTransform(), draws=1),
        sample("hubble_deep_field.jpg", index=6, size=(640, 320), program=portrait, draws=0, tokens=lambda _: ()),
    ]
    return [batch(first), batch(second, step=1)]


def all_samples(batches):
    return [view for made in batches for view in made.samples]


def show(*samples, title="t"):
    return read_page(render_page([batch(samples)], title=title))

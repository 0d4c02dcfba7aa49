"""The panel's controls are those of the config's schema: none is listed by hand, and none is missing."""

from calotype.config.caption_transform import CaptionTransformConfig
from calotype.config.img_transform import ImageTransformConfig
from calotype.config.section import Section
from calotype.studio.controls import controls_of


def by_path(section):
    return {".".join(one["path"]): one for one in controls_of(section)}


def test_every_option_but_code_has_a_control():
    image, caption = by_path(ImageTransformConfig), by_path(CaptionTransformConfig)
    assert {path.partition(".")[0] for path in image} == set(ImageTransformConfig.model_fields) - {"custom"}
    assert set(caption) == set(CaptionTransformConfig.model_fields) - {"custom"}
    kinds = {path: one["kind"] for path, one in (image | caption).items()}
    assert kinds == {
        "resize": "size",
        "center_crop": "tick",
        "random_crop": "tick",
        "random_crop.scale": "range",
        "horizontal_flip": "slider",
        "vertical_flip": "slider",
        "color_jitter.brightness": "slider",
        "color_jitter.contrast": "slider",
        "color_jitter.saturation": "slider",
        "color_jitter.hue": "slider",
        "rotate": "slider",
        "interpolation": "choice",
        "drop": "slider",
        "shuffle_parts": "slider",
        "drop_parts": "slider",
        "keep_parts": "count",
        "separator": "text",
        "choose": "choice",
        "trigger": "text",
        "template": "text",
        "repeat_trigger": "tick",
    }
    assert image["interpolation"]["choices"] == ["lanczos", "bicubic", "bilinear"]
    assert (image["horizontal_flip"]["true"], caption["shuffle_parts"]["true"]) == (0.5, 1.0)
    assert (image["color_jitter.hue"]["max"], image["color_jitter.contrast"]["max"], image["rotate"]["max"]) == (
        0.5,
        1,
        180,
    )
    assert all(one["help"] and one["label"] for one in (image | caption).values())


class Tomorrow(Section):
    """An option that does not exist yet."""

    blur_radius: float = 0.0
    """How far."""


def test_a_new_option_has_a_control():
    (control,) = controls_of(Tomorrow)
    assert control == {
        "path": ["blur_radius"],
        "label": "Blur radius",
        "help": "How far.",
        "default": 0.0,
        "kind": "slider",
        "max": 1,
        "step": 0.01,
    }

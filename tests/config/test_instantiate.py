"""`_component_` mappings become objects; what is wrong with one is said before anything runs."""

from __future__ import annotations

import pytest

from calotype.config.instantiate import build, locate
from calotype.errors import ConfigError


def test_locates_functions_classes_and_attributes_of_classes():
    import json
    import pathlib

    assert locate("json.dumps") is json.dumps
    assert locate("pathlib.Path.home") == pathlib.Path.home
    assert locate("json.decoder") is json.decoder


def test_builds_from_the_inside_out():
    built = build(
        {
            "_component_": "types.SimpleNamespace",
            "share": {"_component_": "fractions.Fraction", "numerator": 3, "denominator": 4},
            "shares": [{"_component_": "fractions.Fraction", "numerator": 1}, 2],
            "plain": {"resize": [256, 256]},
        },
        where="dataset",
    )
    assert float(built.share) == 0.75
    assert built.shares[0].denominator == 1
    assert built.shares[1] == 2
    assert built.plain == {"resize": [256, 256]}


def test_positional_arguments_come_first_and_defaults_give_way_to_options():
    built = build(
        {"_component_": "builtins.dict", "b": 2, "c": 3},
        [("a", 1)],
        where="x",
        b="default",
        d=4,
    )
    assert built == {"a": 1, "b": 2, "c": 3, "d": 4}


def test_what_is_not_a_component_passes_through_and_is_not_shared():
    config = {"resize": [256, 256], "flip": 0.5, "name": None}
    built = build(config, where="img_transform")
    assert built == config
    assert built is not config
    assert built["resize"] is not config["resize"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("dumps", "'dumps' is not a dotted path such as 'package.module.name'"),
        (".json.dumps", "is not a dotted path"),
        (5, "5 is not a dotted path"),
        ("json.dumpz", r"'json.dumpz': 'json' has no 'dumpz'; did you mean dump or dumps\?"),
        ("jsonn.dumps", "no module 'jsonn' to find 'jsonn.dumps' in; is its package installed?"),
        ("json.decoder.JSONDecoder.decoed", "'json.decoder.JSONDecoder' has no 'decoed'; did you mean decode"),
    ],
)
def test_a_path_that_leads_nowhere_says_where_it_stopped(path, message):
    with pytest.raises(ConfigError, match=message):
        locate(path)


def test_a_module_that_does_not_import_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "calotype_broken.py").write_text("import calotype_not_there\n")
    (tmp_path / "calotype_halved.py").write_text("from json import nothing_such\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="importing 'calotype_broken' failed: No module named 'calotype_not_there'"):
        locate("calotype_broken.Thing")
    with pytest.raises(ConfigError, match="importing 'calotype_halved' failed: cannot import name 'nothing_such'"):
        locate("calotype_halved.Thing")


def test_a_misspelt_option_is_an_error_that_names_the_right_one():
    config = {"crop": {"_component_": "torchvision.transforms.v2.GaussianBlur", "kernal_size": 3}}
    with pytest.raises(ConfigError) as caught:
        build(config, where="img_transform")
    message = str(caught.value)
    assert "img_transform.crop (torchvision.transforms.v2.GaussianBlur)" in message
    assert "unknown option 'kernal_size'; did you mean 'kernel_size'?" in message
    assert "sigma" in message


def test_a_missing_argument_is_named():
    with pytest.raises(ConfigError, match=r"blur: torchvision\S+ can't be called with \['sigma'\].*'kernel_size'"):
        build({"_component_": "torchvision.transforms.v2.GaussianBlur", "sigma": 1.0}, where="blur")


def test_an_argument_given_twice_is_an_error():
    with pytest.raises(ConfigError, match="multiple values for argument 'numerator'"):
        build({"_component_": "fractions.Fraction", "numerator": 1}, 1, where="share")


def test_what_can_not_be_called_is_said_so():
    with pytest.raises(ConfigError, match=r"share: 'json.decoder' is a module; expected a class or a function"):
        build({"_component_": "json.decoder"}, where="share")


def test_an_error_of_the_component_itself_keeps_its_type_and_says_what_was_being_built():
    with pytest.raises(ZeroDivisionError) as caught:
        build({"a": {"_component_": "fractions.Fraction", "numerator": 1, "denominator": 0}}, where="share")
    assert caught.value.__notes__ == ["while building share.a: fractions.Fraction"]

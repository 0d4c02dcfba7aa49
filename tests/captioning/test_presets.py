"""Presets: plain files that say what to ask for."""

import pytest
from PIL import Image

from calotype.captioning.presets import VARIABLES, CaptionPreset, list_presets, load_preset
from calotype.errors import ConfigError

NAMES = ["descriptive", "short", "style", "subject", "tags"]


@pytest.fixture
def saved(tmp_path):
    def save(text, name="mine.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return save


def test_those_that_come_with_it():
    presets = list_presets()
    assert [preset.name for preset in presets] == NAMES
    for preset in presets:
        assert preset.about
        prompt = preset.prompt({})  # none needs anything
        assert "{" not in prompt and "\n" not in prompt
    assert load_preset("short").task == "<CAPTION>"
    assert load_preset("style").task is None


def test_the_subject_is_called_by_its_trigger():
    subject = load_preset("subject")
    assert subject.variables == {"trigger", "class_word"}
    prompt = subject.prompt({"trigger": "ohwx", "class_word": "dog", "stem": None})
    assert 'call the dog "ohwx"' in prompt
    assert 'call the dog "the dog"' in subject.prompt({"class_word": "dog"})
    assert 'call the subject "the subject"' in subject.prompt({})


def test_a_file_of_ones_own(saved):
    path = saved(
        "about: mine\nsystem: You caption {folder}.\nprompt: |\n  Improve {{this}} of {stem}: {caption}\n"
        "task: <CAPTION>\ndefaults: {folder: photos}\n"
    )
    preset = load_preset(path)
    assert (preset.name, preset.about, preset.variables) == ("mine", "mine", {"stem", "caption", "folder"})
    image = Image.new("RGB", (8, 8))
    request = preset.request(image, {"stem": "cat", "caption": "a {trigger} {"}, seed=4)
    assert request.prompt == "Improve {this} of cat: a {trigger} {"  # what is filled in is never filled in again
    assert (request.system, request.task, request.seed) == ("You caption photos.", "<CAPTION>", 4)
    assert request.image is image
    assert load_preset(str(saved("Describe {stem}.\n", "plain.txt"))).prompt({"stem": "a"}) == "Describe a."


def test_a_variable_without_a_value_is_named(saved):
    with pytest.raises(
        ConfigError, match=r"preset 'mine': its prompt uses \{tags\} \(the tags of .*which has no value"
    ):
        load_preset(saved("prompt: From {tags}")).prompt({"caption": "x", "tags": None})
    with pytest.raises(ConfigError, match=r"\{trigger\}"):
        load_preset(saved("prompt: '{trigger}'\ndefaults: {trigger: 'the {trigger}'}")).prompt({})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt: Call it {triger}.", r"unknown variable \{triger\}; did you mean \{trigger\}\?"),
        ("prompt: x\nsystem: '{zzz}'", r"system: unknown variable \{zzz\} \(known: \{trigger\}"),
        ("prompt: x\ndefaults: {tag: a}", r"defaults: unknown variable \{tag\}; did you mean \{tags\}"),
        ("prompt: x\ndefaults: {tags: '{stm}'}", r"defaults.tags: unknown variable \{stm\}"),
        ("prompt: 'a { b'", "a literal brace is doubled"),
        ("prompt: '{stem!r}'", r"\{stem\} takes no conversion"),
        ("prompt: '{stem.__class__}'", "unknown variable"),
        ("prompt: '{}'", "unknown variable"),
        ("promt: x", "unknown option 'promt'; did you mean 'prompt'"),
        ("about: x", "prompt: found None, expected the prompt"),
        ("prompt: ''", "prompt: found '', expected the prompt"),
        ("prompt: x\nabout: 3", "about: found 3, expected a text"),
        ("prompt: x\ndefaults: 3", "defaults: found 3, expected a mapping from variables"),
        ("just words", "expected a mapping with a prompt"),
        ("a: [", "not valid YAML"),
    ],
)
def test_mistakes_are_named(text, message, saved):
    with pytest.raises(ConfigError, match=message):
        load_preset(saved(text))


def test_an_unknown_name_is_answered_with_the_nearest(saved):
    with pytest.raises(
        ConfigError, match="found 'subjct', which is neither a preset nor a file; did you mean 'subject'"
    ):
        load_preset("subjct")
    with pytest.raises(
        ConfigError, match=r"found './prompts/a.yaml', which is neither a preset nor a file \(presets: descriptive, "
    ):
        load_preset("./prompts/a.yaml")
    latin = saved("x", "latin.txt")
    latin.write_bytes("Beschreibe das schöne Bild".encode("latin-1"))
    with pytest.raises(ConfigError, match="UTF-8"):
        load_preset(latin)


def test_variables_that_do_not_exist_are_refused():
    preset = CaptionPreset(name="x", template="Describe {stem}.")
    with pytest.raises(ConfigError, match=r"did you mean \{folder\}"):
        preset.prompt({"stem": "a", "foldr": "b"})
    assert set(VARIABLES) == {"trigger", "class_word", "stem", "folder", "caption", "tags"}

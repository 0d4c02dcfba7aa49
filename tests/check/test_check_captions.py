"""The captions' own faults, counted on real data files."""

import json

import pytest
from real_tokenizers import flux_tokenizers

import calotype
from calotype.check.captions import caption_findings, likely_trigger
from calotype.core.placeholders import other_placeholders
from calotype.models import load_tokenizer


@pytest.fixture
def check(tmp_path, photos):
    """Captions of some of the photos → (numbers, findings by kind)."""

    def run(captions, skip=(), **options):
        lines = [{"file_name": str(photos / f"{n % 12:02d}.jpg"), "text": text} for n, text in enumerate(captions)]
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
        dataset = calotype.text_to_image_dataset(path=tmp_path / "rows.jsonl", missing_captions="empty", **options)
        facts, findings = caption_findings(dataset, skip=skip)
        by_kind = {}
        for found in findings:
            by_kind.setdefault(found.kind, []).append(found)
        return facts, by_kind

    return run


def names(found):
    return [where.rsplit("/")[-1] for where in (found.where, *found.others) if where]


def test_numbers(check):
    facts, _ = check(["a cat", "", ["a dog", "a brown dog, running"], "a cat"])
    assert (facts.captions, facts.distinct, facts.images_without, facts.images_with_several) == (4, 3, 1, 1)
    assert facts.characters == (5, 5, 20)


def test_no_caption_at_all_has_no_numbers(check):
    facts, found = check(["", ""])
    assert facts is None and len(found["empty_caption"]) == 2


def test_empty_captions_that_were_not_named_before(check):
    _, found = check(["a cat", "", " "], skip={1})
    assert [names(one) for one in found["empty_caption"]] == [["02.jpg"]]


def test_several_captions_are_one_note(check):
    _, found = check([["a cat", "a tom"], "a dog", ["a", "b", "c"]])
    (one,) = found["several_captions"]
    assert one.level == "note" and "2 of 3" in one.detail and "up to 3" in one.detail


def test_the_same_caption_on_several_images(check):
    _, found = check(["a cat", "a dog", "a cat", ["a dog", "a dog"], "a bird"])
    assert [names(one) for one in found["repeated_caption"]] == [["00.jpg", "02.jpg"], ["01.jpg", "03.jpg"]]
    assert {one.level for one in found["repeated_caption"]} == {"warning"}


def test_one_phrase_for_all_is_a_practice(check):
    _, found = check(["a photo of sks dog"] * 5)
    (one,) = found["repeated_caption"]
    assert one.level == "note" and "5 of 5" in one.detail
    _, found = check(["a long description of one image that can't be true of five images at once, in detail"] * 5)
    assert found["repeated_caption"][0].level == "warning"


def test_wording(check):
    _, found = check(["The image shows a cat", "I'm sorry, but I can't help with that.", "a caf\ufffd", "a cat"])
    assert names(found["opener"][0]) == ["00.jpg"] and "The image shows" in found["opener"][0].detail
    assert names(found["refusal"][0]) == ["01.jpg"]
    assert names(found["odd_characters"][0]) == ["02.jpg"] and "U+FFFD" in found["odd_characters"][0].detail


CAPTIONS = ["a dog on a lawn", "a dog in a car", "a dog asleep", "two dogs", "a dog by the sea", "a dog, smiling"]


def test_a_trigger_that_some_captions_lack(check):
    facts, found = check([f"sks, {text}" for text in CAPTIONS[:5]] + CAPTIONS[5:])
    (one,) = found["trigger_missing"]
    assert "'sks' is in the captions of 5 of 6" in one.detail and names(one) == ["05.jpg"]
    assert (facts.trigger, facts.trigger_in) == ("sks", 5)


def test_captions_that_wait_for_a_trigger(check):
    captions = ["{trigger} sits", "a dog", "{trigger} and a cat"]
    _, found = check(captions, on_error="skip")
    (one,) = found["placeholder"]
    assert one.level == "error" and "2 of 3" in one.detail and names(one) == ["00.jpg", "02.jpg"]
    facts, found = check(captions, caption_transform={"trigger": "sks"})
    assert (facts.trigger, facts.trigger_in) == ("sks", 2)
    assert not {"placeholder", "trigger_twice", "trigger_missing", "no_trigger"} & set(found)


def test_a_trigger_that_all_have_is_fine(check):
    facts, found = check([f"photo of ohwx man, {text}" for text in CAPTIONS])
    assert (facts.trigger, facts.trigger_in) == ("ohwx", 6)
    assert not {"trigger_missing", "no_trigger", "trigger_twice"} & set(found)


def test_no_trigger_is_a_note(check):
    facts, found = check(CAPTIONS)
    assert facts.trigger is None and [one.level for one in found["no_trigger"]] == ["note"]


def test_the_configs_trigger(check):
    facts, found = check(CAPTIONS, caption_transform={"trigger": "cpelletier"})
    assert (facts.trigger, facts.trigger_in) == ("cpelletier", 0)
    assert not {"trigger_missing", "no_trigger", "trigger_twice"} & set(found)


def test_the_configs_trigger_twice(check):
    captions = [*CAPTIONS[:3], *(f"Cpelletier, {text}" for text in CAPTIONS[3:])]
    options = {"trigger": "cpelletier", "drop": 0.5}
    facts, found = check(captions, caption_transform=options)
    assert facts.trigger_in == 3 and not {"trigger_twice", "trigger_missing"} & set(found)
    _, found = check(captions, caption_transform=options | {"repeat_trigger": True})
    (one,) = found["trigger_twice"]
    assert "3 of 6" in one.detail and names(one) == ["03.jpg", "04.jpg", "05.jpg"]


def test_placeholders_of_other_programs(check):
    captions = ["a photo of [trigger]", "<trigger> sits", "a dog, [filewords]", "[name] by the sea"]
    assert {"{subject}", "%trigger%"} == set(other_placeholders("a {subject} and %trigger%"))
    _, found = check(captions, on_error="skip")
    assert {one.level for one in found["placeholder"]} == {"error"}
    assert [names(one) for one in found["placeholder"]] == [["02.jpg"], ["03.jpg"], ["00.jpg", "01.jpg"]]
    facts, found = check(captions, caption_transform={"trigger": "sks"})
    assert facts.trigger_in == 2
    assert [names(one) for one in found["placeholder"]] == [["02.jpg"], ["03.jpg"]]
    assert "[filewords]" in found["placeholder"][0].detail and "{trigger}" in found["placeholder"][0].advice


def forget(text):
    return text.replace("dog", "cat")


def test_a_trigger_in_a_template_is_always_there(check):
    _, found = check(CAPTIONS, caption_transform={"trigger": "dog", "template": "{caption} of {trigger}"})
    assert "trigger_missing" not in found


def test_a_word_inside_another_is_not_the_trigger(check):
    facts, _ = check(["sksy cat", "desks", "sks man"], caption_transform={"trigger": "sks"})
    assert facts.trigger_in == 1


@pytest.fixture(scope="module")
def clip():
    return load_tokenizer(flux_tokenizers()[0], kind="clip")


@pytest.mark.parametrize("word", ["sks", "ohwx", "zwx", "TOK", "zkz", "p3rs0n", "qzx", "cpelletier2"])
def test_words_that_look_like_triggers(word):
    assert likely_trigger([[f"a photo of {word} number {n}"] for n in range(5)]) == word


@pytest.mark.parametrize("word", ["cpelletier", "olislav", "xyzcat", "mysks"])
def test_words_that_clip_hardly_knows(word, clip):
    assert likely_trigger([[f"{word}, photo {n}"] for n in range(5)], clip) == word
    assert likely_trigger([[f"{word}, photo {n}"] for n in range(5)]) is None


LANGUAGE = "the style skirt sky strengths rhythm knight gnome 35mm 4k 1980s ISO100 f2 hmm iPhone YouTube km html"


@pytest.mark.parametrize("word", [*LANGUAGE.split(), "photograph", "watercolor", "woman", "dog", "landscape"])
def test_words_of_the_language_are_no_triggers(word, clip):
    rows = [[f"{word} in photo {n}, in daylight"] for n in range(5)]
    assert likely_trigger(rows) is None
    assert likely_trigger(rows, clip) is None

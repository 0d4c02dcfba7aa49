"""The caption transform: nothing changes unless asked for, and every draw can be explained."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from calotype.errors import ConfigError
from calotype.transforms import CaptionTransform, Part
from calotype.types import SampleKey

TAGS = "a red fox, snow, forest, sunset, 35mm"
KEY = SampleKey(4, 1)


def transform(**options):
    return CaptionTransform.from_config(options)


def draws(of, captions=(TAGS,), n=300, seed=0):
    return [of.draw(captions, SampleKey(i), seed) for i in range(n)]


@pytest.mark.parametrize(
    "caption",
    [
        TAGS,
        "",
        "  two  spaces , doubled,, and trailing , ",
        "line one\nline two\r\n\ttab",
        "{braces} {caption} {trigger} {0} %s",
        "ünï😀 文字, כתב",
        ",",
        " ",
    ],
)
@pytest.mark.parametrize(
    "options",
    [{}, {"shuffle_parts": 0.0, "drop_parts": 0}, {"keep_parts": 99, "shuffle_parts": 1.0, "drop_parts": 0.9}],
)
def test_with_nothing_on_a_caption_passes_byte_for_byte(caption, options):
    draw = transform(**options).draw([caption], KEY, 0)
    assert (draw.text, draw.raw, draw.choice, draw.dropped) == (caption, caption, 0, False)
    assert {part.state for part in draw.parts} <= {"kept"}


def test_none_and_call():
    assert CaptionTransform.from_config(None)([TAGS], KEY, 0) == TAGS
    assert CaptionTransform.from_config(None)([], KEY, 0) == ""


def test_parts_are_joined_with_one_space_once_something_changed():
    messy = "one ,two,  three,,four , "
    for draw in draws(transform(shuffle_parts=True), [messy]):
        if [part.text for part in draw.parts] == ["one", "two", "three", "four"]:
            assert draw.text == messy
        else:
            assert sorted(draw.text.split(", ")) == ["four", "one", "three", "two"]
            assert "moved" in {part.state for part in draw.parts}


def test_shuffle_comes_as_often_as_asked_and_gives_every_order():
    texts = [draw.text for draw in draws(transform(shuffle_parts=1.0), ["a, b, c"], n=3000)]
    counts = Counter(texts)
    assert len(counts) == 6
    # A sixth of 3,000; 5 standard deviations are 102.
    assert all(abs(count - 500) < 102 for count in counts.values())
    rare = [draw.text != "a, b, c" for draw in draws(transform(shuffle_parts=0.3), ["a, b, c"], n=3000)]
    assert np.mean(rare) == pytest.approx(0.3 * 5 / 6, abs=0.04)


def test_kept_parts_stay_in_front():
    for draw in draws(transform(shuffle_parts=1.0, drop_parts=0.6, keep_parts=2)):
        assert draw.text.startswith("a red fox, snow")
        assert [part.state for part in draw.parts[:2]] == ["kept", "kept"]


def test_parts_are_dropped_as_often_as_asked_and_one_always_stays():
    kept = [draw.text.split(", ") for draw in draws(transform(drop_parts=0.25), n=2000)]
    assert np.mean([len(parts) for parts in kept]) == pytest.approx(0.75 * 5, abs=0.1)
    for draw in draws(transform(drop_parts=1.0)):
        assert len([part for part in draw.parts if part.state == "kept"]) == 1
        assert draw.text in TAGS.split(", ")
    assert len({draw.text for draw in draws(transform(drop_parts=1.0))}) == 5


def test_a_draw_says_what_happened_to_each_part():
    seen = set()
    for draw in draws(transform(shuffle_parts=0.5, drop_parts=0.3, keep_parts=1)):
        words = TAGS.split(", ")
        assert sorted(part.text for part in draw.parts) == sorted(words)
        staying = [part for part in draw.parts if part.state != "dropped"]
        assert draw.text == ", ".join(part.text for part in staying)
        for place, part in enumerate(draw.parts):
            assert (part.text == words[place]) == (part.state in ("kept", "dropped")), draw
        seen |= {part.state for part in draw.parts}
    assert seen == {"kept", "dropped", "moved"}


@pytest.mark.parametrize(
    ("separator", "caption", "expected"), [("|", "a|b|c", "a| c"), (". ", "a. b. c", "a. c"), ("\n", "a\nb\nc", "a\nc")]
)
def test_separator(separator, caption, expected):
    texts = {draw.text for draw in draws(transform(drop_parts=0.5, separator=separator), [caption])}
    assert expected in texts
    assert caption in texts


def test_drop_is_last_and_raising_it_only_adds_drops():
    options = {"trigger": "sks", "shuffle_parts": 0.5}
    few, more = draws(transform(drop=0.05, **options), n=4000), draws(transform(drop=0.1, **options), n=4000)
    assert np.mean([draw.dropped for draw in few]) == pytest.approx(0.05, abs=0.015)
    assert np.mean([draw.dropped for draw in more]) == pytest.approx(0.1, abs=0.02)
    for a, b in zip(few, more, strict=True):
        assert b.dropped or not a.dropped
        assert a.text == ("" if a.dropped else a.text)
        assert a.dropped or b.dropped or a.text == b.text
    gone = next(draw for draw in more if draw.dropped)
    assert gone.text == ""
    assert gone.raw == TAGS
    assert {part.state for part in gone.parts} == {"dropped"}


def test_one_option_does_not_change_another_ones_draws():
    captions = ["a, b, c, d", "e, f, g, h", "i, j, k, l"]
    choices = [draw.choice for draw in draws(transform(), captions)]
    dropped = [draw.dropped for draw in draws(transform(drop=0.2), captions)]
    orders = [draw.text for draw in draws(transform(shuffle_parts=0.5), captions)]
    everything = draws(transform(drop=0.2, shuffle_parts=0.5, trigger="sks"), captions)
    assert [draw.choice for draw in everything] == choices
    assert [draw.dropped for draw in everything] == dropped
    assert all(b.dropped or b.text == f"sks, {a}" for a, b in zip(orders, everything, strict=True))
    # Dropping parts leaves the others in the order they would have had.
    fewer = draws(transform(shuffle_parts=0.5, drop_parts=0.4), captions)
    for whole, less in zip(orders, fewer, strict=True):
        parts = less.text.split(", ")
        assert parts == [part for part in whole.split(", ") if part in parts]


def test_draws_follow_from_seed_and_key_alone():
    caption = ", ".join("abcdefghijklmno")
    text = transform(shuffle_parts=True)([caption], KEY, 7)
    assert transform(shuffle_parts=True)([caption], KEY, 7) == text
    others = [(KEY, 8), (KEY._replace(epoch=3), 7), (KEY._replace(index=6), 7), (KEY._replace(repeat=1), 7)]
    assert all(transform(shuffle_parts=True)([caption], key, seed) != text for key, seed in others)
    # The bucket has no say.
    assert transform(shuffle_parts=True)([caption], KEY._replace(size=(64, 64)), 7) == text


@pytest.mark.parametrize(
    ("choose", "shares"),
    [
        ("random", [1 / 3, 1 / 3, 1 / 3]),
        ("first", [1, 0, 0]),
        ("longest", [0, 1, 0]),
        ([3, 1], [0.75, 0.25, 0]),
        ([0, 0, 2.5, 9], [0, 0, 1]),
        ([0, 0, 0, 9], [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_choose(choose, shares):
    captions = ["one", "twelve", "eleven"]
    found = draws(transform(choose=choose), captions, n=3000)
    counts = Counter(draw.choice for draw in found)
    assert [counts[i] / 3000 for i in range(3)] == pytest.approx(shares, abs=0.045)
    assert all((counts[i] == 0) == (share == 0) for i, share in enumerate(shares))
    assert all(draw.text == draw.raw == captions[draw.choice] for draw in found)


@pytest.mark.parametrize(
    ("options", "caption", "expected"),
    [
        ({"trigger": "sks"}, "a dog", "sks, a dog"),
        ({"trigger": "sks"}, "", "sks"),
        ({"trigger": "{sks} %s"}, "a {dog}", "{sks} %s, a {dog}"),
        ({"trigger": "sks", "template": "a photo of {trigger}, {caption}"}, "by the sea", "a photo of sks, by the sea"),
        ({"trigger": "sks", "template": "a photo of {trigger}, {caption}"}, "", "a photo of sks"),
        ({"template": "{caption}, film grain"}, "by the sea", "by the sea, film grain"),
        ({"template": "{caption}, film grain"}, "", "film grain"),
        ({"template": "painting: {caption}."}, "{caption} {trigger}", "painting: {caption} {trigger}."),
        ({"trigger": "sks", "template": "{trigger} and {trigger}: {caption}"}, " x ", "sks and sks:  x "),
        ({"trigger": "sks", "template": "art: {trigger}, {caption}"}, "{trigger} sits", "art: sks sits"),
        (
            {"trigger": "sks", "template": "art: {trigger}, {caption}", "repeat_trigger": True},
            "{trigger} sits",
            "art: sks, sks sits",
        ),
    ],
)
def test_trigger_and_template(options, caption, expected):
    draw = transform(**options).draw([caption], KEY, 0)
    assert draw.text == expected
    assert draw.raw == caption
    assert any(part.state == "added" for part in draw.parts)


@pytest.mark.parametrize(
    ("caption", "options", "expected"),
    [
        ("ohwx man at a desk", {}, "ohwx man at a desk"),
        ("a man, OHWX, at a desk", {}, "a man, OHWX, at a desk"),
        ("ohwxy at a desk", {}, "ohwx, ohwxy at a desk"),
        ("the yohwx at a desk", {}, "ohwx, the yohwx at a desk"),
        ("two {trigger}s at a desk", {}, "two ohwxs at a desk"),
        ("a man-ohwx", {"repeat_trigger": True}, "ohwx, a man-ohwx"),
        ("ohwx at a desk", {"template": "a photo of {trigger}, {caption}"}, "a photo of ohwx at a desk"),
        ("ohwx at a desk", {"template": "{trigger} photo, {caption}, 35mm"}, "photo, ohwx at a desk, 35mm"),
        ("ohwx at a desk", {"template": "{caption}, {trigger}"}, "ohwx at a desk"),
        ("ohwx. At a desk", {"separator": ".", "template": "{trigger}. {caption}"}, "ohwx. At a desk"),
    ],
)
def test_a_caption_that_has_the_trigger_gets_it_once(caption, options, expected):
    made = transform(trigger="ohwx", **options)
    assert made([caption], KEY, 0) == expected
    assert set(made.outcomes([caption], variants=1)) == {expected}


@pytest.mark.parametrize("trigger", ["o.wx", r"o\wx", r"\1 \g<0>", "(ohwx", "c++"])
def test_a_trigger_is_a_text_and_no_pattern(trigger):
    made = transform(trigger=trigger)
    assert made(["ohwx at a desk"], KEY, 0) == f"{trigger}, ohwx at a desk"
    assert made(["{trigger} at a desk"], KEY, 0) == made([f"{trigger} at a desk"], KEY, 0) == f"{trigger} at a desk"


def test_a_part_that_held_the_trigger_may_be_dropped_and_the_trigger_is_there():
    texts = {draw.text for draw in draws(transform(trigger="ohwx", drop_parts=0.5), ["a man, ohwx, desk"])}
    assert all(text.count("ohwx") == 1 for text in texts) and "ohwx, a man" in texts


@pytest.mark.parametrize(
    "written", ["[trigger]", "[Trigger]", "<trigger>", "{{trigger}}", "{TRIGGER}", "[trigger_word]", "{trigger word}"]
)
def test_other_tools_placeholders_for_the_trigger_are_ours(written):
    assert transform(trigger="ohwx")([f"a photo of {written} at a desk"], KEY, 0) == "a photo of ohwx at a desk"
    assert transform()([f"a photo of {written}"], KEY, 0) == f"a photo of {written}"
    assert transform(trigger="ohwx", template=f"{written}: {{caption}}")(["a"], KEY, 0) == "ohwx: a"


def test_added_parts_stand_where_they_are_read():
    draw = transform(trigger="sks", template="<{trigger}> {caption}!").draw(["a, b"], KEY, 0)
    assert draw.parts == (Part("<sks> ", "added"), Part("a", "kept"), Part("b", "kept"), Part("!", "added"))


def test_a_trigger_stands_where_the_caption_says():
    captions = ["{trigger} and a dog, {trigger} smiles", "a beach, no one there"]
    drawn = {draw.raw: draw for draw in draws(transform(trigger="jo, the cat"), captions, n=40)}
    assert drawn[captions[0]].text == "jo, the cat and a dog, jo, the cat smiles"
    assert drawn[captions[0]].parts == (Part("jo, the cat and a dog", "kept"), Part("jo, the cat smiles", "kept"))
    assert drawn[captions[1]].text == "jo, the cat, a beach, no one there"


def test_a_trigger_is_never_lost_with_a_part_nor_changed_by_a_custom_step_that_knows_no_braces():
    texts = {draw.text for draw in draws(transform(trigger="sks", drop_parts=0.5), ["a dog, {trigger} smiles, sun"])}
    assert all(text.count("sks") == 1 and "{" not in text for text in texts) and "sks, a dog" in texts
    assert transform(trigger="sks", custom=louder)(["{trigger} smiles"], KEY, 0) == "SKS SMILES"


def test_another_trigger_changes_texts_and_no_draws():
    options = {"shuffle_parts": 0.5, "drop_parts": 0.3, "drop": 0.1}
    captions = ["{trigger} sits, red, blue, green", "a dog, {trigger}, sun"]
    first, second = (draws(transform(trigger=word, **options), captions) for word in ("sks", "ohwx"))
    assert [draw.text.replace("sks", "ohwx") for draw in first] == [draw.text for draw in second]
    outcomes = [transform(trigger=word, **options).outcomes(captions, variants=4) for word in ("sks", "ohwx")]
    assert {text.replace("sks", "ohwx"): chance for text, chance in outcomes[0].items()} == outcomes[1]


def louder(text):
    return text.upper()


def reversed_words(text, *, rng):
    words = text.split(" ")
    return " ".join(words[i] for i in rng.permutation(len(words)))


def test_callables():
    assert CaptionTransform.from_config(louder)(["a fox"], KEY, 0) == "A FOX"
    assert CaptionTransform.from_config([{"trigger": "sks"}, louder])(["a fox"], KEY, 0) == "sks, A FOX"
    assert CaptionTransform.from_config([louder, str.strip])([" a fox "], KEY, 0) == "A FOX"
    assert CaptionTransform.from_config({"custom": louder, "trigger": "sks"})(["a fox"], KEY, 0) == "sks, A FOX"
    drawn = CaptionTransform.from_config({"custom": [louder], "drop": 1.0}).draw(["a fox"], KEY, 0)
    assert (drawn.text, drawn.parts) == ("", (Part("A FOX", "dropped"),))


def test_components():
    options = {"_component_": "calotype.transforms.CaptionTransform", "trigger": "sks"}
    assert CaptionTransform.from_config(options)(["a fox"], KEY, 0) == "sks, a fox"
    assert CaptionTransform.from_config({"_component_": "torch.nn.Identity"})(["a fox"], KEY, 0) == "a fox"
    mixed = [{"trigger": "sks"}, {"_component_": "torch.nn.Identity"}, louder]
    assert CaptionTransform.from_config(mixed)(["a fox"], KEY, 0) == "sks, A FOX"


def test_a_callable_may_ask_for_a_generator():
    caption = "one two three four five six seven"
    shuffle = CaptionTransform.from_config(reversed_words)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    texts = [shuffle([caption], SampleKey(i), 0) for i in range(20)]
    assert texts == [shuffle([caption], SampleKey(i), 0) for i in range(20)]
    assert len(set(texts)) > 15
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    twice = CaptionTransform.from_config([reversed_words, reversed_words])
    assert [twice([caption], SampleKey(i), 0) for i in range(20)] != texts


def test_a_callable_must_give_a_text():
    with pytest.raises(ConfigError, match=r"returned list for the caption 'a fox'; expected a text"):
        CaptionTransform.from_config(str.split)(["a fox"], KEY, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropp": 0.1}, r"caption_transform: unknown option 'dropp'; did you mean 'drop'\?"),
        ({"drop": 5}, r"caption_transform\.drop: found 5, expected how often, a probability from 0 to 1"),
        ({"drop": True}, r"drop: found True, expected how often"),
        ({"drop_parts": "0.1"}, r"drop_parts: found '0\.1'"),
        ({"shuffle_parts": -0.1}, r"shuffle_parts: found -0\.1"),
        ({"keep_parts": -1}, r"keep_parts: found -1, expected a count"),
        ({"keep_parts": True}, r"keep_parts: found True"),
        ({"separator": ""}, r"separator: found ''"),
        ({"choose": "best"}, r"choose: found 'best', expected 'random', 'first', 'longest', or weights"),
        ({"choose": [0, 0]}, r"choose: found \[0, 0\]"),
        ({"choose": [1, -1]}, r"choose: found \[1, -1\]"),
        ({"choose": []}, r"choose: found \[\]"),
        ({"trigger": " "}, r"trigger: found ' ', expected a text"),
        (
            {"template": "a photo of {trigger}", "trigger": "sks"},
            r"template: found .*, expected \{caption\} in it once",
        ),
        ({"template": "{caption} {caption}"}, r"template: found .*, expected \{caption\} in it once"),
        (
            {"template": "a photo of [name], {caption}", "trigger": "sks"},
            r"template: found \[name\] of another program",
        ),
        ({"repeat_trigger": True}, "repeat_trigger: found true and no trigger"),
        ({"repeat_trigger": "yes", "trigger": "sks"}, "repeat_trigger: found 'yes'"),
        ({"template": "{trigger}, {caption}"}, r"template: found .* and no trigger; set trigger"),
        ({"template": "{caption}", "trigger": "sks"}, r"without the trigger 'sks'; add \{trigger\}"),
        ({"custom": ["upper"]}, r"custom: found 'upper', expected a callable"),
    ],
)
def test_a_wrong_option_is_an_error_at_construction(options, message):
    with pytest.raises(ConfigError, match=message):
        transform(**options)


def test_a_wrong_whole_is_an_error_at_construction():
    with pytest.raises(ConfigError, match=r"here: found 0\.1, expected a mapping of options"):
        CaptionTransform.from_config(0.1, where="here")
    with pytest.raises(ConfigError, match=r"caption_transform\[0\]: unknown option 'shuffel_parts'"):
        CaptionTransform.from_config([{"shuffel_parts": 1.0}, louder])

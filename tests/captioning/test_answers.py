"""Captions out of what models say."""

import pytest

from calotype.captioning.answers import parse_answer
from calotype.captioning.backend import CaptionAnswer
from calotype.captioning.sampling import Sampling


def caption_of(said, **options):
    return parse_answer(said, **{"finish_reason": "stop", **options})


@pytest.mark.parametrize(
    "said",
    [
        "a red card",
        "  a red card\n",
        "a red\n\n  card",
        '"a red card"',
        "“a red card”",
        "'a red card'",
        "Caption: a red card",
        "**Caption:** a red card",
        "Image description: a red card",
        'Caption: "a red card"',
        "Here is a caption for the image:\n\na red card",
        "Here's a short description of the image: a red card",
        'Sure! Here is the caption:\n"a red card"',
        "Certainly, here are the tags: a red card",
        "```\na red card\n```",
        "```text\na red card\n```",
        "a red card<|im_end|>",
        "a red card</s><pad><pad>",
        "<think>It is red.</think>a red card",
        "<think>\n\n</think>\n\na red card",
        "It is red, and a card.\n</think>\n\na red card",  # the prompt had opened it
        "<THINKING>It is red.</THINKING> a red card",
        "◁think▷It is red.◁/think▷a red card",
        "<|channel>thought\nIt is red.<channel|>a red card",
        "<think>One.</think><think>Two.</think><answer>a red card</answer>",
    ],
)
def test_what_stands_around_a_caption_is_taken_off(said):
    assert caption_of(said) == CaptionAnswer(text="a red card", finish_reason="stop")


@pytest.mark.parametrize(
    "said",
    [
        '"Stop" and "Go" in neon letters',
        "a sign that says: no entry",
        "a man thinking, his hand at his chin",
        "here, a caption under the photo: tiny letters",
        "tags on a suitcase",
        "dog's bowl, the cat's 'throne'",
        "#1 runner, caption below",
        "5 > 3 <on a blackboard>",
        "赤いカード",
        "I'm a Barbie girl, written on a wall",
        "a {curly} {{caption}}",
    ],
)
def test_what_belongs_to_a_caption_stays(said):
    assert caption_of(said).text == said


@pytest.mark.parametrize(
    ("said", "finish_reason", "kind"),
    [
        (None, "stop", "empty"),
        ("", "stop", "empty"),
        (" \n ", "stop", "empty"),
        ("…", "stop", "empty"),
        ('""', "stop", "empty"),
        ("Caption:", "stop", "empty"),
        ("<think>It is red.</think>", "stop", "empty"),
        ("<|im_end|>", None, "empty"),
        ("<think>It is re", "length", "reasoning"),
        ("<think>It is red.", "stop", "reasoning"),
        ("a red ca", "length", "cut_off"),
        ("<think>It is red.</think>a red ca", "length", "cut_off"),
        ("", "length", "cut_off"),
        ("I'm sorry, but I can't help with that.", "stop", "refused"),
        ("I’m unable to identify people.", "stop", "refused"),
        ("I cannot describe this image.", "stop", "refused"),
        ("As an AI language model, I", "stop", "refused"),
        ("Sorry, no.", "stop", "refused"),
        ("word " * 10_000, "stop", "too_long"),
        ("a red card", "content_filter", "refused"),
    ],
)
def test_what_is_no_caption_is_told_by_kind(said, finish_reason, kind):
    answer = caption_of(said, finish_reason=finish_reason)
    assert (answer.text, answer.kind, answer.finish_reason) == (None, kind, finish_reason)
    assert answer.error


def test_reasoning_apart_and_no_answer():
    assert caption_of(None, reasoned=True).kind == "reasoning"
    assert caption_of("a red card", reasoned=True).text == "a red card"


def test_special_tokens_are_taken_off_but_not_before_they_have_served():
    assert (
        caption_of("<think>no</think>a red<|eot|> card", special=["<think>", "</think>", "<|eot|>"]).text
        == "a red card"
    )


def test_long_errors_are_cut():
    assert len(caption_of("word " * 500, finish_reason="length").error) < 120


def test_an_answer_has_a_text_or_an_error():
    for fields in ({}, {"text": "a", "error": "b"}):
        with pytest.raises(ValueError, match="either a text or an error"):
            CaptionAnswer(**fields)


def test_when_a_retry_is_worth_it():
    certain, drawn = Sampling(max_tokens=100), Sampling(max_tokens=100, temperature=0.5)
    cut = caption_of("a", finish_reason="length")
    assert certain.retry(cut, 7) == drawn.retry(cut, 7) == (400, 7)
    assert certain.retry(caption_of("<think>", finish_reason="length"), 7) == (400, 7)
    assert certain.retry(caption_of(""), 7) is None
    tokens, seed = drawn.retry(caption_of(""), 7)
    assert tokens == 100 and seed > 1000
    for settled in (caption_of("a red card"), caption_of("I'm sorry, no"), CaptionAnswer(error="gone", kind="failed")):
        assert drawn.retry(settled, 7) is None

"""Caption lengths: counted on the final texts, by the model's own tokenizers."""

import itertools
import json

import pytest
from real_tokenizers import flux_tokenizers, sdxl_tokenizers

import calotype
from calotype.check.check import check
from calotype.check.tokens import histogram, longest_texts, token_facts

LONG = "a wooden table with a red cup, a spoon and a newspaper from yesterday, " * 8


@pytest.fixture(scope="module")
def flux():
    clip, t5 = flux_tokenizers()
    return calotype.FluxTransform(clip_tokenizer_path=clip, t5_tokenizer_path=t5, t5_max_seq_len=64)


@pytest.fixture
def rows(tmp_path, photos):
    """A data file over the photos with these captions."""

    def write(captions):
        lines = [{"file_name": str(photos / f"{n:02d}.jpg"), "text": text} for n, text in enumerate(captions)]
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return tmp_path / "rows.jsonl"

    return write


def dataset(path, transform=None, **options):
    return calotype.text_to_image_dataset(transform, path=path, resolution=256, **options)


def test_lengths_are_the_tokenizers_own(rows, flux):
    captions = ["a cat", "a dog on a lawn", LONG, "a cat"]
    facts, findings = token_facts(dataset(rows(captions), flux))
    clip, t5 = facts
    for one, field in zip(facts, flux.fields, strict=True):
        counts = sorted(field.tokenizer.count(text) for text in set(captions))
        assert (one.shortest, one.longest, one.limit) == (counts[0], counts[-1], field.max_length)
        assert sum(count for *_, count in one.histogram) == 3
    assert clip.cut == t5.cut == 1
    assert [found.where.rsplit("/")[-1] for found in findings] == ["02.jpg", "02.jpg"]


def test_a_cut_shows_where(rows, flux):
    (found, _) = token_facts(dataset(rows([LONG]), flux))[1]
    at = flux.fields[0].tokenizer.cut(LONG, 77)
    assert f"{LONG[at - 32 : at]!r} | {LONG[at : at + 32] + '…'!r}"[3:] in found.detail
    assert "limit 77" in found.detail


def test_what_another_tokenizer_reads_whole_is_a_note(rows, flux):
    clip, t5 = flux_tokenizers()
    roomy = calotype.FluxTransform(clip_tokenizer_path=clip, t5_tokenizer_path=t5, t5_max_seq_len=256)
    (found,) = token_facts(dataset(rows([LONG]), roomy))[1]
    assert found.level == "note" and "t5_text_tokens" in found.advice
    assert {one.level for one in token_facts(dataset(rows([LONG]), flux))[1]} == {"warning"}
    one, two = sdxl_tokenizers()
    both = calotype.SDXLTransform(clip_l_tokenizer_path=one, clip_g_tokenizer_path=two)
    assert [one.level for one in token_facts(dataset(rows([LONG]), both))[1]] == ["warning", "warning"]


def test_equal_captions_are_one_finding(rows, flux):
    found = token_facts(dataset(rows([LONG, "a cat", LONG]), flux))[1]
    assert all(one.others and one.others[0].endswith("02.jpg") for one in found) and len(found) == 2


def test_trigger_and_template_count(rows, flux):
    plain, _ = token_facts(dataset(rows(["a cat"]), flux))
    longer, _ = token_facts(dataset(rows(["a cat"]), flux, caption_transform={"trigger": "ohwx man", "drop": 0.9}))
    assert longer[0].longest > plain[0].longest


def test_nothing_is_dropped_and_only_what_can_be_chosen_counts(rows):
    path = rows([["one, two, three", "a much longer caption, of many parts"]])
    program = {"drop": 0.5, "drop_parts": 0.9, "shuffle_parts": True}

    def texts(**options):
        return set(longest_texts(dataset(path, caption_transform=program | options)))

    assert texts() == {"one, two, three", "a much longer caption, of many parts"}
    assert texts(choose="first") == {"one, two, three"}
    assert texts(choose="longest") == {"a much longer caption, of many parts"}
    assert texts(choose=[0, 1]) == {"a much longer caption, of many parts"}


def test_without_tokenizers_there_is_nothing(rows):
    assert token_facts(dataset(rows(["a cat"]))) == ((), [])


@pytest.mark.parametrize("counts", [[1], [3, 5, 77], [2, 78], [5, 600, 76, 77, 1000], [77], list(range(2, 300))])
def test_histograms_count_each_once_and_respect_the_limit(counts):
    bins = histogram(counts, 77)
    assert sum(count for *_, count in bins) == len(counts)
    assert bins[0][0] == 1 and bins[-1][1] == max(counts)
    assert all(high + 1 == low for (_, high, _), (low, _, _) in itertools.pairwise(bins))
    assert len(bins) <= 10
    for low, high, count in bins:
        assert count == sum(low <= one <= high for one in counts)
        assert high <= 77 or low > 77


@pytest.mark.parametrize(
    ("model", "note"),
    [
        ("flux.2-dev", "calotype has no token transform for flux.2-dev"),
        ("flux.1-dev", "--tokenizers names their folder"),
    ],
)
def test_what_was_not_counted_says_why(rows, model, note):
    report = check(dataset(rows(["a cat"]), calotype.PixelsTransform(), model=model))
    (said,) = (one for one in report.not_checked if one.startswith("caption lengths"))
    assert note in said

"""The filter language: what it keeps, and what it says of a filter that can't be read."""

from typing import ClassVar

import numpy as np
import pytest

from calotype.studio.query import QueryError, parse_query


class Columns:
    """Five rows, by hand."""

    captions = ("a red car", "a blue car", "", "Red (old) house\0two", "naïve STRASSE")
    numbers: ClassVar = {
        "captions": (1, 1, 0, 2, 1),
        "tokens": (5, 80, 0, np.nan, 76),
        "tokens.t5": (5, 90, 0, np.nan, 10),
        "width": (512, 1024, np.nan, 2048, 640),
        "aspect": (1.0, 2.0, np.nan, 0.5, 1.5),
        "words": (3, 3, 0, 3, 2),
    }

    def __len__(self):
        return 5

    def text(self, name):
        return [
            text.casefold() for text in (self.captions if name == "caption" else ("a.jpg", "b/a.jpg", "c", "D", "e"))
        ]

    def number(self, name):
        return np.array(self.numbers[name], float)

    def flag(self, name):
        return np.array({"rejected": (1, 0, 0, 0, 1), "duplicate": (0, 1, 0, 1, 0)}[name], bool)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("   ", [0, 1, 2, 3, 4]),
        ("red", [0, 3]),
        ("caption:red", [0, 3]),
        ("CAPTION:Red", [0, 3]),
        ('"a red"', [0]),
        ('caption:"red (old)"', [3]),
        ("straße", [4]),
        ("red AND tokens>75", []),
        ("caption:car AND tokens>75", [1]),
        ("car tokens>75", [1]),
        ("red OR blue", [0, 1, 3]),
        ("red OR blue AND house", [0, 3]),
        ("(red OR blue) AND house", [3]),
        ("NOT car", [2, 3, 4]),
        ("-car", [2, 3, 4]),
        ("-(red OR car)", [2, 4]),
        ("NOT NOT red", [0, 3]),
        ("and", []),
        ("no:caption", [2]),
        ("has:caption", [0, 1, 3, 4]),
        ("captions>=2", [3]),
        ("tokens<=80", [0, 1, 2, 4]),
        ("tokens!=5", [1, 2, 4]),
        ("tokens.t5>75", [1]),
        ("width<1024", [0, 4]),
        ("width=1.024e3", [1]),
        ("aspect>=1.5", [1, 4]),
        ("words<3", [2, 4]),
        ("is:rejected", [0, 4]),
        ("-is:rejected is:duplicate", [1, 3]),
        ("id:a.jpg", [0, 1]),
        ("id:d", [3]),
        ("well-lit", []),
        ("16:9", []),
        (r'"say \"x\""', []),
    ],
)
def test_keeps(text, kept):
    assert np.flatnonzero(parse_query(text, tokenizers=("t5",)).mask(Columns())).tolist() == kept


@pytest.mark.parametrize(
    ("text", "position", "length", "expected"),
    [
        ("red AND", 7, 0, "a word"),
        ("AND red", 0, 3, "a word"),
        ("(red", 4, 0, "closing parenthesis"),
        ("red)", 3, 1, "AND, OR"),
        ("()", 1, 1, "a word"),
        ('a "red', 2, 4, "another"),
        ('caption:"red', 8, 4, "another"),
        ("tokens>many", 7, 4, "a number"),
        ("tokens>", 7, 0, "a number"),
        ("tokens:75", 6, 1, "a comparison"),
        ("width>inf", 6, 3, "a finite number"),
        ("caption>3", 7, 1, "caption:text"),
        ("caption:", 8, 0, "a text to search for"),
        ("is:rejcted", 3, 7, "rejected"),
        ("no:width", 3, 5, "caption"),
        ("red captoin:blue", 4, 7, "caption"),
        ("tokens.clip>3", 0, 11, "tokens.t5"),
        ("NOT " * 60 + "red", 200, 3, "at most 50 levels"),
        ("(" * 60 + "red" + ")" * 60, 50, 1, "at most 50 levels"),
        ("x" * 2001, 2000, 1, "at most 2000"),
    ],
)
def test_says_where_and_what_was_expected(text, position, length, expected):
    with pytest.raises(QueryError) as caught:
        parse_query(text, tokenizers=("t5",))
    assert (caught.value.position, caught.value.length) == (position, length)
    assert expected in caught.value.expected
    assert expected in str(caught.value)


def test_a_slip_is_told_the_nearest_name():
    with pytest.raises(QueryError, match="did you mean caption"):
        parse_query("captoin:blue")


def test_tokens_can_only_be_asked_where_they_are_counted():
    with pytest.raises(QueryError, match="no tokenizers"):
        parse_query("tokens>75")


def test_fields():
    assert parse_query("a OR -width<3 is:duplicate").fields() == {"caption", "width", "duplicate"}


def test_a_count_sends_no_numbers(client):
    answer = client.read("rows/count?filter=has:caption")
    assert answer == {"filter": "has:caption", "count": 4, "pending": []}
    assert client.read("rows/count?filter=(", status=422)["error"]["kind"] == "filter"

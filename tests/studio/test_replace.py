"""Find and replace: what would change, and patterns that can't be or never end."""

import pytest

from calotype.studio import replace
from calotype.studio.replace import ReplaceError, find_and_replace


def after(captions, *arguments, **options):
    return [(one.row, one.caption, one.after) for one in find_and_replace(captions, *arguments, **options)]


def test_literal():
    captions = [["a red car", "red.red"], [], ["a blue car"], ["Red"]]
    assert after(captions, "red", r"\1 $") == [(0, 0, r"a \1 $ car"), (0, 1, r"\1 $.\1 $")]
    assert after(captions, "d.r", "-") == [(0, 1, "re-ed")]
    assert after(captions, "RED", "x", ignore_case=True) == [(0, 0, "a x car"), (0, 1, "x.x"), (3, 0, "x")]


def test_regex():
    assert after([["a red car", "blue"]], r"(\w+) car$", r"car, \1", regex=True) == [(0, 0, "a car, red")]
    assert after([["x"]], "^", "photo of ", regex=True) == [(0, 0, "photo of x")]
    assert after([["a1"]], r"(?P<n>\d)|(z)", r"<\g<n>\2>", regex=True) == [(0, 0, "a<1>")]


def test_spans_say_where_each_match_was_and_is():
    (change,) = find_and_replace([["a red, red 🚗"]], "red", "crimson")
    assert change.before == "a red, red 🚗"
    assert [change.before[a:b] for a, b, _, _ in change.spans] == ["red", "red"]
    assert [change.after[a:b] for _, _, a, b in change.spans] == ["crimson", "crimson"]


def test_what_changes_nothing_is_not_listed():
    assert after([["red"]], "red", "red") == []


@pytest.mark.parametrize(
    ("find", "replacement", "says", "position"),
    [
        ("", "x", "the search text is empty", None),
        ("a(", "x", "can't be read", 1),
        ("a", r"\3", "replacement can't be read", None),
        ("a", r"\g<none>", "replacement can't be read", None),
    ],
)
def test_what_can_not_be_used(find, replacement, says, position):
    with pytest.raises(ReplaceError, match=says) as caught:
        find_and_replace([["aaa"]], find, replacement, regex=True)
    assert caught.value.position == position


def test_a_pattern_without_end_is_stopped(monkeypatch):
    monkeypatch.setattr(replace, "_SECONDS", 0.5)
    with pytest.raises(ReplaceError, match="longer than"):
        find_and_replace([["a" * 40 + "!"]], r"^(a+)+$", "x", regex=True)


def test_captions_do_not_grow_without_end():
    with pytest.raises(ReplaceError, match="would grow to 1,000,000"):
        find_and_replace([["a" * 1000]], "a", "b" * 1000)

r"""The parser of the filter language: `caption:red AND tokens>75` becomes a tree of conditions.

    query   = or
    or      = and { "OR" and }
    and     = not { [ "AND" ] not }
    not     = ( "NOT" | "-" ) not | "(" or ")" | term
    term    = field ":" text | field compare number | text
    compare = "<" | "<=" | ">" | ">=" | "=" | "!="
    text    = a run of characters without spaces or parentheses, or anything in "double quotes" (\" and \\ inside)

AND, OR and NOT are upper case; in lower case they are words to search for. A text alone is searched in captions,
without regard to case.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from calotype.errors import CalotypeError
from calotype.studio.conditions import (
    FLAGS,
    NUMBERS,
    TEXTS,
    AllOf,
    AnyOf,
    Compares,
    Contains,
    Everything,
    Is,
    Matches,
    Not,
    Query,
)

__all__ = ["QueryError", "parse_query"]

_MAX_CHARACTERS: Final = 2000
_MAX_DEPTH: Final = 50

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<open>\()
      | (?P<close>\))
      | (?P<minus>-)(?=[^\s)])
      | (?P<field>[A-Za-z][A-Za-z_]*(?:\.[A-Za-z0-9_-]+)?)(?P<op>:|<=|>=|!=|<|>|=)
      | "(?P<quoted>(?:[^"\\]|\\.)*)(?P<end>"?)
      | (?P<word>[^\s()"]+)""",
    re.VERBOSE | re.DOTALL,
)
_VALUE = re.compile(r""""(?P<quoted>(?:[^"\\]|\\.)*)(?P<end>"?)|(?P<word>[^\s()"]*)""", re.DOTALL)


class QueryError(CalotypeError, ValueError):
    """The filter is not valid.

    Args:
        message: What was found.
        position: Index of its first character.
        length: In characters; 0 at the end of the filter.
        expected: What is valid there.
    """

    def __init__(self, message: str, *, position: int, length: int, expected: str) -> None:
        super().__init__(f"{message}; expected {expected}")
        self.position = position
        self.length = length
        self.expected = expected


def parse_query(text: str, *, tokenizers: Sequence[str] = ()) -> Query:
    """Parse a filter.

    Args:
        text: In the grammar above. An empty one matches every row.
        tokenizers: The keys for `tokens.KEY`; without any, `tokens` is an error.

    Raises:
        QueryError: The filter is not valid; the error has the position and what was expected.
    """
    if len(text) > _MAX_CHARACTERS:
        raise QueryError(
            f"the filter has {len(text)} characters",
            position=_MAX_CHARACTERS,
            length=len(text) - _MAX_CHARACTERS,
            expected=f"at most {_MAX_CHARACTERS}",
        )
    return _Parser(list(_tokens(text)), len(text), tuple(tokenizers)).whole()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    kind: str
    """`open`, `close`, `not`, `and`, `or`, or `term`."""
    text: str
    """Its characters in the filter."""
    at: int
    field: str = ""
    op: str = ""
    value: str = ""
    value_at: int = 0


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found is not None  # `word` matches everything that no other group matches
        end = found.end()
        if found["field"]:
            value = _VALUE.match(text, end)
            assert value is not None
            _check_closed(text, value, end)
            yield _Token(
                kind="term",
                text=text[at : value.end()],
                at=at,
                field=found["field"],
                op=found["op"],
                value=_text_of(value),
                value_at=end,
            )
            end = value.end()
        elif found["open"] or found["close"]:
            yield _Token(kind="open" if found["open"] else "close", text=found[0], at=at)
        elif found["minus"]:
            yield _Token(kind="not", text="-", at=at)
        elif found["word"] in ("AND", "OR", "NOT"):
            yield _Token(kind=found["word"].lower(), text=found["word"], at=at)
        elif not found["space"]:
            _check_closed(text, found, at)
            yield _Token(kind="term", text=found[0], at=at, value=_text_of(found), value_at=at)
        at = end


def _check_closed(text: str, found: re.Match[str], at: int) -> None:
    if found["quoted"] is not None and not found["end"]:
        raise QueryError("the quote is not closed", position=at, length=len(text) - at, expected='another "')


def _text_of(found: re.Match[str]) -> str:
    return found["word"] if found["quoted"] is None else re.sub(r"\\(.)", r"\1", found["quoted"], flags=re.DOTALL)


class _Parser:
    """Recursive descent: a method per rule of the grammar."""

    def __init__(self, tokens: list[_Token], end: int, tokenizers: tuple[str, ...]) -> None:
        self._tokens, self._end, self._tokenizers = tokens, end, tokenizers
        self._next, self._depth = 0, 0

    def whole(self) -> Query:
        if not self._tokens:
            return Everything()
        query = self._or()
        if (token := self._peek()) is not None:
            raise _unexpected(token, "AND, OR, or the end of the filter")
        return query

    def _or(self) -> Query:
        several = [self._and()]
        while self._take("or"):
            several.append(self._and())
        return several[0] if len(several) == 1 else AnyOf(tuple(several))

    def _and(self) -> Query:
        several = [self._not()]
        while (token := self._peek()) is not None and token.kind in ("and", "not", "open", "term"):
            self._take("and")
            several.append(self._not())
        return several[0] if len(several) == 1 else AllOf(tuple(several))

    def _not(self) -> Query:
        self._depth += 1
        try:
            token = self._peek()
            if token is not None and self._depth > _MAX_DEPTH:
                raise QueryError(
                    "the filter is nested too deeply",
                    position=token.at,
                    length=len(token.text),
                    expected=f"at most {_MAX_DEPTH} levels of NOT and parentheses",
                )
            if self._take("not"):
                return Not(self._not())
            if self._take("open"):
                query = self._or()
                if not self._take("close"):
                    raise self._wrong("AND, OR, or a closing parenthesis")
                return query
            if token is None or token.kind != "term":
                raise self._wrong('a word, "a text", or a field such as caption:, tokens> or is:')
            self._next += 1
            return self._term(token)
        finally:
            self._depth -= 1

    def _term(self, token: _Token) -> Query:
        if not token.field:
            return Contains("caption", token.value)
        name = token.field.lower()
        if name == "is" and token.op == ":":
            return Is(_one_of(token, FLAGS))
        if name in ("no", "has") and token.op == ":":
            _one_of(token, ("caption",))
            return Compares("captions", "=" if name == "no" else ">", 0.0)
        if name in TEXTS:
            return self._contains(token, name)
        if name.partition(".")[0] == "tokens" and not self._tokenizers:
            raise QueryError(
                "there are no tokenizers to count tokens with",
                position=token.at,
                length=len(token.field),
                expected="another field, or calotype studio started with --model",
            )
        if name in NUMBERS or (name.startswith("tokens.") and name[7:] in self._tokenizers):
            return self._compares(token, name)
        raise self._unknown(token, name)

    def _contains(self, token: _Token, name: str) -> Query:
        if token.op != ":":
            raise _at_value(token, f"{name} can't be compared with {token.op}", f"{name}:text", at_op=True)
        if not token.value:
            raise _at_value(token, f"{token.field}: has no text", "a text to search for")
        return Contains(name, token.value) if name in ("caption", "id") else Matches(name, token.value)

    def _compares(self, token: _Token, name: str) -> Query:
        if token.op == ":":
            expected = f"a comparison such as {name}>75 or {name}=2"
            raise _at_value(token, f"{name} is a number, which has no text to look for", expected, at_op=True)
        try:
            value = float(token.value)
        except ValueError:
            found = repr(token.value) if token.value else "nothing"
            raise _at_value(token, f"found {found} after {token.field}{token.op}", "a number") from None
        if not np.isfinite(value):
            raise _at_value(token, f"found {token.value!r}", "a finite number")
        return Compares(name, token.op, value)

    def _unknown(self, token: _Token, name: str) -> QueryError:
        known = sorted([*TEXTS, *NUMBERS, *(f"tokens.{key}" for key in self._tokenizers), "is", "no", "has"])
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return QueryError(
            f"there is no field {token.field!r}{hint}",
            position=token.at,
            length=len(token.field),
            expected=f"one of {', '.join(known)}, or quotes around a text with {token.op!r} in it",
        )

    def _peek(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _take(self, kind: str) -> bool:
        token = self._peek()
        if token is None or token.kind != kind:
            return False
        self._next += 1
        return True

    def _wrong(self, expected: str) -> QueryError:
        token = self._peek()
        if token is None:
            return QueryError("the filter ends too early", position=self._end, length=0, expected=expected)
        return _unexpected(token, expected)


def _unexpected(token: _Token, expected: str) -> QueryError:
    return QueryError(f"found {token.text!r}", position=token.at, length=len(token.text), expected=expected)


def _one_of(token: _Token, known: Sequence[str]) -> str:
    value = token.value.lower()
    if value in known:
        return value
    near = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]}?)" if near else ""
    found = repr(token.value) if token.value else "nothing"
    raise _at_value(token, f"found {found} after {token.field}:{hint}", f"one of {', '.join(known)}")


def _at_value(token: _Token, message: str, expected: str, *, at_op: bool = False) -> QueryError:
    at = token.at + len(token.field) if at_op else token.value_at
    length = len(token.op) if at_op else token.at + len(token.text) - token.value_at
    return QueryError(message, position=at, length=length, expected=expected)

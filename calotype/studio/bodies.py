"""The requests of the page, one pydantic model each. Invalid requests are rejected with the name of the field."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from calotype.captioning.modes import Mode
from calotype.config.section import Section
from calotype.errors import ConfigError
from calotype.manifest.strict_json import loads
from calotype.studio.tagging import SEPARATOR, TagChange

__all__ = [
    "BadRequestError",
    "Body",
    "CaptioningBody",
    "ChangesQuery",
    "CountQuery",
    "DetailsQuery",
    "DrawBody",
    "EditBody",
    "PlanBody",
    "RejectBody",
    "ReplaceBody",
    "RowEdit",
    "RowsQuery",
    "RunOptions",
    "SaveBody",
    "Selection",
    "StatisticsQuery",
    "TagBody",
    "TextsBody",
]

_MAX_CHARACTERS: Final = 20_000
"""Maximum characters of a caption."""
_MAX_NUMBER: Final = 1 << 63
_MAX_MESSAGE: Final = 300
"""Maximum characters of an error message: the value in it may be the whole body."""


class BadRequestError(Exception):
    """The body or query of a request is not valid."""


def _storable(text: str, info: ValidationInfo) -> str:
    """Check that a text can be written to a caption file."""
    if len(text) > _MAX_CHARACTERS:
        raise ConfigError(
            f"{info.field_name}: a text has {len(text):,} characters, expected at most {_MAX_CHARACTERS:,}"
        )
    if "\0" in text:
        raise ConfigError(f"{info.field_name}: a text has a NUL character, which no caption file can store")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{info.field_name}: a text has a lone surrogate, which UTF-8 cannot encode") from None
    return text


Text = Annotated[str, AfterValidator(_storable)]


class Body(Section):
    """A request without options; the base of all others."""

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Parse the JSON body of a request.

        Raises:
            BadRequestError: It is not JSON, not an object, has a key that is unknown or missing, or a wrong value.
        """
        try:
            data = loads(body)
        except (ValueError, RecursionError) as error:
            raise BadRequestError(f"the body is not valid JSON: {error}") from None
        if not isinstance(data, dict):
            raise BadRequestError("the body is JSON, but not an object")
        _check_numbers(data)
        return cls.parse(data)

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Self:
        """Check the values of a request. Raises as `read` does."""
        try:
            return cls.of(data, where="request")
        except ConfigError as error:
            message = str(error)
            raise BadRequestError(
                message if len(message) <= _MAX_MESSAGE else f"{message[: _MAX_MESSAGE - 1]}…"
            ) from None


def _check_numbers(value: Any) -> None:
    """Refuse NaN, infinity and numbers beyond 64 bits at any depth: options of transforms are plain JSON."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _check_numbers(item)
    elif isinstance(value, int | float) and not abs(value) < _MAX_NUMBER:
        raise BadRequestError("the body has NaN, infinity, or a number beyond 2^63")


class RowsQuery(Body):
    """`GET rows`: the rows that match a filter."""

    filter: str = ""
    sort: str = "order"


class CountQuery(Body):
    """`GET rows/count`: how many rows match the filter."""

    filter: str = ""


class DetailsQuery(Body):
    """`GET rows/details`: `numbers=0-59,120`."""

    numbers: str


class ChangesQuery(Body):
    """`GET changes`: what has changed since a sequence number."""

    since: Annotated[str, Field(pattern=r"^[0-9]{1,15}$")] = "0"
    shown: str = ""
    """The rows that the page shows, as `0-59,120`: they are compared with the disk first."""


class RowEdit(Body):
    """New captions or a new rejection mark of one row."""

    n: int
    id: str | None = None
    """What the page shows under this number; a restarted server may number its rows differently."""
    version: str
    """Version of the state that the person edited."""
    captions: Annotated[list[Text], Field(max_length=1000)] | None = None
    rejected: bool | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.captions is None and self.rejected is None:
            raise ConfigError("request.edits: expected captions, rejected, or both")
        return self


class EditBody(Body):
    """`POST edit`."""

    edits: Annotated[list[RowEdit], Field(min_length=1, max_length=1000)]
    label: str | None = None
    group: str | None = None

    @model_validator(mode="after")
    def _rows_are_distinct(self) -> Self:
        if len({edit.n for edit in self.edits}) < len(self.edits):
            raise ConfigError("request.edits: a row is listed twice")
        return self


class Selection(Body):
    """Rows by number or by filter; without either, all rows."""

    numbers: list[int] | None = None
    filter: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.numbers is not None and self.filter is not None:
            raise ConfigError("request.filter: has no effect beside numbers; leave one of them out")
        return self


class ReplaceBody(Selection):
    """`POST bulk/preview`: find and replace."""

    find: Text
    replace: Text
    regex: bool = False
    ignore_case: bool = False


class PlanBody(Body):
    """`POST bulk/apply`: the plan of an earlier preview."""

    plan: str


class StatisticsQuery(Body):
    """`GET statistics`: of the rows that match a filter."""

    filter: str = ""


class RejectBody(Selection):
    """`POST bulk/reject`: reject images, or restore them."""

    rejected: bool


class TagBody(Selection):
    """`POST bulk/tags`: add, remove or replace a tag or a word."""

    action: Literal["add", "remove", "replace"]
    unit: Literal["tag", "word"] = "tag"
    text: Annotated[Text, Field(min_length=1)]
    to: Text | None = None
    at: Literal["start", "end"] | None = None

    @model_validator(mode="after")
    def _fits_the_action(self) -> Self:
        if not self.text.strip() or (self.to is not None and not self.to.strip()):
            raise ConfigError(f"request.text: expected a {self.unit}; to remove one, set action to remove")
        if (self.to is None) is (self.action == "replace"):
            raise ConfigError(
                f"request.to: expected with action replace, and with it only; the action is {self.action}"
            )
        if self.at is not None and self.action != "add":
            raise ConfigError(f"request.at: has no effect with action {self.action}; it is for add")
        if self.unit == "tag" and SEPARATOR in self.text + (self.to or ""):
            raise ConfigError("request.text: a tag has no comma; change tags one at a time")
        return self

    @property
    def change(self) -> TagChange:
        """The change of each image's captions."""
        return TagChange(
            action=self.action,
            unit=self.unit,
            text=self.text.strip(),
            to=(self.to or "").strip(),
            at=self.at or "end",
        )


class TextsBody(Body):
    """`POST tokens`: texts to count the tokens of."""

    texts: Annotated[list[Text], Field(max_length=64)]


class RunOptions(Body):
    """The options of a captioning run."""

    backend: str = "transformers"
    model: str | None = None
    url: str | None = None
    preset: str = "descriptive"
    mode: Mode = "fill"
    force: bool = False
    n: Annotated[int, Field(ge=1, le=20)] | None = None
    class_word: str | None = None
    temperature: float | None = None


class CaptioningBody(RunOptions, Selection):
    """`POST captioning/start`. An option that is left out is that of the last run; null resets it."""

    @model_validator(mode="after")
    def _force_replaces(self) -> Self:
        if self.force and self.mode != "replace":
            raise ConfigError(f"request.force: has no effect with mode {self.mode}; it is for mode replace")
        return self


class _Transforms(Body):
    img_transform: dict[str, Any] | None = None
    caption_transform: dict[str, Any] | None = None

    @property
    def transforms(self) -> dict[str, dict[str, Any]]:
        """The options that are set, by name of the transform."""
        both = {"img_transform": self.img_transform, "caption_transform": self.caption_transform}
        return {name: options for name, options in both.items() if options is not None}


class DrawBody(_Transforms):
    """`POST augment/draw`: samples of one image."""

    n: int
    epochs: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], Field(min_length=1, max_length=16)]
    seed: Annotated[int, Field(ge=0)] | None = None


class SaveBody(_Transforms):
    """`POST augment/save`: write options to the config."""

    version: str | None = None
    """Version of the config that the page has."""
    dry_run: bool = False

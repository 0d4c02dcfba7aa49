"""`CaptionBackend`, the protocol of whatever writes captions, and `open_backend`, which finds one by its name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Protocol, runtime_checkable

from PIL import Image

from calotype.config.instantiate import check_options, locate
from calotype.errors import CaptionError, ConfigError

__all__ = [
    "ENTRY_POINTS",
    "CaptionAnswer",
    "CaptionBackend",
    "CaptionRequest",
    "backend_names",
    "check_backend",
    "open_backend",
]

ENTRY_POINTS: Final = "calotype.captioners"
"""The group of entry points in which other packages name their backends: a class or function that takes its options
by keyword and gives a `CaptionBackend`."""

_BUILT_IN: Final = {
    "http": "calotype.captioning.http_backend.HttpBackend",
    "transformers": "calotype.captioning.transformers_backend.TransformersBackend",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionRequest:
    """One image to be captioned."""

    image: Image.Image
    """RGB, upright, sRGB, alpha composited, no larger than it should be sent (`prepare_image` makes it)."""
    prompt: str
    """What the model is asked."""
    system: str | None = None
    """What it is told before that, where the preset has it."""
    task: str | None = None
    """The same for a model that has fixed tasks in the place of prompts (Florence-2's `<DETAILED_CAPTION>`)."""
    seed: int = 0
    """Picks one of the answers that a model may give: K captions of one prompt are K seeds. Without effect where the
    backend's temperature is 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionAnswer:
    """What became of one request: a caption, or the reason why there is none (one of `text` and `error` is set)."""

    text: str | None = None
    """The caption: one that can be stored as it is."""
    error: str | None = None
    """Why there is none, as a sentence for a person."""
    kind: str | None = None
    """A short word for the error, to count and sort by: `empty`, `cut_off`, `too_long`, `reasoning`, `refused` (the
    image or the prompt was), `failed` (the server or model failed), `timeout`, `out_of_memory`."""
    finish_reason: str | None = None
    """`stop`, `length`, …, as the backend says; None where there was no answer."""

    def __post_init__(self) -> None:
        if (self.text is None) == (self.error is None):
            raise ValueError(f"a CaptionAnswer has either a text or an error, not {self.text!r} and {self.error!r}")


@runtime_checkable
class CaptionBackend(Protocol):
    """Whatever writes captions. `tests/captioning/test_backends.py` holds each to this."""

    name: str
    """`http`, `transformers`, or that of the entry point."""
    model: str
    """What answers, so that another never goes by the same words: the server's name for it, or a local model's name
    with its revision or fingerprint."""
    batch_size: int
    """How many requests a call is best given."""
    concurrency: int
    """How many calls are best under way at a time, each from a thread of its own."""
    parameters: Mapping[str, Any]
    """Plain JSON: whatever else changes an answer (`max_tokens`, `temperature`, …)."""

    def caption(self, requests: Sequence[CaptionRequest], /) -> list[CaptionAnswer]:
        """One answer for each request, in their order. Safe from `concurrency` threads at a time.

        What is wrong with one image is the answer to that one and costs the others nothing; it is tried again a few
        times where that may help, never without end.

        Raises:
            CaptionError: What would befall every image alike: nobody listens at the address, no such model, no
                permission.
        """
        ...

    def close(self) -> None:
        """Gives up connections and memory; harmless when repeated. `contextlib.closing` makes a `with` of it."""
        ...


def backend_names() -> list[str]:
    """All that `open_backend` knows, sorted: calotype's own and those of installed packages."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def open_backend(name: str, **options: Any) -> CaptionBackend:
    """The backend of that name, ready to caption.

    Args:
        name: `http`, `transformers`, or an entry point of the group `calotype.captioners`.
        **options: Those of the backend (`model`, `url`, `device`, `max_tokens`, `temperature`, …); one that is None
            counts as not given.

    Raises:
        ConfigError: There is no such backend, or it has no such option.
        CaptionError: Its server can't be reached, or its model can't be had.
        MissingDependencyError: It needs an extra that is not installed.
    """
    check_backend(name, **options)
    return _factory(name)(**{key: value for key, value in options.items() if value is not None})


def check_backend(name: str, **options: Any) -> None:
    """Check the name and the options of a backend without opening it. Raises as `open_backend` does."""
    given = {key: value for key, value in options.items() if value is not None}
    check_options(_factory(name), (), given, where=f"caption backend {name!r}")


def _factory(name: str) -> Callable[..., CaptionBackend]:
    if name in _BUILT_IN:
        factory: Callable[..., CaptionBackend] = locate(_BUILT_IN[name])
        return factory
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in points:
        known = backend_names()
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"caption backend: there is none called {name!r}{hint} (known: {', '.join(known)}; a package adds its own "
            f"by an entry point of the group {ENTRY_POINTS!r})"
        )
    return _load(points[name])


def _load(point: EntryPoint) -> Callable[..., CaptionBackend]:
    package = point.dist.name if point.dist is not None else "a package"
    try:
        factory: Callable[..., CaptionBackend] = point.load()
    except Exception as error:
        raise CaptionError(
            f"caption backend {point.name!r}: {package} announces it as {point.value}, and importing that failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    return factory

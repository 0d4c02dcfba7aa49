"""`CaptionBackend`, the protocol of caption backends, and `open_backend`, which opens one by name."""

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
"""The group of entry points for backends of other packages: a class or function that takes its options by keyword
and returns a `CaptionBackend`."""

_BUILT_IN: Final = {
    "http": "calotype.captioning.http_backend.HttpBackend",
    "transformers": "calotype.captioning.transformers_backend.TransformersBackend",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionRequest:
    """One image to caption."""

    image: Image.Image
    """RGB, upright, sRGB, alpha composited, no larger than it should be sent (see `prepare_image`)."""
    prompt: str
    """The user message."""
    system: str | None = None
    """The system message; None if the preset has none."""
    task: str | None = None
    """The prompt for a model that has fixed tasks (Florence-2's `<DETAILED_CAPTION>`)."""
    seed: int = 0
    """Seed of the sampling: K captions of one prompt have K seeds. No effect at temperature 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionAnswer:
    """The result of one request: a caption, or why there is none (one of `text` and `error` is set)."""

    text: str | None = None
    """The caption, ready to be stored."""
    error: str | None = None
    """Why there is no caption, as a sentence."""
    kind: str | None = None
    """A short word for the error, to count and sort by: `empty`, `cut_off`, `too_long`, `reasoning`, `refused` (the
    image or the prompt was), `failed` (the server or model failed), `timeout`, `out_of_memory`."""
    finish_reason: str | None = None
    """`stop`, `length`, … from the backend; None if it returned none."""

    def __post_init__(self) -> None:
        if (self.text is None) == (self.error is None):
            raise ValueError(f"a CaptionAnswer has either a text or an error, not {self.text!r} and {self.error!r}")


@runtime_checkable
class CaptionBackend(Protocol):
    """A source of captions. `tests/captioning/test_backends.py` is its conformance test."""

    name: str
    """`http`, `transformers`, or the name of the entry point."""
    model: str
    """Identifies the weights: the server's name for the model, or a local model's name with its revision or
    fingerprint."""
    batch_size: int
    """Requests per call."""
    concurrency: int
    """Concurrent calls, each from its own thread."""
    parameters: Mapping[str, Any]
    """Plain JSON: everything else that changes a caption (`max_tokens`, `temperature`, …)."""

    def caption(self, requests: Sequence[CaptionRequest], /) -> list[CaptionAnswer]:
        """Return one answer per request, in their order. Safe from `concurrency` threads at a time.

        A failure of one image is the answer to that image and does not affect the others; retries are bounded.

        Raises:
            CaptionError: A failure that affects every image: the server is unreachable, no such model, no permission.
        """
        ...

    def close(self) -> None:
        """Release connections and memory. May be called again."""
        ...


def backend_names() -> list[str]:
    """Return the sorted names of all backends: calotype's own and those of installed packages."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def open_backend(name: str, **options: Any) -> CaptionBackend:
    """Open a backend by its name.

    Args:
        name: `http`, `transformers`, or an entry point of the group `calotype.captioners`.
        **options: Options of the backend (`model`, `url`, `device`, `max_tokens`, `temperature`, …); None means
            not set.

    Raises:
        ConfigError: There is no such backend, or it has no such option.
        CaptionError: Its server can't be reached, or its model can't be loaded.
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
            f"caption backend: found {name!r}, which does not exist{hint} (known: {', '.join(known)}; a package adds "
            f"its own by an entry point of the group {ENTRY_POINTS!r})"
        )
    return _load(points[name])


def _load(point: EntryPoint) -> Callable[..., CaptionBackend]:
    package = point.dist.name if point.dist is not None else "a package"
    try:
        factory: Callable[..., CaptionBackend] = point.load()
    except Exception as error:
        raise CaptionError(
            f"caption backend {point.name!r}: {package} registers it as {point.value}, which failed to import: "
            f"{type(error).__name__}: {error}"
        ) from error
    return factory

"""How images are fetched and kept: options of `dataset.fetch`, `dataset.downloads` and `dataset.pixel_cache`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from calotype.config.derived import Derived
from calotype.config.effects import FETCH, check_section
from calotype.config.expected import Expected
from calotype.config.section import Count, CountOrZero, PathText, Section, Text
from calotype.errors import ConfigError

__all__ = ["DownloadsConfig", "FetchConfig", "PixelCacheConfig"]

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False), Expected("a number of seconds above 0")]


class FetchConfig(Section):
    """Limits of fetching images by URL: options of `Fetcher`."""

    timeout: Seconds = 60.0
    """Seconds that one URL may take in all, with its redirects and retries."""
    read_timeout: Seconds = 15.0
    """Seconds to wait for the next bytes; and for a connection, at most 5."""
    max_bytes: Count = 64 * 1024 * 1024
    """Longer bodies are refused."""
    max_redirects: CountOrZero = 5
    """Redirects followed at most."""
    retries: CountOrZero = 3
    """Retries after a timeout, a broken connection, or one of the statuses 408, 425, 429, 500, 502, 503 and 504."""
    allow_private: bool = False
    """Also fetch from loopback, private, link-local and reserved addresses."""
    user_agent: Annotated[Text | None, Derived("calotype and its version")] = None
    """The User-Agent header."""
    connections: Count = 32
    """Images fetched at a time."""
    connections_per_host: Count = 32
    """Of these, how many from one host; lower it for a server that is not yours and asks for it."""

    @model_validator(mode="after")
    def _have_effects(self) -> Self:
        check_section(self, FETCH)
        return self


class DownloadsConfig(Section):
    """A bounded local copy of fetched files: options of `Downloads`."""

    @model_validator(mode="before")
    @classmethod
    def _has_a_directory(cls, options: Any) -> Any:
        if isinstance(options, Mapping) and options.get("directory") is None:
            raise ConfigError(f"downloads: found {sorted(options)}, expected a `directory` among them")
        return options

    directory: PathText
    """Folder of the downloads."""
    max_images: Count | None = None
    """Images kept at most."""
    max_bytes: Count | None = None
    """Bytes kept at most."""


class PixelCacheConfig(Section):
    """Decoded pixels in memory: options of `PixelCache`."""

    max_images: CountOrZero | None = None
    """Images kept at most."""
    max_bytes: CountOrZero | None = None
    """Bytes of pixels kept at most."""

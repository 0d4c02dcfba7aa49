"""`make_fetcher`: what fetches the images of a dataset that have URLs, from the dataset's options. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from calotype.config.dataset import DatasetConfig
from calotype.config.image_files import DownloadsConfig
from calotype.images.downloads import Downloads
from calotype.images.fetch import Fetcher

__all__ = ["make_fetcher"]


def make_fetcher(options: DatasetConfig) -> Fetcher:
    """Make the fetcher.

    Raises:
        ConfigError: An option is out of its range, or the folder of downloads can't be written.
    """
    given = {} if options.fetch is None else options.fetch.given()
    return Fetcher(downloads=_downloads(options.downloads), **given)


def _downloads(option: str | Path | DownloadsConfig | None) -> Downloads | None:
    if option is None:
        return None
    return Downloads(**option.given()) if isinstance(option, DownloadsConfig) else Downloads(option)

"""The strategies that a bench compares, each a way to feed a training run, and their config. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from calotype.config import Config
from calotype.errors import unknown_key

__all__ = ["STRATEGIES", "Strategy", "choose", "settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """One way to feed a training run."""

    name: str
    title: str
    """Title in tables."""
    config: tuple[str, ...] = ()
    """The lines of config it needs, as `section.key: value`."""
    dataset: Mapping[str, Any] = field(default_factory=dict)
    """Its options in the config's `dataset` section; `{scratch}` is replaced by a temporary folder."""
    loader: Mapping[str, Any] = field(default_factory=dict)
    """Its options in the `loader` section."""
    encodings: Mapping[str, Any] | None = None
    """Its options in the `encodings` section. None is online: batches hold pixels, and the frozen models run in every
    step."""
    encoded_before: bool = False
    """Whether everything is encoded before the first step."""
    remote: bool = False
    """Whether it has an effect only for images from URLs."""
    fixed_geometry: bool = False
    """Whether it needs the same crops in each epoch."""


STRATEGIES: Final = (
    Strategy(name="none", title="nothing"),
    Strategy(
        name="downloads",
        title="download cache",
        config=("dataset.downloads: downloads",),
        dataset={"downloads": "{scratch}/downloads"},
        remote=True,
    ),
    Strategy(
        name="pixel_cache",
        title="pixels in memory",
        config=("dataset.pixel_cache: {}",),
        dataset={"pixel_cache": {}},
    ),
    Strategy(
        name="device_cache",
        title="pixels on the device",
        config=("loader.device_cache: true",),
        loader={"device_cache": True},
        fixed_geometry=True,
    ),
    Strategy(
        name="encodings",
        title="encodings on disk",
        config=("encodings.store: encodings",),
        encodings={"store": "{scratch}/encodings"},
        encoded_before=True,
    ),
    Strategy(
        name="encodings_memory",
        title="encodings in memory",
        config=("encodings.store: encodings", "encodings.in_memory: true"),
        encodings={"store": "{scratch}/encodings", "in_memory": True},
        encoded_before=True,
    ),
    Strategy(
        name="encodings_device",
        title="encodings on the device",
        config=("encodings.store: encodings", "loader.device_cache: true"),
        loader={"device_cache": True},
        encodings={"store": "{scratch}/encodings"},
        encoded_before=True,
    ),
    Strategy(
        name="on_the_fly",
        title="encodings on the fly",
        config=("encodings.store: encodings", "encodings.on_the_fly: true"),
        encodings={"store": "{scratch}/on_the_fly", "on_the_fly": True},
    ),
)
"""Ordered from the shortest config to the longest, similar ones together."""


def choose(names: Sequence[str] | None) -> tuple[Strategy, ...]:
    """Return the strategies of these names, in the order of `STRATEGIES`; `none`, the baseline, is always included.

    Raises:
        ConfigError: There is no such strategy.
    """
    known = [one.name for one in STRATEGIES]
    if names is None:
        return STRATEGIES
    for name in names:
        if name not in known:
            raise unknown_key("strategies", name, known)
    return tuple(one for one in STRATEGIES if one.name in (*names, "none"))


def settings(config: Config, strategy: Strategy, scratch: str) -> Config:
    """Return a config with a strategy's caches instead of its own.

    Args:
        config: The config.
        strategy: The strategy.
        scratch: Folder for the strategy's files.
    """

    def section(given: Mapping[str, Any], without: Sequence[str], more: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in given.items() if key not in without}
        return kept | {
            key: value.format(scratch=scratch) if isinstance(value, str) else value for key, value in more.items()
        }

    dataset = section(config.dataset_options(), ("downloads", "pixel_cache"), strategy.dataset)
    if strategy.encodings is None:  # the texts are encoded in each step
        dataset["include"] = list(dict.fromkeys([*dataset.get("include", ()), "text"]))
    loader = {} if config.loader is None else config.to_mapping()["loader"]
    encodings = {} if config.encodings is None else config.encodings.given()
    cached = strategy.encodings or {"store": "{scratch}/encodings"}
    return config.updated(
        dataset=dataset,
        loader=section(loader, ("device_cache",), strategy.loader),
        encodings=section(encodings, ("store", "on_the_fly", "in_memory"), cached),
    )

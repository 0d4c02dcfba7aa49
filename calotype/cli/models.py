"""`calotype models`: the models that every command knows by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from calotype.cli.common import Json
from calotype.terminal import emit, say

if TYPE_CHECKING:
    from calotype.models.spec import ModelSpec

__all__ = ["models"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """What can be done with a model."""

    name: str
    family: str
    hub: str
    """The repository that is downloaded."""
    resolution: int
    """Side in pixels of the images that it was trained on."""
    tokens: bool
    """Whether batches of images hold the tokens of its text encoders."""
    encoded: bool
    """Whether `calotype encode` runs its frozen models."""
    trained: bool
    """Whether `calotype train` trains it."""
    references: bool
    """Whether its samples may have reference images."""


def models(json: Json = False) -> None:
    """List the models that a name stands for, and what each can be used for."""
    from calotype.models.registry import list_specs

    rows = [_row(spec) for spec in list_specs()]
    if json:
        emit([asdict(row) for row in rows])
        return
    width = max(len(row.name) for row in rows)
    say(f"{'name':<{width}}  size  train  on the hub")
    for row in rows:
        say(f"{row.name:<{width}}  {row.resolution:>4}  {'yes' if row.trained else 'no':<5}  {row.hub}")


def _row(spec: ModelSpec) -> _Model:
    from calotype.models.registry import get_family

    return _Model(
        name=spec.name,
        family=spec.family,
        hub=spec.hub[0],
        resolution=spec.resolution,
        tokens=bool(spec.tokenizers),
        encoded=True,  # a family encodes by definition
        trained=get_family(spec.family).network is not None,
        references=False,  # samples have one image each
    )

"""`calotype bench`: which cache is worth it for this dataset, model and machine."""

from __future__ import annotations

from typing import Annotated

import typer

from calotype.cli.common import AnyModel, Json, Overrides, Source, read_config
from calotype.terminal import emit, say

__all__ = ["bench"]


def bench(
    source: Source,
    overrides: Overrides = None,
    model: AnyModel = None,
    strategies: Annotated[
        str | None, typer.Option(help="Names of those to measure: none,encodings,…; all by default.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Batches to time with each, for 5 s at most.")] = 10,
    json: Json = False,
) -> None:
    """Time real training steps with each cache, and report which is worth it."""
    from calotype.bench.strategies import choose

    config = read_config(source, overrides, model=model, tokenizers=None, encodes=True)
    names = None if strategies is None else [name.strip() for name in strategies.split(",")]
    choose(names)  # a misspelt one is an error before anything heavy is imported

    from calotype.bench.show import lines
    from calotype.progress import track

    with track("loading PyTorch"):
        from calotype.bench.run import bench_config

    report = bench_config(config, strategies=names, steps=steps, track=track, tell=lambda text: say(text, error=True))
    if json:
        emit(report.to_json())
        return
    for line in lines(report):
        say(line)

"""Checkpoints: a folder for each, whole or not there, with all that a run needs to go on as if it had never stopped.

output/checkpoints/step-00000250/
    trained.safetensors                  the trained parameters, by name, float32
    pytorch_lora_weights.safetensors     the LoRA as pipelines load it
    optimizer.pt                         optimizer, learning rate schedule, moving average; loaded as data only
    state.json                           step, the loader's position, the options
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, cast

import torch
from safetensors.torch import load_file, save_file

from calotype.errors import ConfigError

__all__ = ["Checkpoint", "Options", "latest", "save", "to_resume"]

_FORMAT: Final = 1


class Options(Protocol):
    """A recipe's options: a dataclass of plain values."""

    MAY_CHANGE: ClassVar[frozenset[str]]
    """Those that a resumed run may have otherwise: they decide when it ends and what is shown, not what is computed."""

    BEFORE: ClassVar[Mapping[str, Any]]
    """Of options that older checkpoints lack: what these were trained with."""

    @property
    def keep_checkpoints(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One that is there."""

    folder: Path
    step: int
    """Steps that were done."""
    loader: Mapping[str, Any]
    """What the loader's `state_dict` gave, the same on every rank."""
    options: Mapping[str, Any]
    """Of the run that wrote it."""

    def check(self, options: Options) -> None:
        """Refuses to go on under options that would have computed something else.

        Raises:
            ConfigError: Names those that differ.
        """
        was, now = {**options.BEFORE, **self.options}, _plain(options)
        other = [name for name in now if name not in options.MAY_CHANGE and was.get(name) != now[name]]
        if other:
            differences = "; ".join(f"{name} was {was.get(name)!r}, is {now[name]!r}" for name in other)
            raise ConfigError(
                f"{self.folder}: was written with other options: {differences}. Go on with what they were, or begin "
                "anew in another output_dir"
            )

    def restore(self, trained: Mapping[str, torch.nn.Parameter], **parts: Any) -> None:
        """Puts back what was saved.

        Args:
            trained: The parameters, by the names they were saved under.
            **parts: Whatever has `load_state_dict`, by the names they were saved under.

        Raises:
            ConfigError: The checkpoint is of other parameters.
        """
        tensors = load_file(self.folder / "trained.safetensors")
        if {name: value.shape for name, value in tensors.items()} != {n: p.shape for n, p in trained.items()}:
            raise ConfigError(f"{self.folder}: holds other parameters than are trained here; is it of another model?")
        for name, parameter in trained.items():
            parameter.data.copy_(tensors[name])
        states = torch.load(self.folder / "optimizer.pt", map_location="cpu", weights_only=True)
        for name, part in parts.items():
            if part is not None:
                part.load_state_dict(states[name])


def save(
    folder: Path,
    *,
    step: int,
    trained: Mapping[str, torch.nn.Parameter],
    parts: Mapping[str, Any],
    loader: Mapping[str, Any],
    options: Options,
    result: Callable[[Path], object],
) -> Path:
    """Writes one checkpoint and deletes those before the last `options.keep_checkpoints`.

    It is written under another name and renamed when it is whole, so a kill leaves the one before it.

    Args:
        folder: Of all checkpoints.
        step: Steps that were done.
        trained: The parameters that are trained.
        parts: What has a `state_dict`, by name; None is left out.
        loader: The loader's `state_dict`.
        options: Of the run.
        result: Writes into a folder what else is wanted there: the LoRA as pipelines load it, say.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".writing-*"):
        shutil.rmtree(left, ignore_errors=True)
    target = folder / f"step-{step:08d}"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-", ignore_cleanup_errors=True) as scratch:
        new = Path(scratch) / target.name
        new.mkdir()
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in trained.items()}, new / "trained.safetensors"
        )
        torch.save({n: part.state_dict() for n, part in parts.items() if part is not None}, new / "optimizer.pt")
        result(new)
        state = {"format": _FORMAT, "step": step, "loader": dict(loader), "options": _plain(options)}
        (new / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        new.rename(target)
    for old in _all(folder)[: -options.keep_checkpoints]:
        shutil.rmtree(old)
    return target


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of a folder of them; None where there is none.

    Raises:
        ConfigError: It can't be read.
    """
    found = _all(folder)
    if not found:
        return None
    try:
        state = json.loads((found[-1] / "state.json").read_bytes())
        if state["format"] != _FORMAT:
            raise ValueError(f"its format is {state['format']}, {_FORMAT} was expected")
        return Checkpoint(folder=found[-1], step=state["step"], loader=state["loader"], options=state["options"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{found[-1]}: can't be read as a checkpoint ({error}); delete it to go on from the one before"
        ) from error


def to_resume(folder: Path, options: Options, *, resume: bool) -> Checkpoint | None:
    """The newest checkpoint of a folder of them, to go on from; None where a run begins.

    Args:
        folder: Of all checkpoints.
        options: Of the run that would go on.
        resume: Whether it was asked to.

    Raises:
        ConfigError: There is one and `resume` is not set; or it is of another run, or can't be read.
    """
    found = latest(folder)
    if found is not None:
        if not resume:
            raise ConfigError(
                f"{found.folder}: is of an earlier run; --resume goes on with it, output_dir=… begins anew"
            )
        found.check(options)
    return found


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _plain(options: Options) -> dict[str, Any]:
    """As they come back out of JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(cast("Any", options))))
    return plain

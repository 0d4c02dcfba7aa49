"""Checkpoints: a folder for each, written atomically, from which a run resumes exactly.

output/checkpoints/step-00000250/
    trained.safetensors                  the trained parameters, by name, float32
    pytorch_lora_weights.safetensors     the LoRA as pipelines load it
    optimizer.pt                         optimizer, learning rate schedule, moving average; loaded with `weights_only`
    state.json                           step, position of the loader, options, a checksum of each other file
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

import torch
import xxhash
from safetensors.torch import load_file, save_file

from calotype.core.atomic import flush_folder, sync_folder
from calotype.errors import ConfigError
from calotype.train.room import room_for, tensor_bytes
from calotype.train.run_folder import refuse_earlier, sole_run

__all__ = ["Checkpoint", "Options", "latest", "save", "to_resume"]

_FORMAT: Final = 1
_PIECE: Final = 1 << 20
_SET_ASIDE: Final = "damaged-"
"""Prefix of an unreadable checkpoint, after a run has resumed from an older one."""


class Options(Protocol):
    """The options of a run: a section of a config."""

    MAY_CHANGE: ClassVar[frozenset[str]]
    """Options that a resumed run may change: they affect when it ends and what it reports, but not its steps."""

    BEFORE: ClassVar[Mapping[str, Any]]
    """Values of options that older checkpoints lack."""

    @property
    def keep_checkpoints(self) -> int: ...

    @property
    def max_steps(self) -> int: ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """Return the options as plain values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint on the disk."""

    folder: Path
    step: int
    """Number of finished steps."""
    loader: Mapping[str, Any]
    """The loader's `state_dict`, the same on every rank."""
    options: Mapping[str, Any]
    """Options of the run that wrote it."""
    damaged: tuple[str, ...] = ()
    """A message for each newer checkpoint that is unreadable or incomplete."""

    def check(self, options: Options, *, unused: Collection[str] = ()) -> None:
        """Refuse options that change the computation, or a `max_steps` below the finished steps.

        Args:
            options: The options of this run.
            unused: Names of options without an effect beside the others; they are not compared.

        Raises:
            ConfigError: Names those that differ.
        """
        was, now = {**options.BEFORE, **self.options}, _plain(options)
        compared = now.keys() - options.MAY_CHANGE - set(unused)
        other = [name for name in now if name in compared and was.get(name) != now[name]]
        if other:
            differences = "; ".join(f"{name} was {was.get(name)!r}, is {now[name]!r}" for name in other)
            raise ConfigError(
                f"{self.folder}: was written with other options: {differences}. Resume with what they were, or begin "
                "anew in another output_dir"
            )
        if options.max_steps < self.step:
            raise ConfigError(
                f"{self.folder}: {self.step} steps are done, and max_steps is {options.max_steps}, which counts them "
                f"too. Set max_steps={self.step} or more, or begin anew in another output_dir"
            )

    def verify(self) -> None:
        """Compare its files, as this process reads them, with their checksums.

        Raises:
            Exception: A file is damaged or missing.
        """
        _read(self.folder, self.damaged)

    def restore(self, trained: Mapping[str, torch.nn.Parameter], **parts: Any) -> None:
        """Load the checkpoint into parameters and objects.

        Args:
            trained: The parameters, by their saved names.
            **parts: Objects with `load_state_dict`, by their saved names; None is skipped.

        Raises:
            ConfigError: The checkpoint has other parameters.
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
    result_bytes: int = 0,
) -> Path:
    """Write a checkpoint, and delete those before the last `options.keep_checkpoints`.

    It is written under a temporary name, flushed to the disk and then renamed: a kill or a power failure leaves the
    previous checkpoints intact.

    Args:
        folder: The folder of all checkpoints.
        step: Number of finished steps.
        trained: The trained parameters, by name.
        parts: Objects with a `state_dict`, by name; None is skipped.
        loader: The loader's `state_dict`.
        options: The options of the run.
        result: Writes further files into a folder: the LoRA as pipelines load it.
        result_bytes: Approximate size of these files.

    Returns:
        The checkpoint's folder.

    Raises:
        ConfigError: Another run is writing a checkpoint into the same folder, or the disk is full. Older checkpoints
            are intact.
    """
    folder.mkdir(parents=True, exist_ok=True)
    states = {name: part.state_dict() for name, part in parts.items() if part is not None}
    needed = tensor_bytes(trained) + tensor_bytes(states) + result_bytes
    target = folder / f"step-{step:08d}"
    with sole_run(folder.with_name(f".{folder.name}.lock"), folder) as alone:
        if alone:  # no other run is writing here: these are from killed runs
            for left in folder.glob(".writing-*"):
                shutil.rmtree(left, ignore_errors=True)

        # Write the files under a temporary name.
        with (
            room_for(folder, needed, what=f"the checkpoint of step {step}"),
            tempfile.TemporaryDirectory(dir=folder, prefix=".writing-", ignore_cleanup_errors=True) as scratch,
        ):
            new = Path(scratch) / target.name
            new.mkdir()
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in trained.items()},
                new / "trained.safetensors",
            )
            with (new / "optimizer.pt").open("wb") as file:  # a Python file: its error has the errno of a full disk
                torch.save(states, file)
            result(new)
            state = {
                "format": _FORMAT,
                "step": step,
                "loader": dict(loader),
                "options": _plain(options),
                "files": _checksums(new),
            }
            (new / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
            flush_folder(new)
            # Rename, and only then delete: a kill leaves no partial checkpoint under its final name.
            if target.exists():
                target.rename(Path(scratch) / "before")
            new.rename(target)
            sync_folder(folder)
            for old in _all(folder)[: -options.keep_checkpoints]:
                old.rename(Path(scratch) / old.name)
    return target


def latest(folder: Path) -> Checkpoint | None:
    """Return the newest complete checkpoint of a folder, with messages about newer, damaged ones; None without any.

    Raises:
        ConfigError: All are damaged, or the newest was written by a newer version of calotype.
    """
    damaged: list[str] = []
    for path in reversed(_all(folder)):
        try:
            return _read(path, tuple(damaged))
        except ConfigError:
            raise
        except Exception as error:  # each library has its own errors for damaged bytes
            damaged.append(f"{path}: is damaged ({_reason(error)})")
    if damaged:
        raise ConfigError(
            f"{damaged[0]}, and no older checkpoint is whole. Copy a whole one there, or begin anew in another "
            "output_dir"
        )
    return None


def to_resume(folder: Path, options: Options, *, resume: bool, unused: Collection[str] = ()) -> Checkpoint | None:
    """Return the newest complete checkpoint of a folder, to resume from; None for a new run.

    Newer, damaged ones are renamed to `damaged-step-…`, so that the run can write its own.

    Args:
        folder: The folder of all checkpoints.
        options: The options of this run.
        resume: Whether to resume.
        unused: Names of options without an effect beside the others; they are not compared.

    Raises:
        ConfigError: There is a checkpoint and `resume` is not set; it is from another run; or none can be read.
    """
    if not resume:
        refuse_earlier(folder)
        return None
    found = latest(folder)
    if found is not None:
        found.check(options, unused=unused)
        torn = sorted(path for path in folder.glob(".writing-*/step-*") if path.name > found.folder.name)
        notes = [f"{path}: was not whole when its run was killed; the next checkpoint deletes it" for path in torn]
        found = replace(found, damaged=(*found.damaged, *notes))
        for path in _all(folder)[_all(folder).index(found.folder) + 1 :]:
            aside = path.with_name(_SET_ASIDE + path.name)
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
    return found


def _read(path: Path, damaged: tuple[str, ...]) -> Checkpoint:
    """Read a checkpoint; compare each file with its checksum.

    Raises:
        ConfigError: A newer version of calotype wrote it.
        Exception: A file is damaged or missing.
    """
    state = json.loads((path / "state.json").read_bytes())
    if state["format"] != _FORMAT:
        if isinstance(state["format"], int) and state["format"] > _FORMAT:
            raise ConfigError(f"{path}: has format {state['format']}, this calotype reads {_FORMAT}: update calotype")
        raise ValueError(f"its format is {state['format']!r}, {_FORMAT} was expected")
    found = Checkpoint(
        folder=path, step=state["step"], loader=state["loader"], options=state["options"], damaged=damaged
    )
    if "files" in state:
        there = _checksums(path)
        for name, checksum in state["files"].items():
            if there.get(name) != checksum:
                raise ValueError(f"{name} is {'not what was written' if name in there else 'missing'}")
    else:  # from a version without checksums
        load_file(path / "trained.safetensors")
        torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
    return found


def _checksums(folder: Path) -> dict[str, str]:
    """Return the xxh3 of each file except `state.json`, by its path in the folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "state.json":
            digest = xxhash.xxh3_64()
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
            found[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{Path(error.filename).name}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, KeyError):
        return f"state.json has no {error}"
    return f"{error}".partition("\n")[0][:120] or type(error).__name__


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _plain(options: Options) -> dict[str, Any]:
    """Return the options as JSON restores them."""
    return options.model_dump(mode="json")

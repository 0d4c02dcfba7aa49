"""The exceptions of calotype:

    CalotypeError
    ├── ConfigError (ValueError)              an option is misspelt, has the wrong type, or contradicts another
    │   └── MissingTokenizerError             a model's tokenizer is missing; everything without tokens works
    ├── ManifestError (ValueError)            a data file, folder or row can't be read
    │   ├── MissingPathError                  a file or folder does not exist
    │   └── MissingCaptionError               images have no caption, and `missing_captions` is not set
    ├── ImageError (ValueError)               one image can't be read
    │   ├── DecodeError                       its bytes are not a complete, supported image
    │   ├── DecompressionBombError            its header has more pixels than allowed
    │   └── FetchError                        it can't be fetched from its URL
    ├── CollateError (ValueError)             samples can't be collated to a batch
    ├── LoaderError (RuntimeError)            the loader process ended, or the loader was misused
    ├── StoreError (RuntimeError)             the store of encodings is damaged or full
    │   └── NewerFormatError                  a newer version of calotype wrote it
    ├── EditError (ValueError)                captions can't be changed in place
    ├── NotFiniteError (ArithmeticError)      losses, gradients or weights are NaN or inf
    ├── RankError (RuntimeError)              another rank of a distributed training ended
    ├── CaptionError (RuntimeError)           captioning is impossible: no server, model or permission
    ├── ConvertError (RuntimeError)           a dataset can't be converted, or its result differs
    └── MissingDependencyError (ImportError)  an optional package is not installed

A message has what was found, where (file, line or row), what was expected, and how to fix it.
"""

from __future__ import annotations

import difflib
import shlex
import shutil
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Self

__all__ = [
    "MOST",
    "CalotypeError",
    "CaptionError",
    "CollateError",
    "ConfigError",
    "ConvertError",
    "DecodeError",
    "DecompressionBombError",
    "EditError",
    "FetchError",
    "ImageError",
    "LoaderError",
    "ManifestError",
    "MissingCaptionError",
    "MissingDependencyError",
    "MissingPathError",
    "MissingTokenizerError",
    "NewerFormatError",
    "NotFiniteError",
    "RankError",
    "StoreError",
    "install_command",
    "nearest",
    "or_list",
    "unknown_key",
]


class CalotypeError(Exception):
    """The base class of all exceptions of calotype."""


class ConfigError(CalotypeError, ValueError):
    """An option is misspelt, has a wrong type or range, or contradicts another. Raised at construction."""


class MissingTokenizerError(ConfigError):
    """A model's tokenizer is not at the given path, and can't be downloaded; the message has how to get it."""


class ManifestError(CalotypeError, ValueError):
    """A data file, folder or row can't be read as images and captions."""


class MissingPathError(ManifestError):
    """The path of a dataset does not exist."""


class MissingCaptionError(ManifestError):
    """Some images have no caption, and `missing_captions` is not set."""


class ImageError(CalotypeError, ValueError):
    """One image can't be read.

    Args:
        ref: Name of the image: a path, URL, `shard.tar!member`.
        reason: What is wrong, and how to fix it if possible.
        kind: A short identifier of the reason, to count by; each class has a default.
    """

    kind = "unreadable"
    """`missing_file`, `unreadable`, `empty_file`, `not_an_image`, `unsupported`, `truncated`, `damaged`,
    `too_many_pixels`, `too_costly` or `fetch_failed`."""

    def __init__(self, ref: str, reason: str, *, kind: str | None = None) -> None:
        super().__init__(ref, reason)
        self.ref = ref
        self.reason = reason
        if kind is not None:
            self.kind = kind

    def __str__(self) -> str:
        return f"{self.ref}: {self.reason}"

    @property
    def why(self) -> str:
        """The reason in a word or two, to count by while a person waits: `truncated`; of a URL, `404` or `timeout`."""
        return self.kind.replace("_", " ")

    def without_traceback(self) -> Self:
        """Return this error to store as a value, without frames and causes, which take some 14 kB."""
        self.__traceback__ = self.__cause__ = self.__context__ = None
        return self


class DecodeError(ImageError):
    """The bytes are not a complete image of a supported format."""

    kind = "damaged"


class DecompressionBombError(ImageError):
    """The header has more pixels than `max_pixels`, or decoding would take far too much time or memory."""

    kind = "too_many_pixels"


class FetchError(ImageError):
    """The image can't be fetched from its URL.

    Args:
        ref: The URL, without passwords.
        reason: As of `ImageError`.
        why: The status, such as `404`, or what is in its place: `timeout`, `no such host`.
    """

    kind = "fetch_failed"

    def __init__(self, ref: str, reason: str, *, why: str = "not fetched") -> None:
        super().__init__(ref, reason)
        self._why = why

    @property
    def why(self) -> str:
        return self._why


class CollateError(CalotypeError, ValueError):
    """Samples with different keys, shapes or dtypes can't be collated to a batch."""


class LoaderError(CalotypeError, RuntimeError):
    """The loader process ended, or the loader was misused."""


class StoreError(CalotypeError, RuntimeError):
    """The store of encodings can't be opened, read or written.

    Args:
        message: What was found, where, and how to fix it.
        shard: The affected file, if any.
        key: The affected record, if any.
    """

    def __init__(self, message: str, *, shard: str | None = None, key: bytes | None = None) -> None:
        super().__init__(message)
        self.shard = shard
        self.key = key


class NewerFormatError(StoreError):
    """A newer version of calotype wrote this store or shard; this version can't read it."""


class EditError(CalotypeError, ValueError):
    """Captions can't be changed in place: the data's format can't be written, or can't hold them."""


class NotFiniteError(CalotypeError, ArithmeticError):
    """Training stopped: losses, gradients or weights are NaN or inf. Earlier checkpoints are good."""


class RankError(CalotypeError, RuntimeError):
    """Distributed training stopped: another rank ended, and its message has the reason."""


class CaptionError(CalotypeError, RuntimeError):
    """No image can be captioned: the server is unreachable or refuses, or the model can't be loaded or used."""


class ConvertError(CalotypeError, RuntimeError):
    """A conversion stopped: an image can't be read, or the written data differs when read back."""


class MissingDependencyError(CalotypeError, ImportError):
    """An optional package is not installed.

    Args:
        package: The module that could not be imported.
        extra: The extra of calotype that installs it.
        purpose: The end of the sentence "X is needed …": `to read LMDB`.
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(f"the package {package!r} is needed {purpose}, and is not installed: {install_command(extra)}")
        self.package = package
        self.extra = extra
        self.purpose = purpose

    def __reduce__(self) -> Any:
        return _missing_dependency, (self.package, self.extra, self.purpose)


def _missing_dependency(package: str, extra: str, purpose: str) -> MissingDependencyError:
    return MissingDependencyError(package, extra=extra, purpose=purpose)


def install_command(extra: str) -> str:
    """Return the shell command that installs an extra of calotype into the environment of this process.

    An installed calotype satisfies the requirement `calotype[extra]`, so the command adds the extra's packages, and
    calotype itself is on no index. A clone that is not installed, or was before it had the extra, is installed again.
    """
    from importlib import metadata  # slow to import, and few processes advise

    python = sys.executable
    if shutil.which("python") == python:  # the environment is activated
        python = "python"
    elif Path(python).is_relative_to(Path.cwd()):
        python = str(Path(python).relative_to(Path.cwd()))
    if find_spec("pip"):
        command = [python, "-m", "pip", "install"]
    else:  # uv makes environments without pip
        command = ["uv", "pip", "install", "--python", python]
    try:
        known = metadata.metadata("calotype").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        known = []
    clone = Path(__file__).parents[1]
    # The quotes are for zsh, in which [ ] is a pattern.
    if extra not in known and (clone / "pyproject.toml").is_file():
        return f"{shlex.join(command)} --editable '{clone}[{extra}]'"
    return f"{shlex.join(command)} 'calotype[{extra}]'"


_ALL: Final = 12
"""Most names that an error lists as the known ones."""
_NEAR: Final = 0.65
_AS_NEAR: Final = 0.03
"""How near a name must be to be suggested, and how much further than the nearest one."""
MOST: Final = 3
"""Most names that an error suggests."""


def nearest(given: str, known: Iterable[str]) -> list[str]:
    """Return the known names that a misspelt one may mean: the nearest first, at most three, often none.

    Args:
        given: The name: `lr`, `batchsize`.
        known: The names there are.
    """
    scores = {name: _closeness(given, name) for name in known}
    best = max(scores.values(), default=0.0)
    near = [name for name, score in scores.items() if score >= max(_NEAR, best - _AS_NEAR)]
    return sorted(near, key=lambda name: (-scores[name], len(name)))[:MOST]


def _closeness(given: str, name: str) -> float:
    """How near two names are, up to 1: spelt alike, or one has some of the other's words (`steps`, `max_steps`)."""
    given, name = (one.lower().replace("-", "_").strip("_") for one in (given, name))
    alike = difflib.SequenceMatcher(None, given, name).ratio()
    words, others = ({word.removesuffix("s") for word in one.split("_")} for one in (given, name))
    return max(alike, 0.75) if words < others or words > others else alike


def or_list(names: Iterable[str]) -> str:
    """Return names as `'a', 'b' or 'c'`."""
    *others, last = [repr(name) for name in names]
    return f"{', '.join(others)} or {last}" if others else last


def unknown_key(where: str, key: str, known: Iterable[str], *, listed_by: str | None = None) -> ConfigError:
    """Return the error for an unknown option, with the nearest known ones and, unless there are many, all others.

    Args:
        where: The section, as the error calls it.
        key: The unknown option.
        known: The options there are.
        listed_by: The command that lists them.
    """
    known = sorted(known)
    near = nearest(key, known)
    hint = f"; did you mean {or_list(near)}?" if near else ""
    if len(known) <= _ALL:
        return ConfigError(f"{where}: unknown option {key!r}{hint} (known: {', '.join(known)})")
    others = f" (`{listed_by}` lists all)" if listed_by else "" if near else f" (known: {', '.join(known)})"
    return ConfigError(f"{where}: unknown option {key!r}{hint}{others}")

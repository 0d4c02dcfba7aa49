"""Every error calotype raises on purpose, as one tree.

    CalotypeError
    ├── ConfigError (ValueError)              an option is misspelt, has the wrong type, or contradicts another
    │   └── MissingTokenizerError             a model's tokenizer can't be had; all that needs no tokens still works
    ├── ManifestError (ValueError)            a data file, folder or row can't be read
    │   ├── MissingPathError                  there is no such file or folder
    │   └── MissingCaptionError               images without a caption, and nothing said what to do with them
    ├── ImageError (ValueError)               one image can't be had; the others are fine
    │   ├── DecodeError                       its bytes are not a whole, supported image
    │   ├── DecompressionBombError            its header announces more pixels than allowed
    │   └── FetchError                        its URL did not give it
    ├── CollateError (ValueError)             samples that don't fit into one batch
    ├── LoaderError (RuntimeError)            the loader process died, or was used wrongly
    ├── StoreError (RuntimeError)             the store of encodings is damaged, full, or can't be used so
    │   └── NewerFormatError                  a newer calotype wrote it; this one leaves it as it is
    ├── EditError (ValueError)                captions can't be changed where they are, or can't be held there
    ├── NotFiniteError (ArithmeticError)      a training whose losses, gradients or weights are NaN or inf
    ├── RankError (RuntimeError)              a process of a training on several ended, so the others do
    ├── CaptionError (RuntimeError)           no captions can be had: no server, no such model, no permission
    ├── ConvertError (RuntimeError)           a dataset can't be converted, or what was written isn't what was read
    └── MissingDependencyError (ImportError)  an optional package is not installed

A message says what was found, where (file, line or row), what was expected, and how to mend it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Self

__all__ = [
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
    "unknown_key",
]


class CalotypeError(Exception):
    """The root: `except CalotypeError` catches what calotype raises on purpose, and nothing else."""


class ConfigError(CalotypeError, ValueError):
    """An option is misspelt, has a wrong type or range, or contradicts another. Raised at construction."""


class MissingTokenizerError(ConfigError):
    """A model's tokenizer is neither where it was said to be nor to be had from the hub; says how to get it."""


class ManifestError(CalotypeError, ValueError):
    """A data file, folder or row can't be read as images and captions."""


class MissingPathError(ManifestError):
    """The path of a dataset leads nowhere."""


class MissingCaptionError(ManifestError):
    """Some images have no caption and `missing_captions` does not say what to do with them."""


class ImageError(CalotypeError, ValueError):
    """One image can't be had.

    Args:
        ref: The image, as a person would find it (path, URL, `shard.tar!member`).
        reason: What is wrong with it, and how to mend it if there is a way.
        kind: A short word for the same, to count and sort by; each class has its usual one.
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

    def without_traceback(self) -> Self:
        """The same error as a value to keep: frames and causes hold some 14 kB, and there may be 200,000 of them."""
        self.__traceback__ = self.__cause__ = self.__context__ = None
        return self


class DecodeError(ImageError):
    """The bytes are not a whole image of a supported format."""

    kind = "damaged"


class DecompressionBombError(ImageError):
    """The header announces more pixels than `max_pixels`; or it would take more time or memory than pixels do."""

    kind = "too_many_pixels"


class FetchError(ImageError):
    """The URL did not give the image."""

    kind = "fetch_failed"


class CollateError(CalotypeError, ValueError):
    """Samples whose keys, shapes or dtypes differ can't become one batch."""


class LoaderError(CalotypeError, RuntimeError):
    """The loader process died, or the loader was used in a way that can't work."""


class StoreError(CalotypeError, RuntimeError):
    """The store of encodings can't be opened, read or written.

    Args:
        message: What was found, where, and how to mend it.
        shard: The file at fault, if it is one.
        key: The record at fault, if it is one.
    """

    def __init__(self, message: str, *, shard: str | None = None, key: bytes | None = None) -> None:
        super().__init__(message)
        self.shard = shard
        self.key = key


class NewerFormatError(StoreError):
    """A newer calotype wrote this store or shard: it is whole, and this one can't read it."""


class EditError(CalotypeError, ValueError):
    """Captions can't be changed where they are: the form of the data can't be written, or can't hold them."""


class NotFiniteError(CalotypeError, ArithmeticError):
    """A training can't go on: its losses, gradients or weights are NaN or inf. What was saved before is good."""


class RankError(CalotypeError, RuntimeError):
    """A training on several ranks can't go on: one of them has ended. Its own message says why."""


class CaptionError(CalotypeError, RuntimeError):
    """Nothing can be captioned: the server can't be reached or refuses, or the model can't be had or used."""


class ConvertError(CalotypeError, RuntimeError):
    """A conversion can't go on: an image can't be had, or what lies on the disk is not what was written."""


class MissingDependencyError(CalotypeError, ImportError):
    """An optional package is not installed.

    Args:
        package: The module that could not be imported.
        extra: The extra of calotype that installs it.
        purpose: What it is needed for, as it would end the sentence "X is needed …".
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            f"the package {package!r} is needed {purpose}, and is not installed: pip install 'calotype[{extra}]'"
        )
        self.package = package
        self.extra = extra
        self.purpose = purpose

    def __reduce__(self) -> Any:
        return _missing_dependency, (self.package, self.extra, self.purpose)


def _missing_dependency(package: str, extra: str, purpose: str) -> MissingDependencyError:
    return MissingDependencyError(package, extra=extra, purpose=purpose)


def unknown_key(where: str, key: str, known: Iterable[str]) -> ConfigError:
    """The error for a misspelt option: names the nearest right one, and all there are."""
    known = sorted(known)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ConfigError(f"{where}: unknown option {key!r}{hint} (known: {', '.join(known)})")

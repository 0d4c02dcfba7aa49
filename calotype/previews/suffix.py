"""The suffixes of a preview's file: which form it has. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from calotype.errors import ConfigError

__all__ = ["check_suffix"]


def check_suffix(path: Path) -> None:
    """Check that a file name ends in `.html` or `.png`.

    Raises:
        ConfigError: It does not.
    """
    if path.suffix.lower() not in (".html", ".png"):
        raise ConfigError(
            f"output: found {str(path)!r}; expected a name that ends in .html (the page) or .png (the contact sheet)"
        )

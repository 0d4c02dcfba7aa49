"""The option `exclude`: patterns of files and folders that are left out, as in a `.gitignore`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from calotype.errors import ConfigError

__all__ = ["EXCLUDE_NOTHING", "Exclude", "parse_exclude"]

_TOKEN: Final = re.compile(r"\*\*/|\*\*|\*|\?|\[[!^]?\]?[^\]]*\]|.", re.DOTALL)


class Exclude:
    """Patterns of files and folders; reports which of them matched nothing.

    Args:
        patterns: `*.gif` matches files in any folder, `masks/` a folder at any depth; `a/*.png` and `/a.png` are
            relative to the folder that is read; `**` matches any folders. Everything in an excluded folder is excluded.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._patterns = [(pattern, *_compiled(pattern)) for pattern in patterns]
        self._matched: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def match(self, name: str, *, folder: bool) -> str | None:
        """Return the first pattern that a path matches.

        Args:
            name: Relative to the folder that is read, with forward slashes.
            folder: Whether it is a folder.
        """
        for pattern, regex, only_folders in self._patterns:
            if (folder or not only_folders) and regex.fullmatch(name):
                self._matched.add(pattern)
                return pattern
        return None

    def match_within(self, name: str) -> str | None:
        """Return the first pattern that a file, or a folder above it, matches."""
        above = [name[:at] for at, letter in enumerate(name) if letter == "/"]
        found = (self.match(folder, folder=True) for folder in above)
        return next(filter(None, found), None) or self.match(name, folder=False)

    def unmatched(self) -> list[str]:
        """Return the patterns that have matched nothing so far."""
        return [pattern for pattern, *_ in self._patterns if pattern not in self._matched]


EXCLUDE_NOTHING: Final = Exclude()


def parse_exclude(option: Any) -> Exclude:
    """Parse the option `exclude`: a pattern or a list of them.

    Raises:
        ConfigError: It is something else, or a pattern is malformed.
    """
    patterns = [] if option is None else [option] if isinstance(option, str) else option
    if not isinstance(patterns, Sequence) or not all(isinstance(pattern, str) for pattern in patterns):
        raise ConfigError(
            f"exclude: found {option!r}; expected a pattern such as 'masks/' or '*.gif', or a list of these"
        )
    for pattern in patterns:
        if not pattern.strip("/ ") or pattern.startswith("!"):
            raise ConfigError(f"exclude: found {pattern!r}; expected what to leave out, such as 'masks/' or '*.gif'")
    return Exclude(list(patterns))


def _compiled(pattern: str) -> tuple[re.Pattern[str], bool]:
    """Compile a pattern to a regular expression of paths, and whether it matches folders only."""
    bare = pattern.removeprefix("./")
    only_folders = bare.endswith(("/", "/**"))
    anchored = "/" in bare.removesuffix("/")
    bare = bare.removesuffix("**").rstrip("/") if only_folders else bare
    parts = ["" if anchored else "(?:.*/)?"]
    for token in _TOKEN.findall(bare.lstrip("/")):
        if token == "**/":
            parts.append("(?:.*/)?")
        elif token == "**":
            parts.append(".*")
        elif token == "*":
            parts.append("[^/]*")
        elif token == "?":
            parts.append("[^/]")
        elif len(token) > 1:  # a set of characters
            inside = token[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            parts.append(f"[^/{inside[1:]}]" if inside[0] in "!^" else f"[{inside}]")
        else:
            parts.append(re.escape(token))
    try:
        return re.compile("".join(parts), re.DOTALL), only_folders
    except re.error as error:
        raise ConfigError(f"exclude: {pattern!r} is not a valid pattern: {error}") from None

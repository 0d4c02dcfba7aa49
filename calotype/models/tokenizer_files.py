"""Find a tokenizer's files: a local folder, a single file, or a repository of the Hugging Face hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from calotype.core.hub import ask_hub
from calotype.errors import ConfigError, MissingTokenizerError, install_command
from calotype.models.downloads import LOGIN, why_not

__all__ = ["TokenizerFiles", "find_tokenizer_files", "is_hub_name", "split_hub_name", "tokenizers_download"]

_NAMES = ("tokenizer.json", "vocab.json", "merges.txt", "spiece.model")
_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")
_ADDED = "added_tokens.json"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class TokenizerFiles:
    """The files of one tokenizer, by their standard names.

    A tokenizer given as a single file uses that file, and of its folder only the settings (`tokenizer_config.json`,
    `special_tokens_map.json`, `added_tokens.json`), which name the padding token.

    Args:
        path: The folder or file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = path if path.is_dir() else path.parent
        wanted = _NAMES if path.is_dir() else (_usual_name(path),)
        self._found = {name: self._folder / name if path.is_dir() else path for name in wanted}
        self._found = {name: file for name, file in self._found.items() if file.is_file()}
        self._parsed: dict[str, Any] = {}

    @property
    def names(self) -> list[str]:
        """The files among `tokenizer.json`, `vocab.json`, `merges.txt` and `spiece.model` that exist."""
        return list(self._found)

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def read(self, name: str) -> bytes:
        return self._found[name].read_bytes()

    def text(self, name: str) -> str:
        try:
            return self.read(name).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self._found[name]}: not UTF-8 text ({error}); copy or download it again") from error

    def json(self, name: str) -> Any:
        if name not in self._parsed:
            self._parsed[name] = _json(self._found[name])
        return self._parsed[name]

    def config(self) -> dict[str, Any]:
        """Return `special_tokens_map.json`, overridden by `tokenizer_config.json`; empty if both are missing."""
        merged: dict[str, Any] = {}
        for name in reversed(_CONFIGS):
            file = self._folder / name
            if file.is_file():
                merged |= _json_object(file)
        return merged

    def added_tokens(self) -> dict[str, int]:
        """Return `added_tokens.json`, the ids by token; empty if it is missing."""
        file = self._folder / _ADDED
        return dict(_json_object(file)) if file.is_file() else {}


def find_tokenizer_files(path: str | Path, *, subfolder: str | None = None) -> TokenizerFiles:
    """Find the files of a tokenizer, and download them where necessary.

    Args:
        path: A folder, a single file, or a hub name such as `black-forest-labs/FLUX.1-dev:tokenizer_2`.
        subfolder: Subfolder of the folder or hub repository.

    Raises:
        MissingTokenizerError: There are no such files, or the download fails; the message says how to get them.
    """
    local = Path(path).expanduser()
    if local.exists():
        folder = local / subfolder if subfolder and local.is_dir() else local
        files = TokenizerFiles(folder)
        if not files.names:
            raise MissingTokenizerError(
                f"{folder}: no tokenizer there ({_what_is_there(folder)}); expected one of {', '.join(_NAMES)}"
            )
        return files
    if not is_hub_name(path):
        raise MissingTokenizerError(
            f"{path}: no such file or folder; expected a tokenizer's folder, one of its files ({', '.join(_NAMES)}), "
            "or a hub name such as 'black-forest-labs/FLUX.1-dev:tokenizer_2'"
        )
    repo, inside = split_hub_name(str(path))
    return TokenizerFiles(_from_hub(repo, subfolder or inside))


def is_hub_name(path: str | Path) -> bool:
    """Return whether a path can only be `owner/name` or `owner/name:subfolder` on the hub."""
    if isinstance(path, Path):
        return False
    return _HUB_NAME.fullmatch(split_hub_name(path)[0]) is not None and Path(path).suffix not in (
        ".txt",
        ".model",
        ".json",
    )


def split_hub_name(name: str) -> tuple[str, str | None]:
    """Split `owner/name:subfolder` into (`owner/name`, `subfolder`)."""
    repo, _, subfolder = name.partition(":")
    return repo, subfolder or None


def _from_hub(repo: str, subfolder: str | None) -> Path:
    """Return the local folder of a repository's tokenizer: from the hub's cache, else downloaded, its files only."""
    where = f"{repo}:{subfolder}" if subfolder else repo
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingTokenizerError(
            f"the tokenizer {where!r} is on the Hugging Face hub, and the package huggingface_hub that fetches it is "
            f"not installed: {install_command('hub')}. {_other_ways(repo, subfolder)}"
        ) from error
    patterns = [f"{subfolder}/{name}" if subfolder else name for name in (*_NAMES, *_CONFIGS, _ADDED)]
    try:
        cached = Path(snapshot_download(repo, allow_patterns=patterns, local_files_only=True)) / (subfolder or "")
        if TokenizerFiles(cached).names:
            return cached
    except (OSError, ValueError):
        pass  # not in the cache
    try:
        ask_hub(repo, "model")
        folder = Path(snapshot_download(repo, allow_patterns=patterns)) / (subfolder or "")
    except Exception as error:
        reason = why_not(error, repo)
        if reason == "RepositoryNotFoundError":  # a path without such a folder may look like a name
            reason += f", and there is no local folder {repo!r}"
        raise MissingTokenizerError(
            f"the tokenizer {where!r} could not be had from the Hugging Face hub ({reason}). "
            f"{_other_ways(repo, subfolder)}"
        ) from error
    if not TokenizerFiles(folder).names:
        place = repr(subfolder) if subfolder else "its top folder"
        raise MissingTokenizerError(
            f"the hub's repository {repo!r} holds none of {', '.join(_NAMES)} in {place}; "
            "name the subfolder: 'owner/name:subfolder'"
        )
    return folder


def _other_ways(repo: str, subfolder: str | None) -> str:
    if subfolder is None:
        return f"`hf download {repo} --local-dir FOLDER` gets it ({LOGIN}): then give FOLDER"
    all_of_a_pipeline = subfolder.startswith("tokenizer")
    return tokenizers_download(repo, ["tokenizer*" if all_of_a_pipeline else subfolder])


def tokenizers_download(repo: str, subfolders: Iterable[str]) -> str:
    """Return how to get tokenizers of a repository, as the end of an error message.

    Args:
        repo: The repository.
        subfolders: The tokenizers' folders in it.
    """
    includes = " ".join(f'--include "{one}/*"' for one in subfolders)
    return f"`hf download {repo} {includes} --local-dir FOLDER` gets them ({LOGIN}): then tokenizers: FOLDER"


def _usual_name(file: Path) -> str:
    """Return the standard name of a file: its own, or for a renamed file the one with its extension."""
    if file.name in _NAMES:
        return file.name
    return {".txt": "merges.txt", ".model": "spiece.model", ".json": "tokenizer.json"}.get(file.suffix, file.name)


def _what_is_there(path: Path) -> str:
    if not path.exists():
        return "the folder does not exist"
    if path.is_file():
        return f"the file {path.name!r}"
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in path.iterdir())
    return f"it holds {', '.join(names[:8])}{', …' if len(names) > 8 else ''}" if names else "it is empty"


def _json_object(file: Path) -> Mapping[str, Any]:
    found = _json(file)
    if not isinstance(found, Mapping):
        raise ConfigError(f"{file}: a JSON object was expected, found {type(found).__name__}")
    return found


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{file}: not JSON ({error}); copy or download it again") from error

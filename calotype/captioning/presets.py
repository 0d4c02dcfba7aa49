"""`CaptionPreset`: a prompt with variables, read from a file; and calotype's own presets."""

from __future__ import annotations

import difflib
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import yaml
from PIL import Image

from calotype.captioning.backend import CaptionRequest
from calotype.core.small_files import read_small_file
from calotype.errors import ConfigError, unknown_key

__all__ = ["VARIABLES", "CaptionPreset", "list_presets", "load_preset"]

VARIABLES: Final = {
    "trigger": "the word that the model is to learn",
    "class_word": "what kind of thing it is: man, dog, teapot",
    "stem": "the image's file name, without its suffix",
    "folder": "the name of the folder the image is in",
    "caption": "the current caption of the image",
    "tags": "the tags of the image in the dataset",
}
"""The variables of a prompt, written in braces."""

_KEYS: Final = ("about", "prompt", "system", "task", "defaults")


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionPreset:
    """A prompt for captions of one kind."""

    name: str
    """Name of the file without its suffix."""
    template: str
    """The prompt, with variables in braces; `{{` and `}}` are literal braces."""
    about: str = ""
    """Description of the captions, in one line."""
    system: str | None = None
    """The system message, which may have variables, too."""
    task: str | None = None
    """The closest task of a model without prompts: Florence-2's `<CAPTION>`, `<DETAILED_CAPTION>` or
    `<MORE_DETAILED_CAPTION>`. None if none fits."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Defaults of variables; may contain other variables in braces."""

    def __post_init__(self) -> None:
        texts = {"prompt": self.template, "system": self.system or ""}
        texts |= {f"defaults.{name}": text for name, text in self.defaults.items()}
        for name in self.defaults:
            self._check_variable(name, "defaults")
        for key, text in texts.items():
            for variable in self._variables(text, key):
                self._check_variable(variable, key)

    @property
    def variables(self) -> frozenset[str]:
        """The variables in the prompt and the system message, without those in defaults."""
        return frozenset(self._variables(self.template, "prompt") + self._variables(self.system or "", "system"))

    def uses(self, variable: str) -> bool:
        """Whether a value of this variable can have an effect: the prompt or a default has it in braces."""
        defaults = [name for key, text in self.defaults.items() for name in self._variables(text, f"defaults.{key}")]
        return variable in self.variables or variable in defaults

    def prompt(self, variables: Mapping[str, str | None]) -> str:
        """Return the prompt for one image.

        Args:
            variables: Values by name; None or a missing one means the preset's default.

        Raises:
            ConfigError: The prompt uses a variable that has no value, or `variables` has an unknown name.
        """
        return self._filled(self.template, variables)

    def request(self, image: Image.Image, variables: Mapping[str, str | None], *, seed: int = 0) -> CaptionRequest:
        """Return the request for one image. Raises as `prompt` does."""
        system = self._filled(self.system, variables) if self.system else None
        return CaptionRequest(image=image, prompt=self.prompt(variables), system=system, task=self.task, seed=seed)

    def _filled(self, template: str, variables: Mapping[str, str | None], *, inside: tuple[str, ...] = ()) -> str:
        for name in variables:
            self._check_variable(name, "variables")
        parts = []
        for text, variable, _, _ in string.Formatter().parse(template):
            parts.append(text)
            if variable is not None:  # values are not formatted again: captions may contain braces
                parts.append(self._value(variable, variables, inside))
        return "".join(parts)

    def _value(self, name: str, variables: Mapping[str, str | None], inside: tuple[str, ...]) -> str:
        value = variables.get(name)
        if value is not None:
            return value
        if name not in self.defaults or name in inside:
            raise ConfigError(
                f"preset {self.name!r}: its prompt uses {{{name}}} ({VARIABLES[name]}), which has no value; "
                f"set it, or remove {{{name}}} from a copy of the preset"
            )
        return self._filled(self.defaults[name], variables, inside=(*inside, name))

    def _variables(self, template: str, key: str) -> list[str]:
        try:
            fields = [(name, form, spec) for _, name, spec, form in string.Formatter().parse(template)]
        except ValueError as error:
            raise ConfigError(
                f"preset {self.name!r}: {key}: {error}; variables are written in braces, {{trigger}}, and a literal "
                "brace is doubled"
            ) from None
        for name, form, spec in fields:
            if name is not None and (form or spec):
                raise ConfigError(f"preset {self.name!r}: {key}: {{{name}}} takes no conversion or format")
        return [name for name, _, _ in fields if name is not None]

    def _check_variable(self, name: str, key: str) -> None:
        if name not in VARIABLES:
            near = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0.5)
            hint = f"; did you mean {{{near[0]}}}?" if near else ""
            known = ", ".join(f"{{{known}}}" for known in VARIABLES)
            raise ConfigError(f"preset {self.name!r}: {key}: unknown variable {{{name}}}{hint} (known: {known})")


def list_presets() -> list[CaptionPreset]:
    """Return calotype's own presets, sorted by name."""
    return [load_preset(name) for name in _own()]


def load_preset(name: str | Path) -> CaptionPreset:
    """Load a preset by its name or from a file.

    Args:
        name: One of calotype's own (`descriptive`, `short`, `style`, `subject`, `tags`), or the path of a file: YAML
            with a `prompt` and optional `about`, `system`, `task`, `defaults`, or a `.txt` with the prompt.

    Raises:
        ConfigError: There is no such preset or file, or it is not valid; the message names what was expected.
    """
    if str(name) in _own():
        return _parse(str(name), files(__package__).joinpath("presets", f"{name}.yaml").read_text("utf-8"), str(name))
    path = Path(name).expanduser()
    if not path.is_file():
        raise _no_preset(str(name))
    try:
        text = read_small_file(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"preset {path}: not valid UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"preset {path}: can't be read: {error.strerror}") from None
    if path.suffix.lower() == ".txt":
        return CaptionPreset(name=path.stem, template=_prompt(text, str(path)))
    return _parse(path.stem, text, str(path))


def _own() -> list[str]:
    folder = files(__package__).joinpath("presets")
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def _no_preset(name: str) -> ConfigError:
    own = _own()
    near = difflib.get_close_matches(name, own, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ConfigError(
        f"preset: found {name!r}, which is neither a preset nor a file{hint} (presets: {', '.join(own)}; a file is a "
        ".yaml with a prompt, or a .txt that is the prompt)"
    )


def _parse(name: str, text: str, where: str) -> CaptionPreset:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"preset {where}: not valid YAML: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"preset {where}: expected a mapping with a prompt, such as 'prompt: Describe the image.'")
    for key in found:
        if key not in _KEYS:
            raise unknown_key(f"preset {where}", str(key), _KEYS)
    for key in ("about", "system", "task"):
        if not isinstance(found.get(key, ""), str):
            raise ConfigError(f"preset {where}: {key}: found {found[key]!r}, expected a text")
    defaults = found.get("defaults", {})
    if not isinstance(defaults, dict) or not all(isinstance(text, str) for text in defaults.values()):
        raise ConfigError(f"preset {where}: defaults: found {defaults!r}, expected a mapping from variables to texts")
    return CaptionPreset(
        name=name,
        template=_prompt(found.get("prompt"), where),
        about=found.get("about", "").strip(),
        system=found.get("system", "").strip() or None,
        task=found.get("task"),
        defaults=defaults,
    )


def _prompt(found: Any, where: str) -> str:
    if not isinstance(found, str) or not found.strip():
        raise ConfigError(f"preset {where}: prompt: found {found!r}, expected the prompt for the model")
    return found.strip()

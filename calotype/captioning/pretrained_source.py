"""`PretrainedSource`: a folder or a name on the hub that transformers loads a captioner from."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.core.hub import ask_hub
from calotype.errors import CaptionError, MissingDependencyError

__all__ = ["PretrainedSource"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainedSource:
    """A folder, or a name on the hub, of a model of transformers."""

    name: str | Path
    revision: str | None
    unreachable: str | None
    """Why the hub can't be reached; None if it can, or for a folder."""

    @classmethod
    def find(cls, name: str | Path, revision: str | None) -> PretrainedSource:
        """Ask the hub for a model that is no folder, once: transformers retries for minutes without a connection.

        Raises:
            MissingDependencyError: transformers is not installed.
        """
        if importlib.util.find_spec("transformers") is None:
            raise MissingDependencyError("transformers", extra="caption", purpose="to caption on this machine")
        unreachable = None
        if not Path(name).expanduser().is_dir():
            try:
                ask_hub(str(name), "model")
            except ConnectionError as error:
                unreachable = str(error)
            except Exception:
                pass  # transformers reports it
        return cls(name=name, revision=revision, unreachable=unreachable)

    def load(self, class_name: str, **options: Any) -> Any:
        """Call `from_pretrained` of a class of transformers; from the hub's cache if the hub can't be reached.

        Raises:
            Exception: As transformers raises.
        """
        folder = Path(self.name).expanduser()
        return getattr(importlib.import_module("transformers"), class_name).from_pretrained(
            str(folder) if folder.is_dir() else str(self.name),
            revision=self.revision,
            trust_remote_code=False,
            local_files_only=self.unreachable is not None,
            **options,
        )

    def not_loaded(self, error: Exception) -> CaptionError:
        """Return the error to raise for an error of `load`."""
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        why = f"{type(error).__name__}: {reason}"
        if self.unreachable is not None and isinstance(error, OSError):
            why = f"no such folder; the Hugging Face hub can't be reached, {self.unreachable}; its cache lacks it"
        return CaptionError(
            f"model: {str(self.name)!r} could not be loaded ({why}). Expected a "
            "vision-language model that transformers supports without code from the hub: a folder, or a hub name "
            f"(`hf download {self.name} --local-dir FOLDER` downloads it; for a gated one accept the terms on its page "
            "and run `hf auth login`)"
        )

"""Find a model's pipeline (a local folder, the hub's cache or a download), and identify its model."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from calotype.core.hub import ask_hub
from calotype.core.quiet import is_quiet
from calotype.errors import ConfigError, MissingDependencyError
from calotype.models.component_files import files_that_count
from calotype.models.downloads import download_bytes, downloading, ways_to_get, why_not
from calotype.models.family import ModelFamily
from calotype.models.json_file import read_json_object
from calotype.models.model_path import refuse_folder, refuse_weights_file
from calotype.models.registry import get_family, get_spec, list_families, list_specs, not_loaded
from calotype.models.spec import ModelSpec
from calotype.models.tokenizer_files import is_hub_name

__all__ = ["find_pipeline", "frozen_components", "import_diffusers", "which_model"]


def find_pipeline(
    model: str | Path, *, spec: str | None, variant: str | None, network: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Return the local folder of a pipeline, downloaded where necessary, and its `model_index.json`.

    Args:
        model: A folder, or the name of a model or hub repository.
        spec: Name of the model, for a hub repository that is not among `ModelSpec.hub`.
        variant: Variant of the weights: `fp16`.
        network: Whether the transformer or U-Net will be needed, too: errors then advise how to get it.

    Raises:
        ConfigError: There is no such pipeline, or its `model_index.json` is damaged.
        MissingDependencyError: A download needs diffusers, which is not installed.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        refuse_weights_file(model)
        folder = _fetched(model, spec, variant, network=network)
    file = folder / "model_index.json"
    if not file.exists():
        raise refuse_folder(folder)
    index = dict(read_json_object(file))
    if not isinstance(index.get("_class_name"), str):
        raise ConfigError(f"{file}: a JSON object with a _class_name was expected; copy or download it again")
    return folder, index


def _fetched(model: str | Path, spec: str | None, variant: str | None, *, network: bool) -> Path:
    """Return the hub's local copy of a pipeline, downloaded where necessary, without its transformer."""
    known = {name.lower() for row in list_specs() for name in (row.name, *row.hub)}
    if str(model).lower() in known or not is_hub_name(model):
        row: ModelSpec | None = get_spec(str(model))  # raises for an unknown name
        assert row is not None
        name = next((name for name in row.hub if name.lower() == str(model).lower()), row.hub[0])
    else:
        row, name = get_spec(spec) if spec is not None else None, str(model)
    cached = _cached(name, variant)
    if cached is not None:
        return cached
    # diffusers does not download components that are passed as None.
    absent: dict[str, Any] = dict.fromkeys(("transformer", "unet", "scheduler", "safety_checker", "image_encoder"))
    try:
        ask_hub(name, "model")  # before diffusers is imported, which takes seconds
        diffusers = import_diffusers()
        with downloading(name, download_bytes(row, network=False)):
            return Path(diffusers.DiffusionPipeline.download(name, variant=variant, **absent))
    except MissingDependencyError:
        raise
    except Exception as error:
        raise ConfigError(
            f"model: {name!r} could not be had from the Hugging Face hub ({why_not(error, name)}), and there is no "
            f"local folder {str(model)!r}. {ways_to_get(row, name, network=network)}"
        ) from error


def _cached(name: str, variant: str | None) -> Path | None:
    """Return the hub's local copy if its frozen components are complete, else None; no network, no diffusers."""
    try:
        from huggingface_hub import get_cached_repo_tree, try_to_load_from_cache
        from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError
    except ImportError:
        return None
    index = try_to_load_from_cache(name, "model_index.json")
    try:
        tree = get_cached_repo_tree(name)
    except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError):
        return None
    if not isinstance(index, str):
        return None
    folder = Path(index).parent
    for component in frozen_components(json.loads(Path(index).read_bytes())):
        listed = [file.path for file in tree if file.path.startswith(f"{component}/")]
        names = files_that_count([path.removeprefix(f"{component}/") for path in listed], variant=variant)
        if not names or not all((folder / component / name).is_file() for name in names):
            return None
    return folder


def frozen_components(index: dict[str, Any]) -> list[str]:
    """Return the frozen components (`text_encoder`, `tokenizer`, `vae`, …) in a pipeline's `model_index.json`."""
    names = [name for name, value in index.items() if isinstance(value, list)]
    return sorted(name for name in names if name == "vae" or name.startswith(("tokenizer", "text_encoder")))


def which_model(
    index: dict[str, Any], folder: Path, *, asked_for: str | Path, spec: str | None
) -> tuple[ModelSpec, ModelFamily]:
    """Return the model of a pipeline, and its family.

    Args:
        index: The pipeline's `model_index.json`.
        folder: The pipeline's folder.
        asked_for: The config's `model`.
        spec: Name of the model; None finds it by `asked_for`, the index or the folder's path. The fallback is the
            family's first model.

    Raises:
        ConfigError: No family has this pipeline, or `spec` is the model of another one.
    """
    found = index["_class_name"]
    rows = [row for family in list_families() if found in family.pipelines for row in family.models]  # calotype's first
    if not rows:
        known = sorted({pipeline for family in list_families() for pipeline in family.pipelines[:1]})
        raise ConfigError(
            f"{folder}: its model_index.json has {found}, a pipeline without a model family; known: "
            f"{', '.join(known)}. docs/families.md shows how to add one{not_loaded()}"
        )
    if spec is not None and get_spec(spec) not in rows:
        expected = " or ".join(row.name for row in rows)
        raise ConfigError(f"spec: {spec} is no {found}, which is what {folder} holds; expected {expected}")
    for name in (spec, asked_for, index.get("_name_or_path"), *reversed(folder.resolve().parts)):
        named = next((row for row in rows if str(name).lower() in _names(row)), None)
        if named is not None:
            return named, get_family(named.family)
    return rows[0], get_family(rows[0].family)


def _names(row: ModelSpec) -> set[str]:
    """Return a model's names in lower case: its own, those on the hub, of a local copy and in the hub's cache."""
    hub = {name.lower() for name in row.hub}
    return {
        row.name,
        *hub,
        *(name.split("/")[1] for name in hub),
        *("models--" + name.replace("/", "--") for name in hub),
    }


def import_diffusers() -> Any:
    """Import diffusers, whose pipelines need transformers, too.

    Raises:
        MissingDependencyError: One of them is not installed.
    """
    for package in ("transformers", "diffusers"):
        try:
            module = importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise MissingDependencyError(package, extra="diffusers", purpose="to run a model's encoders") from error
        if is_quiet():
            importlib.import_module(f"{package}.utils.logging").disable_progress_bar()
    return module

"""A YAML file and `key=value` overrides become a dataset and a loader.

A config has these keys at its top; each may be left out, and any other key is the trainer's and left alone:

    dataset:     options of `calotype.text_to_image_dataset`, or another `_component_`
    tokenizer:   a model transform: `_component_: calotype.FluxTransform` and its options
    model:       a model (`flux.1-dev`, a hub name, a pipeline's folder) whose spec fills in what the model decides
    tokenizers:  where that model's tokenizers are
    loader:      options of `calotype.Loader`
    encodings:   options of encodings (`store`, `dtype`, `image_variants`, …); with it, the loader gives encoded batches
    train:       options of `calotype train`
    distill:     options of `calotype distill`

OmegaConf reads the file, so `${…}` refers to other values of it. It is imported when a config is loaded, not before.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.captioning.distill.options import DistillOptions
from calotype.components import COMPONENT, build, check_options
from calotype.config_file import read_yaml
from calotype.errors import ConfigError, unknown_key
from calotype.recipes.options import TrainOptions

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from calotype.dataset import TextToImageDataset
    from calotype.encodings.frozen import FrozenModels
    from calotype.encodings.job import EncodeJob
    from calotype.encodings.options import EncodingOptions
    from calotype.ledger import Ledger
    from calotype.loader import Loader

__all__ = [
    "TrainingData",
    "build_dataset",
    "build_encode_job",
    "build_loader",
    "build_training",
    "instantiate",
    "load_config",
    "open_training",
]

KEYS = ("dataset", "distill", "encodings", "loader", "model", "tokenizer", "tokenizers", "train")

_LOOKS_LIKE = 0.8
"""How near (difflib's ratio) an unknown key must be to one of ours to count as a slip: `datset`, `loadr`."""

_THEIRS = ("trainer",)
"""What looks like one of ours and is none: Lightning's."""

Config = dict[str, Any]


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a config and applies overrides, the later ones last.

    Args:
        source: A `.yaml` or `.yml` file. Anything else (a folder of images, a data file, a glob, a hub name) becomes
            the `path` of a dataset with default options.
        overrides: `key=value`, the key dotted (`loader.batch_size=4`), the value read as YAML. A key that is not at
            the config's top is an option of training where that has one of this name (`max_steps=10` is short for
            `train.max_steps=10`; for `distill.max_steps=10` where the config has a `distill` section and no `train`),
            else of the dataset: `resolution=512` is short for `dataset.resolution=512`. As in
            torchtune, a name given to a section that has a `_component_` replaces the `_component_`.

    Returns:
        Plain dicts, lists and scalars, every `${…}` resolved.

    Raises:
        ConfigError: The file is missing or not YAML (with line and column); an override or a key at the top is
            misspelt; a `${…}` leads nowhere; a value that was left for the user to fill in (`???`) is not there.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    is_yaml = Path(source).suffix.lower() in {".yaml", ".yml"}
    where = str(source) if is_yaml else "config"
    try:
        config = read_yaml(Path(source)) if is_yaml else OmegaConf.create({"dataset": {"path": str(source)}})
        for override in overrides:
            _override(config, override)
        missing = sorted(key for key in OmegaConf.missing_keys(config) if _section(key) in KEYS)
        if missing:
            raise ConfigError(f"{where}: {missing[0]} has no value (???); fill it in, or add {missing[0]}=…")
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{where}: {error.full_key}: {reason} (a reference is written ${{section.key}})") from error
    assert isinstance(plain, dict)
    result = {str(key): value for key, value in plain.items()}
    _check_keys(result, where)
    _check_seeds(result, where)
    return result


def instantiate(config: Mapping[str, Any] | None, *args: Any, **kwargs: Any) -> Any:
    """Makes the object that a `_component_` mapping describes, as torchtune's `config.instantiate` does.

    Nested `_component_` mappings are made first. Modules of the current directory can be named too.

    Args:
        config: A mapping with `_component_`, plain or OmegaConf's. None gives None.
        *args: Given to the component before its options.
        **kwargs: Options that replace those of the mapping.

    Raises:
        ConfigError: There is no `_component_`, it leads nowhere, or it does not take these options.
    """
    return None if config is None else _instantiate(config, args, kwargs, where="config")


def build_dataset(config: Mapping[str, Any]) -> Any:
    """The dataset of a whole config (what `load_config` gave).

    Raises:
        ConfigError: As for `instantiate`; or `dataset` is not there, or `model` is said in two places.
    """
    _check_keys(config, "config")
    options = _options(config, "dataset", "path: a folder of images or a data file")
    if not options:
        raise ConfigError("config: there is no 'dataset'; it needs at least dataset.path=…")
    for key, value in _model(config).items():
        if key in options:
            raise ConfigError(f"config: {key!r} stands at the top and in 'dataset' as well; keep one of them")
        options[key] = value
    options = _from_folder(options)
    args: tuple[Any, ...] = ()
    if (tokenizer := config.get("tokenizer")) is not None:
        if not isinstance(tokenizer, Mapping) or COMPONENT not in tokenizer:
            raise ConfigError(
                f"config: 'tokenizer' must be a mapping with {COMPONENT}, such as calotype.FluxTransform, "
                f"and is {tokenizer!r}; a model's name goes into 'model', a folder of tokenizers into 'tokenizers'"
            )
        args = (_instantiate(tokenizer, (), {}, where="tokenizer"),)
    return _instantiate({COMPONENT: "calotype.text_to_image_dataset"} | options, args, {}, where="dataset")


def build_loader(config: Mapping[str, Any]) -> Any:
    """The loader of a whole config, over the dataset of `build_dataset`, or with `encodings` over what is kept of it.

    Raises:
        ConfigError: As for `build_dataset`; or `loader` has an option that `calotype.Loader` does not take.
        StoreError: Something is not encoded yet, and not to be encoded on the fly.
    """
    options = _options(config, "loader", "batch_size: 4")
    dataset = build_dataset(config) if config.get("encodings") is None else _encoded_dataset(config, options)
    return _instantiate({COMPONENT: "calotype.Loader"} | options, (dataset,), {}, where="loader")


def build_encode_job(config: Mapping[str, Any], *, device: str = "cpu", create: bool = True) -> EncodeJob:
    """The job that encodes what a config's `encodings` need.

    Args:
        config: What `load_config` gave.
        device: Where the frozen models run.
        create: Make the store if it is not there.

    Raises:
        ConfigError: As for `build_dataset`; or `encodings` has an unknown option, or names no model that can be had.
    """
    from calotype.encodings.job import EncodeJob

    options = _encodings(config)
    models = options.models(device)
    dataset = _pixels_dataset(config, models.spec.name)
    return EncodeJob(dataset=dataset, models=models, store=options.open_store(create=create), variants=options.variants)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What a training run is of, opened: nothing is hashed, loaded or encoded yet."""

    options: EncodingOptions
    models: FrozenModels
    training: TextToImageDataset
    validation: TextToImageDataset | None
    """The held-out side; None where the config holds nothing out."""


def open_training(config: Mapping[str, Any], *, device: str) -> TrainingData:
    """The frozen models and the datasets of a training run. What is not encoded yet is encoded on the fly, unless the
    config says `on_the_fly: false`.

    Args:
        config: What `load_config` gave.
        device: Where the frozen models run.

    Raises:
        ConfigError: As for `build_dataset`; or the model can't be had.
        ManifestError: The dataset can't be read.
    """
    if "seed" in config:
        raise ConfigError(
            "config: 'seed' at the top is another trainer's; write dataset.seed: every draw follows from it"
        )
    from calotype.loader import Loader

    options = _encodings({**config, "encodings": {"on_the_fly": True} | _options(config, "encodings", "store: …")})
    models = options.models(device)
    options.check_store()
    check_options(Loader, (models,), _options(config, "loader", "batch_size: 4"), where="loader")
    section = _options(config, "dataset", "path: photos")

    def side(**more: Any) -> Any:
        return _pixels_dataset({**config, "dataset": section | more}, models.spec.name)

    held_out = side(split="validation") if section.get("validation") else None
    return TrainingData(options=options, models=models, training=side(), validation=held_out)


def build_training(
    config: Mapping[str, Any], data: TrainingData, *, ledger: Ledger | None = None
) -> tuple[Loader, Loader | None]:
    """The loader of a training run, and one of the held-out side.

    Args:
        config: What `load_config` gave.
        data: What `open_training` gave.
        ledger: Where both loaders note what is left out, replaced, repeated or cut, after what the dataset noted.

    Raises:
        ConfigError: `loader` has an option that `calotype.Loader` does not take.
        StoreError: Something is not encoded yet, and not to be encoded on the fly.
    """
    from calotype.encodings.build import open_encoded
    from calotype.progress import track

    options = _options(config, "loader", "batch_size: 4") | {"device": str(data.models.device)}

    def loader(dataset: TextToImageDataset, **more: Any) -> Loader:
        with track("reading files") as show:
            encoded = open_encoded(dataset, data.models, data.options, progress=show)
        made: Loader = _instantiate(
            {COMPONENT: "calotype.Loader"} | options | more, (encoded,), {"ledger": ledger}, where="loader"
        )
        return made

    training = loader(data.training)
    manifest = training.dataset.manifest
    if ledger is not None and manifest is not None and training.plan.rank == 0:
        for entry in manifest.ledger:
            ledger.append(entry)
    if data.validation is None:
        return training, None
    return training, loader(data.validation, in_process=True, shuffle=False)


def _encoded_dataset(config: Mapping[str, Any], loader: Config) -> Any:
    from calotype.encodings.build import open_encoded
    from calotype.progress import track

    options = _encodings(config)
    models = options.models(loader.get("device") or "cpu")
    dataset = _pixels_dataset(config, models.spec.name)
    with track("reading files") as show:
        return open_encoded(dataset, models, options, progress=show)


def _encodings(config: Mapping[str, Any]) -> EncodingOptions:
    from calotype.encodings.options import EncodingOptions

    section = _options(config, "encodings", "store: encodings")
    model = _model(config).get("model") or _options(config, "dataset", "path: photos").get("model")
    if model is not None and section.get("model") is not None:
        raise ConfigError("config: 'model' stands in 'encodings' and outside it as well; keep one of them")
    return EncodingOptions.of(section if model is None else {**section, "model": model})


def _pixels_dataset(config: Mapping[str, Any], model: str) -> Any:
    """The config's dataset as the frozen models of a row of the table take it: pixels and final texts, no tokens."""
    options = _options(config, "dataset", "path: photos") | {"model": model}
    bare = {"dataset": options, "tokenizer": {COMPONENT: "calotype.PixelsTransform"}}
    return build_dataset(bare)


def _instantiate(config: Mapping[str, Any], args: tuple[Any, ...], kwargs: Config, *, where: str) -> Any:
    from omegaconf import DictConfig, OmegaConf

    plain = OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config
    if not isinstance(plain, Mapping) or COMPONENT not in plain:
        raise ConfigError(f"{where}: expected a mapping with {COMPONENT}: package.module.name, found {config!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # as torchtune does: a file beside the config may hold the user's own components
    return build({**plain, **kwargs}, *args, where=where)


def _override(config: DictConfig, override: str) -> None:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise ConfigError(f"override {override!r}: expected key=value, such as loader.batch_size=4")
    if parts[0] not in config and parts[0] not in (*KEYS, *_THEIRS):
        if difflib.get_close_matches(parts[0], KEYS, n=1, cutoff=_LOOKS_LIKE):
            raise unknown_key(f"override {override!r}", parts[0], KEYS)
        parts.insert(0, _home_of(config, parts[0], override))
    try:
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"override {override!r}: {text!r} is not a YAML value: {error}") from error
    assert isinstance(parsed, dict)
    value = parsed["value"]
    for length in range(1, len(parts)):
        above = ".".join(parts[:length])
        found = OmegaConf.select(config, above)
        if found is None:
            break
        if not OmegaConf.is_config(found):
            raise ConfigError(f"override {override!r}: {above} is {found!r}, which has no {parts[length]!r} in it")
    if key == "seed" and len(parts) == 2:  # one thing: it goes wherever the file has one
        for section in ("dataset", "loader"):
            if OmegaConf.select(config, f"{section}.seed") is not None:
                OmegaConf.update(config, f"{section}.seed", value)
    key = ".".join(parts)
    found = OmegaConf.select(config, key)
    if isinstance(value, str) and OmegaConf.is_dict(found) and COMPONENT in found:
        key = f"{key}.{COMPONENT}"
    OmegaConf.update(config, key, value, merge=OmegaConf.is_dict(found) and isinstance(value, dict), force_add=True)


def _home_of(config: DictConfig, option: str, override: str) -> str:
    """The section of an option that is given without one."""
    distills = "distill" in config and "train" not in config
    home, names = ("distill", DistillOptions.names()) if distills else ("train", TrainOptions.names())
    if option in names:
        return home
    if difflib.get_close_matches(option, names, n=1, cutoff=_LOOKS_LIKE):
        from calotype.builder import is_option

        if not is_option(option):
            raise unknown_key(f"override {override!r}", option, names)
    return "dataset"


def _check_keys(config: Mapping[str, Any], where: str) -> None:
    """Refuses a key that looks like one of ours which is absent; the other keys are the trainer's."""
    absent = [key for key in KEYS if key not in config]
    for key in config:
        if key not in (*KEYS, *_THEIRS) and difflib.get_close_matches(str(key), absent, n=1, cutoff=_LOOKS_LIKE):
            raise unknown_key(where, key, KEYS)


def _check_seeds(config: Mapping[str, Any], where: str) -> None:
    """Refuses two seeds of one run: a loader draws everything by its own, and its dataset's would be ignored."""
    sections = [config.get(name) for name in ("dataset", "loader")]
    seeds = [one.get("seed") if isinstance(one, Mapping) and COMPONENT not in one else None for one in sections]
    if None not in seeds and seeds[0] != seeds[1]:
        raise ConfigError(
            f"{where}: dataset.seed is {seeds[0]!r} and loader.seed is {seeds[1]!r}; every draw follows from the "
            "loader's, so keep one of them (seed=… sets both)"
        )


def _section(key: str) -> str:
    return key.partition(".")[0].partition("[")[0]


def _options(config: Mapping[str, Any], section: str, example: str) -> Config:
    options = config.get(section)
    if options is not None and not isinstance(options, Mapping):
        raise ConfigError(f"config: {section!r} must be a mapping such as {{{example}}}, and is {options!r}")
    return dict(options or {})


def _from_folder(options: Config) -> Config:
    """A `model` that is a local pipeline's folder stands for its row of the table, and for the tokenizers in it."""
    model = options.get("model")
    if not isinstance(model, str) or not Path(model).expanduser().is_dir():
        return options
    from calotype.encodings.frozen import FrozenModels

    spec = FrozenModels(model).spec
    tokenizers = {"tokenizers": model} if spec.tokenizers else {}
    return tokenizers | options | {"model": spec.name}


def _model(config: Mapping[str, Any]) -> Config:
    """`model` and `tokenizers` where they are ours: a mapping is the trainer's network (torchtune's `model`)."""
    ours = {key: config[key] for key in ("model", "tokenizers") if config.get(key) is not None}
    if isinstance(ours.get("model"), Mapping):
        del ours["model"]
    return ours

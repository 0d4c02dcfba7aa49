"""Read a LoRA file to start from: one of calotype in either layout, of kohya's scripts, peft, diffusers and others.

A layer's name differs between them in a prefix, in dots or `_`, and in whether it is diffusers' path or the original
code's. All possible names are therefore derived from the network's layers, and nothing is guessed from the file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from calotype.config.train import TrainConfig
from calotype.errors import ConfigError
from calotype.models.spec import ModelSpec
from calotype.train.lora_file import Adapter, layers_by_name

__all__ = ["Start", "read_start", "take_rank"]

_FILES: Final = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""Names of the file in a folder: diffusers' and peft's."""
_PREFIX: Final = re.compile(
    r"(base_model\.model\.|lora_unet_|lora_transformer_|unet\.|transformer\.|(model\.)?diffusion_model\.)+"
)
_PART: Final = re.compile(
    r"(?P<layer>.+?)(\.(lora_A|lora_down|lora\.down|(?P<up>lora_B|lora_up|lora\.up))(\.default)?\.weight"
    r"|_lora\.(down|(?P<up_>up))\.weight|\.(?P<alpha>alpha))"
)
"""A tensor's name without prefix; `_lora.down` after `processor.to_q` is diffusers' layout of 2023."""
_OTHER_KINDS: Final = ("hada_", "lokr_", "dora_scale", "lora_magnitude_vector", "oft_", "lora_mid")
_UNREAD: Final = ("use_rslora", "use_dora", "alpha_pattern", "rank_pattern")
"""Keys of peft's config that scale layers differently."""
_MOST_NAMED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The adapters of a LoRA file, for one network."""

    adapters: Mapping[str, Adapter]
    """By diffusers' names of the layers; float32, with alpha folded in."""
    note: str
    """A message about the file, its layers and unused tensors."""

    def put(self, weights: Any, *, strength: float) -> None:
        """Copy the file's adapters into a network's.

        Args:
            weights: The network, with peft's adapters of the same rank on these layers.
            strength: peft's scaling factor, alpha / rank.

        Raises:
            ConfigError: A layer of the file has no adapter in the network.
        """
        there = dict(weights.named_parameters())
        absent = [layer for layer in self.adapters if f"{layer}.lora_A.default.weight" not in there]
        if absent:
            raise ConfigError(
                f"train.lora_targets: leaves out {len(absent)} layers that lora_weights has, the first: {absent[0]}; "
                "without lora_targets the adapters are on the file's layers"
            )
        for layer, (down, up) in self.adapters.items():
            there[f"{layer}.lora_A.default.weight"].data.copy_(down)
            there[f"{layer}.lora_B.default.weight"].data.copy_(up / strength)


def take_rank(options: TrainConfig) -> TrainConfig:
    """Set `lora_rank` to the rank of the LoRA file to start from, if there is one.

    Args:
        options: The `train` section.

    Raises:
        ConfigError: The file is missing or no LoRA, or `lora_rank` is set to another rank.
    """
    if options.lora_weights is None:
        return options
    file = _file(options.lora_weights)
    with _opened(file) as opened:
        rank = _rank(file, opened)
    if "lora_rank" in options.model_fields_set and options.lora_rank != rank:
        raise ConfigError(
            f"train.lora_rank: found {options.lora_rank}, and {file} has rank {rank}; leave lora_rank out"
        )
    return options.updated(lora_rank=rank)


def read_start(options: TrainConfig, weights: Any, spec: ModelSpec) -> Start | None:
    """Read the LoRA that a run starts from; None without `lora_weights`.

    Args:
        options: The `train` section, from `take_rank`.
        weights: The network as loaded, without adapters.
        spec: The model.

    Raises:
        ConfigError: The file is no LoRA of this model, or of an unsupported kind.
    """
    if options.lora_weights is None:
        return None

    # Read the tensors, and map the names that the file may use to the network's layers.
    file = _file(options.lora_weights)
    with _opened(file) as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it has no iterator
        alpha = _alpha(file, opened.metadata() or {})
    if kind := next((k for k in _OTHER_KINDS for name in tensors if k in name), None):
        raise ConfigError(
            f"{file}: has {kind!r} in its names; plain LoRA was expected (not LoHa, LoKr, DoRA or LoCon's)"
        )
    shapes = {
        name: layer.weight.shape
        for name, layer in weights.named_modules()
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
    }
    known = layers_by_name(shapes, weights, family=spec.family)

    # Make an adapter for each layer, with alpha folded in.
    adapters: dict[str, Adapter] = {}
    parts, unused = _parts(tensors, known)
    for name, part in parts.items():
        if not {"down", "up"} <= part.keys():
            raise ConfigError(f"{file}: {name} has one of lora_down and lora_up; both were expected")
        down, up = part["down"].float(), part["up"].float()
        rank, layers = len(down), known[name]
        strength = float(part.get("alpha", alpha or rank)) / rank
        rows = [shapes[layer][0] for layer in layers]
        if sum(rows) != len(up) or down[0].numel() != math.prod(shapes[layers[0]][1:]):
            raise ConfigError(
                f"{file}: {name} adapts a weight of ({len(up)}, {down[0].numel()}), and {spec.name} has "
                f"({sum(rows)}, {math.prod(shapes[layers[0]][1:])}); is it of another model?"
            )
        split = _split(file, name, Adapter(down.flatten(1), up.flatten(1) * strength), rows, options.lora_rank)
        for layer, one in zip(layers, split, strict=True):
            if one is not None:
                adapters[layer] = _shaped(one, shapes[layer])

    # Check that the file is for this network, and has one rank.
    if not adapters:
        raise ConfigError(f"{file}: has no layer of {spec.name}'s network; its first names are {_named(list(tensors))}")
    if ranks := sorted({len(one.down) for one in adapters.values()} - {options.lora_rank}):
        raise ConfigError(
            f"{file}: has layers of rank {options.lora_rank} and {', '.join(map(str, ranks))}; one rank was expected"
        )
    note = f"note: starts from {file}: {len(adapters)} layers of rank {options.lora_rank}"
    if unused:
        note += f"; {len(unused)} tensors are not used: {_named(unused)}"
    return Start(adapters=adapters, note=note)


def _parts(tensors: Mapping[str, Tensor], known: Mapping[str, Any]) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Return the tensors of each layer (`down`, `up`, `alpha`) by its name in `known`, and the other names."""
    parts: dict[str, dict[str, Tensor]] = {}
    unused = []
    for name, tensor in tensors.items():
        found = _PART.fullmatch(_PREFIX.sub("", name, count=1) if _PREFIX.match(name) else name)
        layer = found["layer"].replace(".processor.", ".").replace(".", "_") if found else ""
        if layer not in known and f"{layer}_0" in known:  # older names have `to_out` for `to_out.0`
            layer = f"{layer}_0"
        if found is None or layer not in known:
            unused.append(name)
            continue
        kind = "alpha" if found["alpha"] else "up" if found["up"] or found["up_"] else "down"
        parts.setdefault(layer, {})[kind] = tensor
    whole = {layer: part for layer, part in parts.items() if part.keys() != {"alpha"}}
    return whole, unused


def _split(file: Path, name: str, joined: Adapter, rows: Sequence[int], rank: int) -> list[Adapter | None]:
    """Split the adapter of a joined layer of the original code into one for each diffusers layer.

    A block-diagonal `up` is split into its blocks; of any other, each layer gets its rows and all of `down`. A layer
    without a block gets None.

    Raises:
        ConfigError: The rank is a multiple of `rank`, and `up` is not block-diagonal.
    """
    down, ups = joined.down, torch.split(joined.up, list(rows))
    blocks = len(down) // rank
    if len(rows) == 1 or blocks < 2 or len(down) % rank:
        return [Adapter(down, up) for up in ups]
    own = [layer for layer, up in enumerate(ups) if blocks == len(rows) or up.any()]
    found: list[Adapter | None] = [None] * len(rows)
    for block, layer in enumerate(own):
        columns = slice(block * rank, (block + 1) * rank)
        found[layer] = Adapter(down[columns], ups[layer][:, columns])
    kept = sum(int(one.up.count_nonzero()) for one in found if one is not None)
    if len(own) != blocks or kept != int(joined.up.count_nonzero()):
        raise ConfigError(
            f"{file}: {name} has rank {len(down)}, {blocks} times that of other layers, and its lora_up is not "
            f"block-diagonal over {len(rows)} layers; one rank was expected"
        )
    return found


def _shaped(adapter: Adapter, weight: Sequence[int]) -> Adapter:
    """Reshape an adapter to peft's shapes: (rank, in, height, width) and (out, rank, 1, 1) for a convolution."""
    down, up = adapter
    return Adapter(down.reshape(len(down), *weight[1:]), up.reshape(*up.shape, *(1 for _ in weight[2:])))


def _file(path: str) -> Path:
    """Return the file of an option, or the one in its folder."""
    given = Path(path).expanduser()
    file = next((given / name for name in _FILES if (given / name).is_file()), given)
    if not file.is_file() or file.suffix != ".safetensors":
        raise ConfigError(
            f"train.lora_weights: found {path!r}, expected a LoRA's .safetensors file, or a folder with {_FILES[0]}"
        )
    return file


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, "pt")
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{file}: is no safetensors file ({error})") from error


def _rank(file: Path, opened: Any) -> int:
    """Return the rank of the file's layers; joined layers may have a multiple of it."""
    ranks = []
    for name in opened.keys():  # noqa: SIM118
        found = _PART.fullmatch(name)
        if found and not (found["up"] or found["up_"] or found["alpha"]) and not name.startswith(("lora_te", "text_")):
            ranks.append(int(opened.get_slice(name).get_shape()[0]))
    if not ranks:
        raise ConfigError(f"{file}: has no lora_down or lora_A; a LoRA was expected")
    named = (opened.metadata() or {}).get("ss_network_dim", "")
    rank = int(named) if named.isdecimal() else min(ranks)
    return rank if rank and any(one % rank == 0 for one in ranks) else min(ranks)


def _alpha(file: Path, metadata: Mapping[str, str]) -> float | None:
    """Return the alpha of all layers in diffusers' or peft's config; None without one (the rank then).

    Raises:
        ConfigError: The config describes adapters of another kind.
    """
    config: dict[str, Any] = {}
    beside = file.with_name("adapter_config.json")
    if "lora_adapter_metadata" in metadata:
        described = json.loads(metadata["lora_adapter_metadata"])
        config = {k.split(".", 1)[1]: v for k, v in described.items() if k.startswith(("unet.", "transformer."))}
    elif file.name == _FILES[1] and beside.is_file():
        config = json.loads(beside.read_bytes())
    if other := [name for name in _UNREAD if config.get(name)]:
        raise ConfigError(f"{file}: its description has {other[0]}; adapters with one rank and one alpha were expected")
    return float(config["lora_alpha"]) if "lora_alpha" in config else None


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")

"""`EncodingConfig`: with which model a dataset is encoded, how much of it is stored, and where."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from calotype.config.derived import Derived
from calotype.config.section import Count, PathText, Section, Text
from calotype.errors import ConfigError

__all__ = ["EncodingConfig"]


class EncodingConfig(Section):
    """What to encode with, how much of it to store, and where. With this section, the loader gives encoded batches."""

    name: ClassVar[str] = "encodings"
    example: ClassVar[str] = "store: encodings"

    model: Annotated[PathText | None, Derived("the config's model")] = None
    """A model's name, its name on the hub, or a local pipeline folder."""
    spec: Annotated[Text | None, Derived("the first of its family")] = None
    """The known model whose facts apply, where its name does not show it: `sd-2.1` for a folder like SD 1.5's."""
    store: Annotated[
        PathText | None,
        Derived("one for all datasets: $CALOTYPE_CACHE/encodings, else ~/.cache/calotype/encodings"),
    ] = None
    """Folder of the store."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Dtype of the frozen models and of the store."""
    latents: Literal["moments", "mean"] = "moments"
    """`moments` stores the posterior, so that latents are sampled anew each epoch; `mean` only its mean, half as
    large."""
    max_sequence_length: Annotated[Count | None, Derived("the model's own")] = None
    """Tokens of a caption, for models that have a choice."""
    image_variants: Count | None = None
    """Outcomes to store of each image whose crop, angle or colors are sampled anew each epoch."""
    caption_variants: Count | None = None
    """Outcomes to store of each caption whose parts are shuffled or dropped."""
    on_the_fly: bool = False
    """Encode what is missing while training, in its first epoch."""
    in_memory: bool = False
    """Keep encodings in the loader's memory from their first read on."""
    weights: Text | None = None
    """Variant of the weights to load, such as `fp16`."""

    @property
    def known_model(self) -> str:
        """The model.

        Raises:
            ConfigError: There is none.
        """
        if not self.model:
            raise ConfigError("model: nothing says for which model; name it with --model or model: flux.1-dev")
        return str(self.model)

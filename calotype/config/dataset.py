"""`DatasetConfig`: which images and captions there are, and what is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema

from calotype.config.buckets import BucketsConfig, Resolution
from calotype.config.caption_transform import CaptionTransformConfig
from calotype.config.derived import Derived
from calotype.config.expected import Expected
from calotype.config.image_files import DownloadsConfig, FetchConfig, PixelCacheConfig
from calotype.config.img_transform import ImageTransformConfig
from calotype.config.instantiate import COMPONENT
from calotype.config.section import CountOrZero, PathText, Section, Text, Texts
from calotype.errors import ConfigError

__all__ = ["MANIFEST_OPTIONS", "DatasetConfig"]

_TEXTS: Final[dict[str, Any]] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_COLUMNS: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": {"anyOf": [*_TEXTS["anyOf"], {"type": "null"}]},
}


def _named(value: Any) -> Any:
    """Refuse numbers, true and false, which YAML makes of bare words, in place of the names of files."""
    if isinstance(value, bool | int | float):
        raise ValueError("names no file")
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for one in inner:
        _named(one)
    return value


# What these may be is decided where they are read, which also takes objects of Python.
Paths = Annotated[
    Any, AfterValidator(_named), Expected("a path, a hub name, or a list of paths"), WithJsonSchema(_TEXTS)
]
Patterns = Annotated[Any, Expected("a text or a list of texts"), WithJsonSchema(_TEXTS)]
Columns = Annotated[Any, Expected("a mapping such as {image: photo, caption: text}"), WithJsonSchema(_COLUMNS)]
DataFiles = Annotated[
    Any,
    AfterValidator(_named),
    Expected("a file, a list of files, or a mapping of splits"),
    WithJsonSchema({"anyOf": [*_TEXTS["anyOf"], {"type": "object", "additionalProperties": _TEXTS}]}),
]


def _form(value: Any) -> str:
    """Whether a transform is given by options, or as code."""
    named = isinstance(value, Mapping) and COMPONENT in value
    return "options" if isinstance(value, Mapping | Section) and not named else "code"


_CODE: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "object", "properties": {COMPONENT: {"type": "string"}}, "required": [COMPONENT]},
        {"type": "array"},
        {"type": "null"},
    ]
}
Code = Annotated[Any, WithJsonSchema(_CODE), Tag("code")]
ImgTransform = Annotated[Annotated[ImageTransformConfig, Tag("options")] | Code, Discriminator(_form)]
CaptionTransform = Annotated[Annotated[CaptionTransformConfig, Tag("options")] | Code, Discriminator(_form)]


Level = Annotated[int, Field(ge=0, le=255)]
Color = Annotated[Sequence[Level], Field(min_length=3, max_length=3), Expected("three numbers from 0 to 255")]
HeldOut = Annotated[
    float, Field(ge=0, lt=1, allow_inf_nan=False), Expected("a share of the images, 0 up to (not with) 1")
]


def _decode(value: Any) -> Any:
    if value not in ("exact", "fast"):
        raise ConfigError(f"decode: expected 'exact' or 'fast', not {value!r}")
    return value


Decode = Annotated[Literal["exact", "fast"], BeforeValidator(_decode)]


class DatasetConfig(Section):
    """Which images and captions there are, and what is made of them: options of `calotype.text_to_image_dataset`."""

    name: ClassVar[str] = "dataset"
    example: ClassVar[str] = "path: a folder of images or a data file"

    path: Paths = None
    """A folder, a data file, a glob, a list of these, or the name of a hub dataset."""
    source: Paths = None
    """Another name for `path`."""
    img_transform: ImgTransform = None
    """Crop, flips, colors: options of `calotype.ImageTransform`, or transforms of your own."""
    caption_transform: CaptionTransform = None
    """Trigger, template, shuffled parts: options of `calotype.CaptionTransform`, or a callable of your own."""
    model: PathText | None = None
    """As `model` at the top of the config."""
    tokenizers: PathText | Mapping[str, PathText] | None = None
    """As `tokenizers` at the top of the config."""
    resolution: Annotated[Resolution | None, Derived("the model's, else 1024")] = None
    """Images get about this number squared of pixels."""
    buckets: Annotated[bool | BucketsConfig | None, Derived("true; false where img_transform has resize")] = None
    """Whether images keep their aspect ratio, as near as the buckets have one; or options of the buckets."""
    include: Texts = ()
    """Further keys of a sample: `id`, `text`, columns of the data."""
    seed: int = 0
    """Seed of everything that is sampled at random."""
    decode: Decode = "exact"
    """`fast` decodes JPEGs at a half, a quarter or an eighth where that is enough."""
    background: Color = (255, 255, 255)
    """RGB color under transparent images."""
    pixel_cache: CountOrZero | PixelCacheConfig | None = None
    """Keep decoded pixels of so many images in memory; or limits of it."""
    downloads: PathText | DownloadsConfig | None = None
    """Keep downloaded files in this folder; or the folder and its limits."""
    fetch: FetchConfig | None = None
    """How images are fetched by URL."""
    missing_captions: Annotated[
        Text | None, Derived("error; empty where a trigger or template makes each text anyway")
    ] = None
    """Images without a caption: `error`, `skip`, `empty`, or the caption they get."""
    on_error: Literal["raise", "skip"] = "raise"
    """A bad row of the data: raise its error, or leave it out with a ledger entry."""
    packed: Annotated[Literal[False], Expected("false: images are not packed into sequences")] = False
    """For torchtune's recipes, which pass it; images are never packed."""

    columns: Columns = None
    """The data file's names of columns: `image`, `caption`, `id`, `width`, `height`, `weight`; null says there is
    none."""
    column_map: Columns = None
    """Another name for `columns`."""
    split: Annotated[Text | None, Derived("train")] = None
    """The split to read, or `all`. With `validation`, the side: `train` or `validation`."""
    root: Annotated[PathText | None, Derived("the data file's own folder")] = None
    """Folder that relative paths and ids are relative to."""
    image_dir: PathText | None = None
    """Another name for `root`."""
    recursive: bool = True
    """Read folders inside the folder too."""
    exclude: Patterns = None
    """Files and folders to leave out, as patterns of a `.gitignore`."""
    caption_lines: Literal["one", "many"] | None = None
    """Whether a caption file is one caption, or has one on each line."""
    caption_suffix: Annotated[Patterns, Derived(".txt, .caption and .json")] = None
    """Suffixes of caption files beside images."""
    delimiter: Annotated[Text | None, Derived("what the file's first lines have")] = None
    """What separates the fields of CSV and TSV files."""
    member_key: Literal["auto", "first_dot", "last_dot"] = "auto"
    """What the members of one sample share in tar and LMDB: their names up to this dot."""
    validation: HeldOut = 0.0
    """Share of the images to hold out, from 0 up to 1."""
    validation_seed: int = 0
    """Another seed holds out others."""
    data_files: DataFiles = None
    """Files of a hub dataset, as for `datasets.load_dataset`."""
    keep_rejected: bool = False
    """Also read the rows that a column `rejected` leaves out."""

    @property
    def origin(self) -> Any:
        """`path`, by either name."""
        return self.path if self.path is not None else self.source

    def caption_place(self) -> dict[str, Any]:
        """The options that say where captions are, by the names that `open_captions` has."""
        options = {
            "columns": self.columns if self.columns is not None else self.column_map,
            "root": self.root if self.root is not None else self.image_dir,
            **{name: value for name, value in self.given().items() if name in _CAPTION_PLACE},
        }
        return {name: value for name, value in options.items() if value is not None}

    def check_origin(self) -> None:
        """Check that the dataset's path is given, by one of its names.

        Raises:
            ConfigError: It is not, or by both.
        """
        if (self.path is None) == (self.source is None):
            raise ConfigError("path: expected one of `path` or `source` (they are two names of one option)")

    @property
    def manifest_options(self) -> dict[str, Any]:
        """The given options that `load_manifest` takes."""
        return {name: value for name, value in self.given().items() if name in MANIFEST_OPTIONS}

    @property
    def paths(self) -> list[str] | None:
        """The paths as a list, or None where one is no text."""
        given = self.origin
        paths = [given] if isinstance(given, str | Path) else list(given) if isinstance(given, list | tuple) else []
        return [str(path) for path in paths] if paths and all(isinstance(one, str | Path) for one in paths) else None


_CAPTION_PLACE: Final = ("recursive", "exclude", "caption_lines", "caption_suffix", "delimiter")
MANIFEST_OPTIONS: Final = (
    "columns",
    "column_map",
    "split",
    "root",
    "image_dir",
    "recursive",
    "exclude",
    "caption_lines",
    "caption_suffix",
    "delimiter",
    "member_key",
    "validation",
    "validation_seed",
    "data_files",
    "keep_rejected",
)
"""Options that say which rows there are; `load_manifest` takes them by these names."""

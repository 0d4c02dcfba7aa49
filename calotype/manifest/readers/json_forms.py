"""The forms of a JSON file with images and captions, each turned into rows."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from calotype.errors import ManifestError
from calotype.manifest.file_kinds import IMAGE_SUFFIXES
from calotype.manifest.reading import Reading
from calotype.manifest.tables.columns import find_columns
from calotype.manifest.tables.references import is_remote

__all__ = ["JsonForm", "form_of", "is_row"]

_OWN: Final = ("image", "file_name", "filename", "file", "image_path", "img_path", "image_file", "img")
"""Columns of a keyed row that name its image; without them the key does. Not `url`, which may be the image's origin."""
_KOHYA: Final = frozenset({"caption", "tags", "image_size", "train_resolution", "train_resolutions", "latent_size"})
_SPLITS: Final = ("train", "training", "validation", "valid", "val", "dev", "test", "testing")


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonForm:
    """The rows of a file, and their positions in it."""

    rows: list[Any]
    """Objects; other values are bad rows."""
    keys: list[str] | None = None
    """Name of each row in messages; None: its number."""
    image: str | None = None
    """The image column, if the form defines it."""
    listed: list[Any] | None = None
    """The list in the file that the rows are the items of."""
    keyed: dict[str, Any] | None = None
    """The object in the file that has a row under each of `keys`."""
    derived: frozenset[str] = frozenset()
    """Columns that are computed, and not in the file."""
    name: str = "an array of objects"
    """Name of the form in messages."""

    def where(self, file: Path, row: int) -> str:
        """Return the name of a row in messages."""
        return f"{file} item {row + 1}" if self.keys is None else f"{file} at {self.keys[row]!r}"

    def given(self, reading: Reading) -> dict[str, tuple[str, ...] | None]:
        """Return the mapping of the option `columns`, with the form's image column."""
        return {**reading.columns, **({} if self.image is None else {"image": (self.image,)})}


def is_row(whole: Mapping[str, Any], given: Mapping[str, tuple[str, ...] | None]) -> bool:
    """Whether the object of a file is a single row: it has an image column whose value is a text."""
    try:
        columns = find_columns(list(whole), given, "")
    except ManifestError:
        return False
    return isinstance(whole[columns.image], str)


def form_of(whole: Any, file: Path, reading: Reading) -> JsonForm:
    """Find the form of a file's value.

    Raises:
        ManifestError: It has none of the forms; the message describes it.
    """
    if isinstance(whole, list):
        return JsonForm(rows=whole, listed=whole)
    if isinstance(whole, dict) and whole:
        for form in (_coco, _karpathy, _records_of_lists, _columns, _wrapped, _keyed):
            found = form(whole, file, reading)
            if found is not None:
                return found
    raise ManifestError(
        f"{file}: found {_described(whole)}, which has no rows of images; expected an array of objects with "
        "an image and a caption, such an array inside an object, columns, an object keyed by path, COCO captions, or "
        "one object a line"
    )


def _described(whole: Any) -> str:
    if not isinstance(whole, dict):
        return f"a value of type {type(whole).__name__}"
    names = ", ".join(repr(name[:40]) for name in list(whole)[:5])
    return f"an object with the keys {names}{', …' if len(whole) > 5 else ''}" if whole else "an empty object"


def _objects(value: Any) -> list[dict[str, Any]] | None:
    """Return the value if it is a list of objects that is not empty."""
    return value if isinstance(value, list) and value and all(isinstance(each, dict) for each in value) else None


def _coco(whole: dict[str, Any], file: Path, reading: Reading) -> JsonForm | None:
    """Parse COCO: `images` and `annotations` (or none, as in COCO's test sets), joined by `image_id`."""
    images, notes = _objects(whole.get("images")), _objects(whole.get("annotations"))
    if images is None or notes is None:
        return None
    if not any("caption" in note for note in notes):
        raise ManifestError(
            f"{file}: COCO annotations without captions (found {', '.join(map(repr, list(notes[0])[:6]))}); expected "
            "annotations with a 'caption', as in captions_train2017.json"
        )
    captions: dict[Any, list[Any]] = {}
    for image in images:
        captions.setdefault(_hashable(image.get("id")), [])
    for index, note in enumerate(notes):
        texts = captions.get(_hashable(note.get("image_id")))
        if texts is None:
            reading.bad(f"{file} annotation {index + 1}", f"no image has the id {note.get('image_id')!r}")
        elif note.get("caption") is not None:
            texts.append(note["caption"])
    rows = [{**image, "caption": captions[_hashable(image.get("id"))]} for image in images]
    return JsonForm(rows=rows, name="COCO")


def _karpathy(whole: dict[str, Any], file: Path, reading: Reading) -> JsonForm | None:
    """Parse Karpathy's splits of COCO and Flickr30k: images with `sentences` and a `split`."""
    images = _objects(whole.get("images"))
    if images is None or not all(isinstance(image.get("sentences"), list) for image in images):
        return None
    splits = [str(image.get("split", "")) for image in images]
    wanted = {"train", "restval"} if reading.split in (None, "train") else {reading.split}
    if wanted & set(splits):
        reading.used.add("split")
        counts = {split: splits.count(split) for split in dict.fromkeys(splits)}
        others = ", ".join(f"{count:,} of {split!r}" for split, count in counts.items() if split not in wanted)
        if others:
            reading.note(f"{file.name}: read its splits {' and '.join(sorted(wanted & set(splits)))}, not {others}")
        images = [image for image, split in zip(images, splits, strict=True) if split in wanted]
    rows = []
    for image in images:
        sentences = [each.get("raw") if isinstance(each, dict) else each for each in image["sentences"]]
        rest = {name: value for name, value in image.items() if name not in ("sentences", "filepath", "filename")}
        name = posixpath.join(str(image.get("filepath") or ""), str(image.get("filename") or ""))
        rows.append({"image": name, "caption": sentences, **rest})
    return JsonForm(rows=rows, image="image", name="Karpathy's splits")


def _records_of_lists(whole: dict[str, Any], file: Path, reading: Reading) -> JsonForm | None:
    """Parse pandas' `to_json(orient="split")`: names of columns, and a list of values for each row."""
    names, data = whole.get("columns"), whole.get("data")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not isinstance(data, list):
        return None
    if not all(isinstance(row, list) for row in data):
        return None
    for index, row in enumerate(data):
        if len(row) != len(names):
            reading.bad(
                f"{file} item {index + 1}", f"found {len(row)} values; expected {len(names)}: {', '.join(names)}"
            )
    rows = [dict(zip(names, row, strict=True)) for row in data if len(row) == len(names)]
    return JsonForm(rows=rows, name="columns and lists of values")


def _columns(whole: dict[str, Any], file: Path, reading: Reading) -> JsonForm | None:
    """Parse columns by name: lists of equal length, or pandas' objects keyed by index."""
    try:
        image = find_columns(list(whole), reading.columns, "").image
    except ManifestError:
        return None
    if all(isinstance(values, list) for values in whole.values()):
        lengths = {name: len(values) for name, values in whole.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name!r} has {count}" for name, count in lengths.items())
            raise ManifestError(f"{file}: columns of different lengths: {listed}; expected columns of one length")
        names = list(whole)
        rows = [dict(zip(names, values, strict=True)) for values in zip(*whole.values(), strict=True)]
        return JsonForm(rows=rows, name="columns")
    if all(isinstance(values, dict) for values in whole.values()) and all(
        value is None or isinstance(value, str | int) for value in whole[image].values()
    ):
        keys = list(dict.fromkeys(key for values in whole.values() for key in values))
        rows = [{name: values.get(key) for name, values in whole.items()} for key in keys]
        return JsonForm(rows=rows, keys=keys, name="columns keyed by index")
    return None


def _wrapped(whole: dict[str, Any], file: Path, reading: Reading) -> JsonForm | None:
    """Parse rows inside an object: the only list of objects, or the only one with images and captions."""
    lists = {name: objects for name, value in whole.items() if (objects := _objects(value)) is not None}
    if not lists:
        inner = [name for name, value in whole.items() if isinstance(value, dict | list)]
        if len(inner) == 1 and isinstance(whole[inner[0]], dict) and whole[inner[0]] and not _may_be_image(inner[0]):
            return _keyed(whole[inner[0]], file, reading)
        return None
    if any(_may_be_image(name) for name in lists):
        return None
    chosen = list(lists)
    if len(chosen) > 1:
        with_captions = [name for name in lists if _has(lists[name], reading, captions=True)]
        chosen = with_captions or [name for name in lists if _has(lists[name], reading, captions=False)]
    if len(chosen) > 1 and all(name.lower() in _SPLITS for name in chosen):
        wanted = reading.split or "train"
        reading.used.add("split")
        chosen = [name for name in chosen if name.lower() == wanted]
    if len(chosen) != 1:
        raise ManifestError(
            f"{file}: several lists of rows: {', '.join(map(repr, lists))}; expected one: put the others into files of "
            "their own"
        )
    if len(lists) > 1:
        others = ", ".join(repr(name) for name in lists if name != chosen[0])
        reading.note(f"{file.name}: read the rows in {chosen[0]!r}, not those in {others}")
    rows = lists[chosen[0]]
    return JsonForm(rows=rows, listed=rows, name=f"rows in {chosen[0]!r}")


def _has(rows: Sequence[dict[str, Any]], reading: Reading, *, captions: bool) -> bool:
    try:
        columns = find_columns(list(dict.fromkeys(name for row in rows for name in row)), reading.columns, "")
    except ManifestError:
        return False
    return bool(columns.captions) or not captions


def _keyed(whole: dict[str, Any], file: Path, reading: Reading) -> JsonForm | None:
    """Parse an object keyed by path, with a caption or object each; or by any key, with the image in each row."""
    own = _own_image([value for value in whole.values() if isinstance(value, dict)], reading)
    if own is None and not any(map(_may_be_image, whole)) and not _are_stems(whole, reading.image_root or file.parent):
        return None
    kohya = own is None and all(isinstance(value, dict) and value.keys() <= _KOHYA for value in whole.values())
    image = own or "image"
    rows: list[Any] = []
    for key, value in whole.items():
        if isinstance(value, dict):
            row = (
                value if own in value else {image: key, **{name: each for name, each in value.items() if name != image}}
            )
            rows.append(_of_kohya(row, file, reading) if kohya else row)
        elif value is None or isinstance(value, str | list):
            rows.append({image: key, "caption": value})
        else:
            rows.append(value)
    derived = frozenset({"width", "height"}) if kohya else frozenset()
    return JsonForm(
        rows=rows, keys=list(whole), image=image, keyed=whole, derived=derived, name="an object keyed by path"
    )


def _own_image(rows: Sequence[dict[str, Any]], reading: Reading) -> str | None:
    """Return the column in which rows under a key name their image."""
    wanted = [name.lower() for name in reading.columns.get("image") or _OWN]
    found = {name.lower(): name for row in rows for name, value in row.items() if isinstance(value, str)}
    return next((found[name] for name in wanted if name in found), None)


def _may_be_image(key: str) -> bool:
    return Path(key).suffix.lower() in IMAGE_SUFFIXES or is_remote(key) or "/" in key or "\\" in key


def _are_stems(keys: Mapping[str, Any], base: Path) -> bool:
    """Whether a key is the stem of an image file in `base`."""
    try:
        stems = {path.stem for path in base.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    except OSError:
        return False
    return not stems.isdisjoint(keys)


def _of_kohya(row: dict[str, Any], file: Path, reading: Reading) -> dict[str, Any]:
    """Return a row of kohya's `meta_cap.json`, `meta_lat.json` or metadata, with caption or tags, and size."""
    row = dict(row)
    if not row.get("caption") and row.get("tags"):
        row["caption"] = row["tags"]
        reading.note(f"{file.name}: where kohya's metadata has tags and no caption, the tags are the caption")
    size = row.get("image_size")
    if isinstance(size, list) and len(size) == 2:
        row["width"], row["height"] = size
    return row


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else repr(value)

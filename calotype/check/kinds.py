"""The kinds of findings of `check`: how severe each is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

__all__ = ["KINDS", "LEVELS", "Kind", "Level"]

Level = Literal["error", "warning", "note"]
"""`error`: training would stop, lose an image or leak validation images. `warning`: it would continue, likely with a
worse result. `note`: handled, and good to know. Errors and warnings make the exit status 1."""
LEVELS: Final[tuple[Level, ...]] = get_args(Level)
"""The most severe first."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding."""

    section: Literal["files", "pixels", "duplicates", "captions", "plan"]
    level: Level
    title: str
    """Heading above its findings."""
    advice: str


KINDS: dict[str, Kind] = {
    # files
    "missing_file": Kind("files", "error", "Files that are not there", "fix the path in the data file, or the row"),
    "unreadable": Kind("files", "error", "Files that can't be read", "check the file's rights and disk, or remove it"),
    "empty_file": Kind("files", "error", "Empty files", "copy or download the image again, or remove it"),
    "not_an_image": Kind("files", "error", "Not images", "replace it by an image, or remove it"),
    "truncated": Kind("files", "error", "Truncated files", "copy or download the image again, or remove it"),
    "damaged": Kind("files", "error", "Damaged files", "copy or download the image again, or remove it"),
    "too_many_pixels": Kind(
        "files", "error", "Over the limit of pixels", "make it smaller; only if you trust it, raise max_pixels"
    ),
    "too_costly": Kind(
        "files",
        "error",
        "Made to take far too long or too much memory",
        "save it again as a plain PNG or JPEG, in pieces if a side is very long; or remove it",
    ),
    "fetch_failed": Kind("files", "error", "URLs that gave no image", "fix the URL, or remove the row"),
    "bad_data": Kind("files", "error", "Data that can't be read", "fix it; nothing else could be looked at"),
    "bad_row": Kind("files", "error", "Rows that can't be used", "fix the row in the data file"),
    "animated": Kind("files", "warning", "Animated or of several pages", "only the first frame is used: save that one"),
    "unsupported": Kind("files", "warning", "Kinds of file that are not read", "convert it to PNG or JPEG"),
    "companion": Kind(
        "files",
        "warning",
        "Images that are no samples",
        "nothing, if that is right: exclude says that it is. Else rename it",
    ),
    "unused_member": Kind(
        "files",
        "warning",
        "Members of archives that are not used",
        "nothing, if training needs no more than images and text",
    ),
    "regularisation": Kind(
        "files",
        "warning",
        "Regularisation images",
        "they are not trained on: exclude says that this is meant, a path of its own trains on them",
    ),
    "archive": Kind("files", "warning", "Packed files", "unpack it, or move it away"),
    "unread_data": Kind("files", "warning", "Data files that are not read", "give it as path, or exclude it"),
    "broken_link": Kind("files", "error", "Links that lead nowhere", "fix or remove the link"),
    "link_loop": Kind("files", "note", "Links to folders above them", "nothing: what is there is read once"),
    "excluded": Kind("files", "note", "Excluded", "nothing: the config says so"),
    "doubtful": Kind(
        "files", "note", "Read as samples, though their names say otherwise", "nothing, if they are: else exclude them"
    ),
    "wrong_suffix": Kind(
        "files", "note", "Names with another format's suffix", "it is read by its content; rename it for other programs"
    ),
    "caption_without_image": Kind(
        "files", "warning", "Captions without an image", "add its image, or remove the caption"
    ),
    "unused_captions": Kind(
        "files", "warning", "Captions that are not used", "use them as is said there, or move them away"
    ),
    "other_splits": Kind(
        "files", "note", "Splits that are not read", "nothing, if that is meant; else choose with split="
    ),
    "no_split": Kind(
        "files", "warning", "In none of the folder's splits", "move it into one, or take all with split=all"
    ),
    "no_caption": Kind(
        "files", "error", "Images without a caption", "write one, or say missing_captions=skip or =empty"
    ),
    "rejected": Kind("files", "note", "Left out by choice", "nothing: someone marked them as rejected"),
    "same_stem": Kind(
        "files", "warning", "Images that share one caption file", "rename one, or give each a caption: a.png.txt"
    ),
    # pixels
    "rotated": Kind("pixels", "note", "Turned by their EXIF orientation", "nothing: calotype turns them upright"),
    "alpha": Kind(
        "pixels", "note", "With transparency", "laid on `background`, white by default: is that colour right?"
    ),
    "colour_profile": Kind("pixels", "note", "In another colour space than sRGB", "nothing: they are converted"),
    "cmyk": Kind("pixels", "note", "CMYK", "nothing: converted; save as sRGB where the colours matter"),
    "sixteen_bit": Kind("pixels", "note", "16 bits a channel", "nothing: brought to 8 bits"),
    "greyscale": Kind("pixels", "note", "Greyscale", "is it meant to teach grey? Else leave it out"),
    "too_small": Kind(
        "pixels", "warning", "Smaller than training needs", "find a larger original, lower resolution, or leave it out"
    ),
    "cropped": Kind(
        "pixels", "warning", "Much of the image is cropped away", "use buckets, or crop it yourself to what matters"
    ),
    "wrong_size": Kind(
        "pixels", "warning", "Another size than the data file says", "fix width and height in the data file"
    ),
    "extreme_aspect": Kind("pixels", "warning", "Extreme shapes", "crop it yourself, or raise buckets.max_aspect"),
    # duplicates
    "leak": Kind(
        "duplicates", "error", "Images both trained on and validated with", "remove one side, or measure nothing"
    ),
    "same_file": Kind("duplicates", "warning", "The same file twice", "remove all but one"),
    "same_pixels": Kind("duplicates", "warning", "The same pixels in different files", "remove all but one"),
    "near_duplicate": Kind(
        "duplicates", "warning", "Nearly the same image", "keep the best, unless the difference is what matters"
    ),
    # captions
    "empty_caption": Kind("captions", "warning", "Empty captions", "write one, or set a trigger"),
    "repeated_caption": Kind(
        "captions", "warning", "The same caption on several images", "say what sets each image apart"
    ),
    "trigger_missing": Kind(
        "captions",
        "warning",
        "The trigger is missing",
        "set caption_transform.trigger, which puts it into every caption",
    ),
    "trigger_twice": Kind(
        "captions", "warning", "The trigger comes twice", "remove it from the captions, or from the config"
    ),
    "placeholder": Kind(
        "captions",
        "error",
        "Captions that wait for a trigger",
        "set caption_transform.trigger: it stands wherever a caption has {trigger}",
    ),
    "no_trigger": Kind(
        "captions", "note", "No trigger", "to teach one subject or style, set caption_transform.trigger to a rare word"
    ),
    "cut_caption": Kind(
        "captions", "warning", "Captions longer than the model reads", "shorten it, or put what matters first"
    ),
    "several_captions": Kind("captions", "note", "Several captions an image", "nothing: one is sampled each time"),
    "several_lines": Kind(
        "captions",
        "warning",
        "Caption files of several lines",
        "set caption_lines=many to make each line a caption, or caption_lines=one",
    ),
    "odd_characters": Kind("captions", "warning", "Odd characters in captions", "fix the text, or its encoding"),
    "refusal": Kind("captions", "warning", "A captioner's refusals", "write the caption, or have it made again"),
    "opener": Kind(
        "captions", "warning", "A captioner's openers", "remove it: the model would learn the phrase with every image"
    ),
    # plan
    "broken_package": Kind(
        "plan",
        "warning",
        "Packages of models that can't be loaded",
        "update or uninstall the package; models of other families are not affected",
    ),
    "no_batches": Kind("plan", "error", "No batch at all", "lower batch_size, or choose remainder=short or =repeat"),
    "left_out": Kind("plan", "warning", "Left out of an epoch", "choose remainder=short or =repeat"),
    "repeated": Kind("plan", "note", "Shown twice to fill a batch", "nothing; remainder=short makes a smaller batch"),
    "short_batches": Kind(
        "plan", "note", "Batches smaller than batch_size", "nothing; remainder=repeat fills them, drop leaves them out"
    ),
}

"""The preview as one HTML file that needs no network and no other files."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

from calotype.loader.summary import Entry
from calotype.previews.article import article
from calotype.previews.badges import Badge, find_badges
from calotype.previews.crop import draw_rules
from calotype.previews.dialogs import keys_dialog, zoom_dialog
from calotype.previews.markup import Html, tag, visible
from calotype.previews.overview import anchor_of, strip, verdict_line
from calotype.previews.views import BatchView, SampleView
from calotype.previews.wording import count

__all__ = ["render_page"]

_STYLES = ("palette.css", "page.css", "overview.css", "sample.css", "dialogs.css", "screens.css")
_SCRIPTS = ("filter.js", "compare.js", "page.js")
_TRUE_PIXELS = 24_000_000
"""Total pixels up to which the images as trained are embedded at full size: a page of about 8 MB."""
_WHOLE, _REDUCED = 4096, 640
"""Maximum longer sides of the images as trained: at full size, and of many images."""


def render_page(batches: Sequence[BatchView], *, title: str) -> str:
    """Render a page.

    Args:
        batches: The batches, in order.
        title: The headline: names of the dataset and the model.

    Returns:
        The text of the file; write it as UTF-8.
    """
    found = find_badges(batches)
    pixels = sum(sample.image.shape[0] * sample.image.shape[1] for batch in batches for sample in batch.samples)
    side = _WHOLE if pixels <= _TRUE_PIXELS else _REDUCED
    # Encoding the images takes nearly all of the time, and releases the GIL.
    with ThreadPoolExecutor() as pool:
        sections = [
            _batch(batch, number, badges, side, pool)
            for number, (batch, badges) in enumerate(zip(batches, found, strict=True), start=1)
        ]
        numbered = enumerate(zip(batches, found, strict=True), start=1)
        strips = list(pool.map(lambda one: strip(one[1][0], one[0], one[1][1]), numbered))
    most = max((len(sample.draws) for batch in batches for sample in batch.samples), default=0)
    style, script = Html("".join(map(_own, _STYLES)) + draw_rules(most)), Html("".join(map(_own, _SCRIPTS)))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", visible(title)),
        tag("link", rel="icon", href="data:,"),
        tag("style", style),
    )
    body = tag(
        "body",
        tag("a", "Skip to the samples", href="#samples", class_="skip"),
        _header(batches, title, found),
        _overview(strips),
        _bar(batches),
        tag("main", *sections, _nothing(), id="samples", tabindex=-1),
        keys_dialog(),
        zoom_dialog(),
        tag("script", script),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _own(name: str) -> Html:
    return Html(files(__package__).joinpath(name).read_text("utf-8"))


def _policy(style: str, script: str) -> str:
    """Return the content security policy: inline images, this style and this script, and nothing else."""
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in (style, script)
    )
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _header(batches: Sequence[BatchView], title: str, found: Sequence[Sequence[tuple[Badge, ...]]]) -> Html:
    samples = sum(len(batch.samples) for batch in batches)
    return tag(
        "header",
        tag("h1", tag("bdi", title)),
        tag("p", f"{count(samples, 'sample')} in {count(len(batches), 'batch')}, as training gets them"),
        verdict_line(found),
        class_="page",
    )


def _overview(strips: Sequence[Html]) -> Html:
    return tag("section", tag("ol", *strips), _legend(), class_="overview", aria_label="Overview")


def _nothing() -> Html:
    return tag("p", "No sample matches.", class_="nothing", hidden=True)


def _legend() -> Html:
    marks = [
        tag("li", _swatch("kept"), "the part that is trained on"),
        tag("li", _swatch("dashed"), "the part that another epoch takes"),
        tag("li", "words ", tag("del", "dropped")),
        tag("li", tag("mark", "moved")),
        tag("li", tag("ins", "added")),
    ]
    return tag("ul", *marks, class_="legend", aria_label="What the marks mean")


def _swatch(name: str) -> Html:
    frame = tag("rect", x=1, y=1, width=30, height=16, class_=name)
    return tag("svg", frame, class_="swatch", viewBox="0 0 32 18", aria_hidden="true")


def _bar(batches: Sequence[BatchView]) -> Html:
    links = [
        tag("li", tag("a", str(batch.step), href=f"#batch-{number}", aria_label=_name(batch)))
        for number, batch in enumerate(batches, start=1)
    ]
    steps = tag("ul", *links)
    return tag("nav", tag("span", "Steps", class_="place"), steps, _tools(), class_="bar", aria_label="Batches")


def _tools() -> Html:
    """Return the controls that need the script; they are hidden until it runs."""
    return tag(
        "div",
        _switch("Crops", tool="crops", key="c", pressed=True),
        _switch("All tokens", tool="tokens", key="t", pressed=False),
        _button("Keys", tool="keys", key="?"),
        tag(
            "input",
            type="search",
            placeholder="Search captions, ids",
            aria_label="Search in captions and ids",
            data_tool="filter",
        ),
        tag("output", data_tool="found"),
        tag("button", "Show all", type="button", data_tool="all", hidden=True),
        class_="tools",
        role="group",
        aria_label="View",
        hidden=True,
    )


def _switch(label: str, *, tool: str, key: str, pressed: bool) -> Html:
    return _button(label, tool=tool, key=key, aria_pressed=str(pressed).lower())


def _button(label: str, *, tool: str, key: str, aria_pressed: str | None = None) -> Html:
    return tag(
        "button",
        label,
        " ",
        tag("kbd", key, aria_hidden="true"),
        type="button",
        data_tool=tool,
        aria_pressed=aria_pressed,
        aria_keyshortcuts=key,
    )


def _batch(
    batch: BatchView, number: int, found: Sequence[tuple[Badge, ...]], side: int, pool: ThreadPoolExecutor
) -> Html:
    anchor, of = f"batch-{number}", len(batch.samples)

    def one(place: int, sample: SampleView, badges: tuple[Badge, ...]) -> Html:
        return article(sample, anchor=anchor_of(number, place), number=place, of=of, side=side, badges=badges)

    sizes = dict.fromkeys(f"{sample.image.shape[1]} × {sample.image.shape[0]} px" for sample in batch.samples)
    facts = (", ".join(sizes), count(of, "sample"), f"{batch.steps} steps an epoch", f"seed {batch.seed}")
    return tag(
        "section",
        tag(
            "header",
            tag("h2", _name(batch), id=f"{anchor}-name"),
            tag("p", " · ".join(fact for fact in facts if fact), class_="facts"),
            _tensors(batch.entries, "What the batch holds", folded=number > 1),
            _tensors(batch.encoded, "What the same batch holds as encodings", folded=number > 1),
        ),
        *pool.map(one, range(1, of + 1), batch.samples, found),
        class_="batch",
        id=anchor,
        aria_labelledby=f"{anchor}-name",
    )


def _name(batch: BatchView) -> str:
    return f"Epoch {batch.epoch}, step {batch.step}"


def _tensors(entries: Sequence[Entry], title: str, *, folded: bool) -> Html | None:
    if not entries:
        return None
    head = tag("tr", *(tag("th", name, scope="col") for name in ("Key", "Type", "Shape", "Range")))
    rows = [
        tag(
            "tr",
            tag("th", _key(entry.key), scope="row"),
            tag("td", entry.kind),
            tag("td", f"({', '.join(map(str, entry.shape))}{',' if len(entry.shape) == 1 else ''})"),
            tag("td", "–" if entry.low is None or entry.high is None else f"{entry.low:g} … {entry.high:g}"),
        )
        for entry in entries
    ]
    content = (tag("thead", head), tag("tbody", *rows))
    if folded:
        table = tag("table", *content, class_="tensors", aria_label=title)
        return tag("details", tag("summary", title), table)
    return tag("table", tag("caption", title), *content, class_="tensors")


def _key(name: str) -> Html:
    """Return the name of a batch's entry, which a narrow page breaks after `_`."""
    first, *others = re.split(r"(?<=_)", name)
    return tag("code", first, *(piece for other in others for piece in (tag("wbr"), other)))

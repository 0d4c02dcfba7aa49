"""`Preview`: batches of a Loader with explanations, to save as a page or contact sheet, or show in a notebook."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import Any

from calotype.core.output_files import write_output
from calotype.data.dataset import TextToImageDataset
from calotype.errors import ConfigError
from calotype.loader import Loader
from calotype.previews.gather import gather, previewed
from calotype.previews.markup import Html, tag
from calotype.previews.page import render_page
from calotype.previews.round_trip import Autoencoder
from calotype.previews.sheet import contact_sheet
from calotype.previews.suffix import check_suffix
from calotype.previews.views import BatchView
from calotype.progress import Show

__all__ = ["Preview", "preview"]


class Preview:
    """The result of `preview`. A notebook displays it.

    Args:
        batches: Views of the batches.
        title: The headline.
    """

    def __init__(self, batches: tuple[BatchView, ...], *, title: str) -> None:
        self.batches = batches
        self.title = title

    def save(self, path: str | Path) -> Path:
        """Write one file: `.html` is the page, `.png` the contact sheet. Missing folders are created.

        Args:
            path: The file. An existing one is replaced.

        Returns:
            The path, with `~` expanded.

        Raises:
            ConfigError: The suffix is another one, or the file can't be written; an existing file is unchanged.
        """
        path = Path(path).expanduser()
        check_suffix(path)
        if path.suffix.lower() == ".png":
            buffer = io.BytesIO()
            contact_sheet(self.batches, title=self.title).save(buffer, "PNG")
            write_output(path, buffer.getvalue())
        else:
            write_output(path, self.to_html())
        return path

    def to_html(self) -> str:
        """Return the text of the page."""
        return render_page(self.batches, title=self.title)

    def _repr_html_(self) -> str:
        # In an iframe: isolates its style from the notebook's.
        return tag(
            "iframe",
            srcdoc=Html(html.escape(self.to_html())),
            sandbox="allow-scripts",
            title=f"Preview of {self.title}",
            width="100%",
            height=800,
        )

    def __repr__(self) -> str:
        samples = sum(len(batch.samples) for batch in self.batches)
        return f"Preview({self.title!r}, {len(self.batches)} batches, {samples} samples)"


def preview(
    source: Loader | TextToImageDataset,
    *,
    batch_size: int | None = None,
    seed: int | None = None,
    epoch: int = 0,
    batches: int = 1,
    draws: int = 3,
    autoencoder: Autoencoder | str | Path | None = None,
    encoded: Loader | None = None,
    progress: Show | None = None,
) -> Preview:
    """Preview the batches of a loader, and how each sample was made. A notebook displays the result.

    Args:
        source: A loader, whose position is restored afterwards; or a dataset, for which a loader is made.
        batch_size: Batch size of the loader made for a dataset; the batches depend on it. Default: 4.
        seed: Seed of that loader. Default: the dataset's.
        epoch: The epoch to show.
        batches: Maximum number of batches, from the beginning of the epoch.
        draws: Number of later epochs to show of each image.
        autoencoder: Also shows each image after this autoencoder: a folder or hub name of a diffusers model, or an
            `Autoencoder`.
        encoded: A loader of the same batches as encodings; the page lists their tensors, too.
        progress: Called with (done, total) samples.

    Returns:
        A `Preview`, whose `save` writes an `.html` page or a `.png` contact sheet.

    Raises:
        ConfigError: There is no such autoencoder, or it does not accept these images; or `batch_size` or `seed` is set
            for a loader, which has its own.
    """
    options: dict[str, Any] = {"epoch": epoch, "batches": batches, "draws": draws, "progress": progress}
    if isinstance(source, TextToImageDataset):
        with Loader(source, 4 if batch_size is None else batch_size, seed=seed, in_process=True) as loader:
            return preview(loader, autoencoder=autoencoder, encoded=encoded, **options)
    for name, given in (("batch_size", batch_size), ("seed", seed)):
        if given is not None:
            raise ConfigError(f"preview: {name} has no effect on a Loader, which has its own; leave it out")
    if autoencoder is not None and not isinstance(autoencoder, Autoencoder):
        autoencoder = Autoencoder.from_pretrained(autoencoder)
    views = gather(source, autoencoder=autoencoder, encoded=encoded, **options)
    dataset = previewed(source)
    names = (dataset.manifest.root.name, dataset.spec.name if dataset.spec is not None else "")
    return Preview(views, title=" · ".join(filter(None, names)) or "calotype")

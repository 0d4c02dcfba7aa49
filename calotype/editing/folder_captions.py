"""Edits the captions of a folder of images, in its metadata files or in files beside the images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from calotype.editing.captions import Captions, CaptionState, Change
from calotype.editing.document import Document, Entry
from calotype.editing.json_document import JsonLines
from calotype.editing.known_folder import KnownFolder
from calotype.editing.locations import Location, entries_by_id, set_captions, set_rejected
from calotype.errors import EditError
from calotype.manifest.folders.image_folder import listed_image
from calotype.manifest.manifest import REMOTE
from calotype.manifest.reading import Reading
from calotype.manifest.tables.references import normal_reference

__all__ = ["FolderCaptions"]


class FolderCaptions(Captions):
    """The captions of a folder of images.

    An image's captions stay where they are, in a metadata file or in the files beside it. The first captions of an
    image are written where those of the others are; to `metadata.jsonl` if there are no others, or if the file beside
    it can't hold them. A file beside an image with the same captions as the metadata is kept equal to it. A rejected
    image is marked in the metadata file, which is created if there is none.

    Args:
        folder: The folder.
        reading: The options with which the manifest reads it.
    """

    takes_sidecars = True

    def __init__(self, folder: KnownFolder, reading: Reading) -> None:
        super().__init__(reading)
        self.root, self._known = folder.path, folder
        self._metadata: dict[PurePosixPath, Document] = {}
        self._last: tuple[object, _Locations] | None = None
        for name in folder.listing.metadata:
            self._document(self.root / name)  # raises if the file can't be read or changed

    @property
    def one_row_per_image(self) -> bool:
        return not self._known.listing.metadata

    def files_beside(self, id: str) -> list[str]:
        return [f"{self.root}/{name}" for name in self._known.sidecars.of(id)]

    def read_beside(self, ids: Iterable[str]) -> dict[str, CaptionState]:
        return {id: self._state(self._beside(Location(), id)) for id in ids}

    def _locations(self) -> Mapping[str, Location]:
        self._known.refresh()
        return self._located()

    def _locations_after(self, files: Iterable[Path]) -> Mapping[str, Location]:
        self._known.wrote(files)
        return self._located()

    def _located(self) -> _Locations:
        known, reading = self._known, self._reading
        metadata = known.listing.metadata
        self._metadata = {PurePosixPath(name).parent: self._document(self.root / name) for name in metadata}
        state = known.changes, [(document, document.settled) for document in self._metadata.values()]
        if self._last is not None and self._last[0] == state:
            return self._last[1]

        # Images that metadata files list.
        listed: dict[str, Location] = {}
        ids: dict[str, str] = {}
        captioned: set[str] = set()
        entries = list(entries_by_id([self._document(self.root / name) for name in metadata]))
        names = {entry.image for _, _, entry in entries}
        for id, document, entry in entries:
            name = entry.image
            try:
                found = listed_image(name, known.on_disk, names, reading)
            except FileNotFoundError:
                continue
            if found is None:  # excluded
                continue
            if found != name:
                id, name = id if entry.explicit_id else found, found
            location = listed.setdefault(id, Location())
            location.entries.append((document, entry))
            location.image = name if name in known.images else None
            ids[name] = id
            if entry.captions:
                captioned.add(name)
        for name in ((ids.keys() | listed.keys()) & known.images) - captioned:
            self._beside(listed[ids.get(name, name)], name)
        self._in_files = known.in_files and not captioned
        locations = _Locations(known.listing.images, known.images, listed, ids.keys(), self._beside)
        self._last = state, locations
        return locations

    def _beside(self, location: Location, image: str) -> Location:
        """Make the files beside an image those that its captions are in."""
        known = self._known
        location.image, location.beside = image, True
        parent = image.rpartition("/")[0]
        location.default = (known.kohya[parent][1],) if parent in known.kohya and not known.sidecars.of(image) else ()
        return location

    def _read_beside(self, location: Location, loaded: Sequence[str]) -> list[str]:
        if location.image is None:
            return []
        sidecars = self._known.sidecars
        if any(text.strip() for text in loaded) and sidecars.is_one_text(location.image):
            return list(loaded)
        return sidecars.read(location.image)

    def _change(
        self, location: Location, change: Change, files: dict[Path, bytes], *, sidecars: bool
    ) -> list[Document]:
        changed: list[Document] = []
        if change.rejected is not None:
            if change.rejected and not location.entries:
                self._add(location)
            changed += set_rejected(location.entries, change.rejected)
        if change.captions is None:
            return changed
        captions = tuple(change.captions)
        before = [text for _, entry in location.entries for text in entry.captions]
        if before or location.image is None:
            if tuple(before) != captions:
                changed += set_captions(location.entries, captions)
            if location.image is not None:
                self._update_beside(location.image, before, captions, files, sidecars=sidecars)
            return changed
        there = self._known.sidecars.of(location.image)
        found = self._known.sidecars.write(location.image, captions) if there or (self._in_files and captions) else None
        if found is not None:
            files |= {self.root / name: data for name, data in found.items()}
        elif captions:
            if not location.entries:
                self._add(location)
            changed += set_captions(location.entries, captions)
            if sidecars or there:
                self._copy_beside(location.image, captions, files)
        return changed

    def _update_beside(
        self,
        image: str,
        before: Sequence[str],
        captions: Sequence[str],
        files: dict[Path, bytes],
        *,
        sidecars: bool,
    ) -> None:
        """Update the files beside an image whose captions are in the metadata."""
        if captions and (sidecars or self._known.sidecars.matches(image, before)):
            self._copy_beside(image, captions, files)
        elif not captions and self._known.sidecars.of(
            image
        ):  # the manifest would read it, now that the metadata has none
            files |= {self.root / name: data for name, data in (self._known.sidecars.write(image, ()) or {}).items()}

    def _copy_beside(self, image: str, captions: Sequence[str], files: dict[Path, bytes]) -> None:
        if not self._known.sidecars.matches(image, captions):
            name, data = self._known.sidecars.copy(image, captions)
            files[self.root / name] = data

    def _add(self, location: Location) -> None:
        """Add a record for an image to the nearest metadata file above it, or to a new one."""
        assert location.image is not None
        image = PurePosixPath(location.image)
        parent = next((folder for folder in image.parents if folder in self._metadata), None)
        if parent is None:
            parent = PurePosixPath(".")
            self._metadata[parent] = JsonLines(self.root / "metadata.jsonl", b"", self._reading)
        document = self._metadata[parent]
        name = image.relative_to(parent).as_posix()
        if REMOTE.match(name) or normal_reference(name, document.file.parent, self.root) != location.image:
            raise EditError(f"{self.root / image}: no data file can refer to an image with this name; rename it")
        entry = Entry(
            record=document.add(name),
            id=location.image,
            image=location.image,
            explicit_id=False,
            captions=(),
            rejected=False,
        )
        location.entries.append((document, entry))


class _Locations(Mapping[str, Location]):
    """The locations of all images; those without a row in a metadata file are made when they are asked for.

    Args:
        order: All images of the folder.
        images: The same.
        listed: Id → location, of the rows of metadata files.
        rows: The images of these rows.
        beside: Completes the location of another image.
    """

    def __init__(
        self,
        order: Sequence[str],
        images: Collection[str],
        listed: Mapping[str, Location],
        rows: Collection[str],
        beside: Callable[[Location, str], Location],
    ) -> None:
        self._order, self._images, self._listed, self._rows, self._beside = order, images, listed, rows, beside

    def __getitem__(self, id: str) -> Location:
        if id in self._listed:
            return self._listed[id]
        if id not in self._images or id in self._rows:
            raise KeyError(id)
        return self._beside(Location(), id)

    def __iter__(self) -> Iterator[str]:
        yield from self._listed
        yield from (name for name in self._order if name not in self._rows and name not in self._listed)

    def __len__(self) -> int:
        return sum(1 for _ in self)

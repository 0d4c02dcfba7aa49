"""Edits the captions of a folder of images, in its metadata files or in files beside the images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from calotype.editing.captions import Captions, Change
from calotype.editing.document import Document, Entry
from calotype.editing.json_document import JsonLines
from calotype.editing.locations import Location, entries_by_id, set_captions, set_rejected
from calotype.editing.sidecars import Sidecars
from calotype.errors import EditError
from calotype.manifest.folders.image_folder import listed_image
from calotype.manifest.folders.kohya import kohya_folders
from calotype.manifest.folders.listing import Listing, list_folder
from calotype.manifest.manifest import REMOTE
from calotype.manifest.names_on_disk import NamesOnDisk
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
        listing: The files of the folder.
        reading: The options with which the manifest reads it.
    """

    takes_sidecars = True

    def __init__(self, folder: Path, listing: Listing, reading: Reading) -> None:
        super().__init__(reading)
        self.root = folder
        for name in listing.metadata:
            self._document(folder / name)  # raises if the file can't be read or changed

    def _locations(self) -> dict[str, Location]:
        reading = self._reading
        listing = list_folder(
            self.root, reading.recursive, lambda where, what: None, reading.caption_suffixes, reading.exclude
        )
        metadata = listing.metadata
        self._metadata = {PurePosixPath(name).parent: self._document(self.root / name) for name in metadata}
        self._sidecars = Sidecars(self.root, listing, self._reading)
        images = set(listing.images)
        on_disk = NamesOnDisk(images)

        # Images that metadata files list.
        locations: dict[str, Location] = {}
        ids: dict[str, str] = {}
        captioned: set[str] = set()
        entries = list(entries_by_id([self._document(self.root / name) for name in metadata]))
        listed = {entry.image for _, _, entry in entries}
        for id, document, entry in entries:
            name = entry.image
            try:
                found = listed_image(name, on_disk, listed, reading)
            except FileNotFoundError:
                continue
            if found is None:  # excluded
                continue
            if found != name:
                id, name = id if entry.explicit_id else found, found
            location = locations.setdefault(id, Location())
            location.entries.append((document, entry))
            location.image = name if name in images else None
            ids[name] = id
            if entry.captions:
                captioned.add(name)

        # All others, with the files beside them.
        kohya = kohya_folders(listing, self._reading)
        for name in listing.images:
            if name not in captioned:
                location = locations.setdefault(ids.get(name, name), Location())
                location.image, location.beside = name, True
                parent = name.rpartition("/")[0]
                location.default = (kohya[parent][1],) if parent in kohya and not self._sidecars.of(name) else ()
        in_files = bool(listing.captions) or any(map(self._sidecars.of, listing.images))
        self._in_files = in_files and not captioned
        return locations

    def _read_beside(self, location: Location) -> list[str]:
        return self._sidecars.read(location.image) if location.image is not None else []

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
        there = self._sidecars.of(location.image)
        found = self._sidecars.write(location.image, captions) if there or (self._in_files and captions) else None
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
        if captions and (sidecars or self._sidecars.matches(image, before)):
            self._copy_beside(image, captions, files)
        elif not captions and self._sidecars.of(image):  # the manifest would read it, now that the metadata has none
            files |= {self.root / name: data for name, data in (self._sidecars.write(image, ()) or {}).items()}

    def _copy_beside(self, image: str, captions: Sequence[str], files: dict[Path, bytes]) -> None:
        if not self._sidecars.matches(image, captions):
            name, data = self._sidecars.copy(image, captions)
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

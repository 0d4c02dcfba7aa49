"""Captions of a folder of images: in its metadata files, or in files beside the images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from calotype.editing.captions import Captions, Change
from calotype.editing.document import Document, Entry
from calotype.editing.json_document import JsonLines
from calotype.editing.locations import Location, entries_by_id, set_captions, set_rejected
from calotype.editing.sidecars import Sidecars
from calotype.errors import EditError
from calotype.manifest.file_kinds import METADATA
from calotype.manifest.folders.image_folder import listed_image
from calotype.manifest.folders.kohya import kohya_folders
from calotype.manifest.folders.listing import list_folder
from calotype.manifest.manifest import REMOTE
from calotype.manifest.names_on_disk import NamesOnDisk
from calotype.manifest.reading import Reading
from calotype.manifest.tables.references import normal_reference

__all__ = ["FolderCaptions"]


class FolderCaptions(Captions):
    """The captions of a folder of images.

    An image's captions stay where they are: in a metadata file, or in the files beside it. Those of an image that has
    none go where the others' are; to `metadata.jsonl`, where there are none at all or where the file beside it can't
    hold them. A file beside an image that says the same as the metadata goes on saying so. A rejected image is
    marked in the metadata file, which is made where there is none.

    Args:
        folder: Where the images are.
        reading: How the manifest reads it.
    """

    takes_sidecars = True

    def __init__(self, folder: Path, reading: Reading) -> None:
        super().__init__(reading)
        self.root = folder
        self._places()  # what can't be read or changed is said at once

    def _places(self) -> dict[str, Location]:
        reading = self._reading
        listing = list_folder(
            self.root, reading.recursive, lambda where, what: None, reading.caption_suffixes, reading.exclude
        )
        metadata = [name for name in listing.data if PurePosixPath(name).name.lower() in METADATA]
        self._metadata = {PurePosixPath(name).parent: self._document(self.root / name) for name in metadata}
        self._sidecars = Sidecars(self.root, listing, self._reading)
        pictures = set(listing.images)
        on_disk = NamesOnDisk(pictures)
        places: dict[str, Location] = {}
        ids: dict[str, str] = {}
        captioned: set[str] = set()
        entries = list(entries_by_id([self._document(self.root / name) for name in metadata]))
        listed = {entry.picture for _, _, entry in entries}
        for id, document, entry in entries:
            name = entry.picture
            try:
                found = listed_image(name, on_disk, listed, reading)
            except FileNotFoundError:
                continue
            if found is None:  # excluded
                continue
            if found != name:
                id, name = id if entry.explicit_id else found, found
            place = places.setdefault(id, Location())
            place.entries.append((document, entry))
            place.picture = name if name in pictures else None
            ids[name] = id
            if entry.captions:
                captioned.add(name)
        kohya = kohya_folders(listing, self._reading)
        for name in listing.images:
            if name not in captioned:
                place = places.setdefault(ids.get(name, name), Location())
                place.picture, place.beside = name, True
                home = name.rpartition("/")[0]
                place.usual = (kohya[home][1],) if home in kohya and not self._sidecars.of(name) else ()
        in_files = bool(listing.captions) or any(map(self._sidecars.of, listing.images))
        self._in_files = in_files and not captioned
        return places

    def _beside(self, place: Location) -> list[str]:
        return self._sidecars.read(place.picture) if place.picture is not None else []

    def _change(self, place: Location, change: Change, files: dict[Path, bytes], *, sidecars: bool) -> list[Document]:
        changed: list[Document] = []
        if change.rejected is not None:
            if change.rejected and not place.entries:
                self._add(place)
            changed += set_rejected(place.entries, change.rejected)
        if change.captions is None:
            return changed
        captions = tuple(change.captions)
        before = [text for _, entry in place.entries for text in entry.captions]
        if before or place.picture is None:
            if tuple(before) != captions:
                changed += set_captions(place.entries, captions)
            if place.picture is not None:
                self._keep_beside(place.picture, before, captions, files, sidecars=sidecars)
            return changed
        there = self._sidecars.of(place.picture)
        found = self._sidecars.write(place.picture, captions) if there or (self._in_files and captions) else None
        if found is not None:
            files |= {self.root / name: data for name, data in found.items()}
        elif captions:
            if not place.entries:
                self._add(place)
            changed += set_captions(place.entries, captions)
            if sidecars or there:
                self._copy_beside(place.picture, captions, files)
        return changed

    def _keep_beside(
        self,
        picture: str,
        before: Sequence[str],
        captions: Sequence[str],
        files: dict[Path, bytes],
        *,
        sidecars: bool,
    ) -> None:
        """Sees to the files beside an image whose captions are in the metadata."""
        if captions and (sidecars or self._sidecars.says(picture, before)):
            self._copy_beside(picture, captions, files)
        elif not captions and self._sidecars.of(picture):  # it would be read again, now that the metadata has none
            files |= {self.root / name: data for name, data in (self._sidecars.write(picture, ()) or {}).items()}

    def _copy_beside(self, picture: str, captions: Sequence[str], files: dict[Path, bytes]) -> None:
        if not self._sidecars.says(picture, captions):
            name, data = self._sidecars.copy(picture, captions)
            files[self.root / name] = data

    def _add(self, place: Location) -> None:
        """A record for an image that no metadata file names: in the one nearest above it, else in a new one."""
        assert place.picture is not None
        picture = PurePosixPath(place.picture)
        home = next((folder for folder in picture.parents if folder in self._metadata), None)
        if home is None:
            home = PurePosixPath(".")
            self._metadata[home] = JsonLines(self.root / "metadata.jsonl", b"", self._reading)
        document = self._metadata[home]
        name = picture.relative_to(home).as_posix()
        if REMOTE.match(name) or normal_reference(name, document.file.parent, self.root) != place.picture:
            raise EditError(f"{self.root / picture}: no data file can name this image as it is called; rename it")
        entry = Entry(
            record=document.add(name),
            id=place.picture,
            picture=place.picture,
            explicit_id=False,
            captions=(),
            rejected=False,
        )
        place.entries.append((document, entry))

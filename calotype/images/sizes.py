"""`scan_sizes`: the (height, width) of every image from its header, remembered from one run to the next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt

from calotype.core.file_state import FileState
from calotype.errors import ImageError
from calotype.images.memory import Memory, file_keys
from calotype.images.read import ImageReader
from calotype.progress import Show
from calotype.types import ImageRef

__all__ = ["scan_sizes"]

_CHUNK: Final = 256


def scan_sizes(
    refs: Iterable[ImageRef],
    reader: ImageReader,
    *,
    threads: int = 4,
    progress: Show | None = None,
) -> tuple[npt.NDArray[np.int32], list[tuple[int, ImageError]]]:
    """Reads the sizes of many images; a second run asks the file system only whether the files are still the same.

    Sizes are remembered by path and `FileState`, in `$CALOTYPE_CACHE/sizes` (else
    `~/.cache/calotype/sizes`); those of URLs are not, since only the server knows whether they changed. Reading a
    URL's size fetches the image (and keeps it where the reader's fetcher has downloads).

    Args:
        refs: The images.
        reader: Reads the headers.
        threads: They help where files or servers are slow to answer; parsing itself is held by the GIL.
        progress: Called now and then, in the caller's thread, with (images done, images in all).

    Returns:
        int32 (N, 2) of (H, W) upright, 0 where an image can't be read; and those images' (index, error), in order.

    Raises:
        MissingDependencyError: An image needs an extra that is not installed.
    """
    refs = refs if isinstance(refs, Sequence) else list(refs)
    sizes = np.zeros((len(refs), 2), np.int32)
    errors: list[tuple[int, ImageError]] = []
    with _memory() as memory, ThreadPoolExecutor(threads, thread_name_prefix="calotype-sizes") as pool:
        done = 0
        for start in range(0, len(refs), _CHUNK * threads):
            chunk = [refs[index] for index in range(start, min(start + _CHUNK * threads, len(refs)))]
            keys = file_keys(chunk)
            found = memory.recall(keys)
            missing = [
                index for index, size in enumerate(found) if size is None or size[0] * size[1] > reader.max_pixels
            ]
            learnt = []
            read = pool.map(lambda ref: _size(reader, ref), [chunk[index] for index in missing])
            for index, size in zip(missing, read, strict=True):
                if isinstance(size, ImageError):
                    errors.append((start + index, size))
                    found[index] = None
                    continue
                found[index] = size
                key = keys[index]
                if key is not None:
                    learnt.append((*key, *size))
            memory.learn(learnt)
            sizes[start : start + len(chunk)] = [size or (0, 0) for size in found]
            done += len(chunk)
            if progress is not None:
                progress(done, len(refs))
    return sizes, errors


def _memory() -> Memory:
    state, values = FileState._fields, ("height", "width")
    return Memory("sizes", "sizes_2", key=("path", "part"), state=state, values=values, what="image sizes")


def _size(reader: ImageReader, ref: ImageRef) -> tuple[int, int] | ImageError:
    try:
        return reader.size(ref)
    except ImageError as error:
        return error.without_traceback()

"""Damages files of each format and loads them, each format in a process of its own.

    python fuzzing.py FOLDER COUNT [FORMAT …]

It prints tracebacks of errors that are not calotype's, and processes that end otherwise: nothing when all is well.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import signal
import sys
import tarfile
import traceback
from collections.abc import Callable
from pathlib import Path

import lmdb
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

from calotype.config import load_config
from calotype.errors import CalotypeError
from calotype.images import ImageReader
from calotype.manifest import load_manifest

SEED = 14
HANG = 20
"""Seconds."""
IMAGE = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\0\0\0\0:~\x9bU\0\0\0\nIDATx\x9cc`\0\0\0\2\0\1H\xaf\xa4q"
    b"\0\0\0\0IEND\xaeB`\x82"
)
ROWS = [{"file_name": f"{n}.png", "text": f"déjà [{n}]", "width": n, "tags": {"a": ["b", "c"]}} for n in range(1, 7)]


def tar(folder: Path) -> Path:
    for format, name in ((tarfile.PAX_FORMAT, "déjà/" + "x" * 120), (tarfile.GNU_FORMAT, "y" * 120)):
        with tarfile.open(folder / "a.tar", "a", format=format) as archive:
            for suffix, data in ((".png", IMAGE), (".txt", b"a cat"), (".json", b'{"caption": "x", "n": [1]}')):
                info = tarfile.TarInfo(name + suffix)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return folder / "a.tar"


def environment(folder: Path) -> Path:
    with lmdb.open(f"{folder}/a.lmdb", subdir=False, map_size=1 << 20) as opened, opened.begin(write=True) as writing:
        for n in range(40):
            writing.put(f"{n}.png".encode(), IMAGE + bytes(n * 500))
            writing.put(f"{n}.txt".encode(), b"a cat")
    return folder / "a.lmdb"


def table(*, images: bool) -> pa.Table:
    rows = pa.table({**{name: [row[name] for row in ROWS] for name in ROWS[0]}, "day": ["mon", None] * 3})
    rows = rows.set_column(4, "day", rows["day"].dictionary_encode())
    return rows.set_column(0, "image", pa.array([{"bytes": IMAGE, "path": None}] * 6)) if images else rows


def arrow_file(folder: Path) -> Path:
    pyarrow.feather.write_feather(table(images=True), f"{folder}/a.arrow", compression="uncompressed", chunksize=4)
    return folder / "a.arrow"


def arrow_compressed(folder: Path) -> Path:
    pyarrow.feather.write_feather(table(images=True), f"{folder}/a.feather", compression="lz4")
    return folder / "a.feather"


def arrow_stream(folder: Path) -> Path:
    with pa.OSFile(f"{folder}/a.arrow", "wb") as file, pa.ipc.new_stream(file, table(images=True).schema) as writer:
        writer.write_table(table(images=True), max_chunksize=4)
    return folder / "a.arrow"


def parquet(folder: Path) -> Path:
    pyarrow.parquet.write_table(table(images=False), f"{folder}/a.parquet")
    return folder / "a.parquet"


def parquet_images(folder: Path) -> Path:
    pyarrow.parquet.write_table(table(images=True), f"{folder}/a.parquet", row_group_size=4)
    return folder / "a.parquet"


def saved(folder: Path) -> Path:
    import datasets

    rows = [{"image": {"bytes": IMAGE, "path": None}, "text": row["text"]} for row in ROWS]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    datasets.Dataset.from_list(rows, features=features).save_to_disk(folder / "saved")
    return folder / "saved"


def text(name: str, content: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text(content, encoding="utf-8")
        return folder / name

    return write


def sidecars(folder: Path) -> Path:
    (folder / "photos").mkdir()
    for n in range(3):
        (folder / "photos" / f"{n}.png").write_bytes(IMAGE)
    (folder / "photos" / "0.txt").write_text("a cat — déjà vu\n", encoding="utf-8")
    (folder / "photos" / "1.json").write_text(json.dumps({"caption": "a cat", "tags": ["x", "y"]}))
    (folder / "photos" / "2.caption").write_text("one\ntwo\n", encoding="utf-16")
    return folder / "photos"


YAML = """
dataset: &d {path: photos, columns: {caption: [text, other]}}
image_transform:
  resolution: 512
  buckets: {max_aspect: 2.0}
caption_transform: {trigger: "sks", template: "a {caption}"}
batch_size: ${oc.env:NOWHERE,4}
copy: *d
"""

FORMATS: dict[str, tuple[Callable[[Path], Path], ...]] = {
    "tar": (tar,),
    "lmdb": (environment,),
    "arrow": (arrow_file, arrow_compressed),
    "arrow_stream": (arrow_stream,),
    "parquet": (parquet, parquet_images),
    "saved": (saved,),
    "json": (
        text("a.json", json.dumps(ROWS, indent=1)),
        text("a.json", json.dumps({row["file_name"]: row for row in ROWS})),
    ),
    "jsonl": (text("a.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)),),
    "csv": (
        text("a.csv", 'file_name,text,width\r\n1.png,"a ""big"" cat, déjà",1\r\n2.png,two,2\r\n' * 3),
        text("a.tsv", "file_name\ttext\n1.png\ta cat\n2.png\tdéjà vu\n"),
    ),
    "sidecars": (sidecars,),
    "config": (text("a.yaml", YAML),),
}
"""Format → makers of valid files, which take turns."""


def damaged(data: bytes, random: random.Random) -> bytes:
    """One to three changes, of the kinds that disks, copies and editors make, and of those that parsers trip over."""
    out = bytearray(data)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(out) + 1)
        length = random.choice((1, 1, 2, 4, 8, 16, 64))
        match random.randrange(8):
            case 0:
                del out[at:]
            case 1:
                out[at : at + length] = random.randbytes(length)
            case 2:
                out[at : at + length] = random.choice((b"\xff", b"\0", b"\x7f", b"\x80")) * length
            case 3 if at < len(out):
                out[at] ^= 1 << random.randrange(8)
            case 4:
                out[at:at] = random.choice((b"[" * 5000, b'{"a":' * 5000, b'"', b"\n", b"\0", b"9" * 5000, b"&" * 9))
            case 5:
                del out[at : at + length]
            case 6:
                out[at:at] = out[at : at + length * 8]
            case _:
                there = random.randrange(len(out) + 1)
                out[at : at + length] = out[there : there + length]
    return bytes(out)


def use(path: Path) -> None:
    if path.suffix == ".yaml":
        load_config(path)
        return
    manifest = load_manifest(path, on_error="skip", missing_captions="empty")
    manifest.describe()
    pickle.loads(pickle.dumps(manifest))
    reader = ImageReader(max_pixels=10_000)  # a new one: it keeps archives open
    for row in list(manifest)[:1]:
        with contextlib.suppress(CalotypeError):
            reader.read(row.image)


def fuzz(format: str, count: int, folder: Path) -> None:
    """Load `count` damaged files of a format, and print errors that are not calotype's.

    A file is damaged in place and restored by renames: an earlier manifest may have the old one mapped.
    """
    bases = []
    for number, make in enumerate(FORMATS[format]):
        base = folder / f"base-{number}"
        base.mkdir(parents=True)
        whole = make(base).relative_to(base)
        use(base / whole)  # valid before it is damaged
        files = [file for file in sorted(base.rglob("*")) if file.is_file() and file.suffix != ".png"]
        bases.append((base, whole, [file for file in files if not file.name.endswith("-lock")]))
    draws = random.Random(SEED)
    for number in range(count):
        base, whole, files = bases[number % len(bases)]
        file = draws.choice(files)
        spare = folder / "spare"
        spare.write_bytes(damaged(file.read_bytes(), draws))
        file.rename(folder / "whole")
        spare.rename(file)
        (folder / "number").write_text(str(number))
        signal.alarm(HANG)
        try:
            use(base / whole)
        except CalotypeError:
            pass
        except BaseException:
            print(f"{format}: input {number} ({base / whole}):")
            traceback.print_exc(file=sys.stdout)
        signal.alarm(0)
        (folder / "whole").replace(file)


def main(folder: Path, count: int, formats: list[str]) -> None:
    """Fuzz each format in a forked process, so that the imports are paid once and a crash is seen as one."""
    for format in formats or FORMATS:
        child = os.fork()
        if child == 0:
            fuzz(format, count, folder / format)
            sys.stdout.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            last = folder / format / "number"
            number = last.read_text() if last.exists() else "none"
            print(f"{format}: the process ended with status {os.waitstatus_to_exitcode(status)} at input {number}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])

"""`run`: `calotype encode`. Encodes missing records; opens no store if nothing has changed since a complete run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, Literal

from calotype.config import Config
from calotype.config.inputs import input_files, input_folders
from calotype.core.report_cache import code_state, files_state, folders_state, load_report, report_key, save_report
from calotype.encodings.report import EncodeReport
from calotype.progress import Track, silent

if TYPE_CHECKING:
    from calotype.encodings.job import EncodeJob

__all__ = ["run"]

_CACHE: Final = "encoded"
_USED: Final = ("dataset", "encodings", "model", "tokenizer", "tokenizers")


def run(
    config: Config | Mapping[str, Any],
    *,
    device: str | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    track: Track = silent,
) -> EncodeReport:
    """Run the frozen encoders over the dataset of a config, and store their outputs; encode only missing records.

    Args:
        config: A config, as `load_config` returns it. Its `encodings` section sets the store.
        device: Device of the models. Defaults to the GPU if there is one, else the CPU.
        engine: `local` encodes in this process, `ray` on a cluster.
        address: Address of the cluster. Defaults to `$RAY_ADDRESS`, else to a cluster on this machine, which is started
            if there is none.
        batch_size: Images encoded at once. By default it depends on their size.
        threads: Images decoded at once. Defaults to the number of cores.
        track: Shows the progress.

    Raises:
        ConfigError: The config is invalid; the dataset has a continuous augmentation and no number of variants is set;
            or the model can't be found or downloaded.
        MissingDependencyError: The engine or the models need an extra that is not installed.
        StoreError: The store can't be written, or its disk has too little space.
    """
    start = time.perf_counter()
    config = Config.parse(config, only=_USED)
    # torch's version is part of the key: another one may resample to other pixels.
    key = report_key(config.to_mapping(), code=code_state(), torch=metadata.version("torch"))
    if (known := _recalled(key)) is not None:
        return known.again(time.perf_counter() - start)
    with track("loading PyTorch, the data and the model's configuration"):
        import torch  # slow to import, and not needed if nothing has changed

        from calotype.encodings.build import build_encode_job
        from calotype.encodings.encode import encode_job

        job = build_encode_job(config, device=device or ("cuda" if torch.cuda.is_available() else "cpu"))
        job.models.check_files()
    job.batch_size = batch_size
    job.threads = threads or job.threads
    watched = _Watched(config, job)
    report = encode_job(job, engine=engine, address=address, track=track)
    if not report.failed:
        watched.save(key, report)
    return report


class _Watched:
    """The state, before a job, of the files that its report depends on."""

    def __init__(self, config: Config, job: EncodeJob) -> None:
        self._store = job.store.path.absolute()
        folders = input_folders(config)
        self._folders = [*(folders or ()), str(job.models.folder.absolute())]
        # In the hub's cache, `refs` maps a revision's name to a snapshot.
        if (refs := job.models.folder.absolute().parents[1] / "refs").is_dir():
            self._folders.append(str(refs))
        self._files = None if folders is None else input_files(config, job.dataset.manifest.refs(), self._folders)
        self._folders_were, self._files_were = self._states()

    def save(self, key: str, report: EncodeReport) -> None:
        """Cache the report, unless a file has changed since the start, or its files are not all known."""
        if self._files is None:
            return
        folders = [*self._folders, str(self._store / "shards"), str(self._store / "dropped")]
        folders_are = folders_state(folders)
        if self._states() != (self._folders_were, self._files_were):
            return
        save_report(
            _CACHE,
            key,
            report.again(0.0).to_json(),
            folders=folders,
            folders_were=folders_are,
            files=self._files,
            files_were=self._files_were,
        )

    def _states(self) -> tuple[str, str]:
        return folders_state(self._folders), files_state(self._files or ())


def _recalled(key: str) -> EncodeReport | None:
    known = load_report(_CACHE, key)
    try:
        return None if known is None else EncodeReport.from_json(known)
    except (ValueError, KeyError, TypeError):
        return None  # a damaged report: check the store again

"""Captioning runs of the page: one at a time, in a thread; each is one step of the undo history."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from calotype import captioning
from calotype.captioning.backend import CaptionBackend, backend_names, check_backend, open_backend
from calotype.captioning.presets import list_presets
from calotype.captioning.prompts import check_class_word
from calotype.captioning.report import CaptionReport
from calotype.captioning.sampling import VARIED
from calotype.errors import CalotypeError, ConfigError
from calotype.progress import Show
from calotype.studio.bodies import CaptioningBody, RunOptions
from calotype.studio.edits import Editor
from calotype.studio.rows import Rows, RowState
from calotype.studio.source import Source
from calotype.studio.watch import Watcher
from calotype.terminal import get_logger

__all__ = ["BusyError", "CaptionRuns"]

_log = get_logger(__name__)

_SHOWN: Final = 50
_NEEDS: Final = {"http": ("url",), "transformers": ("model",)}


class BusyError(CalotypeError):
    """A captioning run is in progress."""


@dataclass(kw_only=True, slots=True)
class _Run:
    id: str
    label: str
    state: Literal["starting", "running", "cancelling", "done", "cancelled", "failed"] = "starting"
    total: int = 0
    done: int = 0
    captioned: int = 0
    failed: int = 0
    skipped: int = 0
    seconds_left: float | None = None
    error: str | None = None
    failures: list[dict[str, Any]] = field(default_factory=list)


class CaptionRuns:
    """The runs of one server.

    Args:
        source: The dataset.
        rows: The rows of the dataset.
        editor: Has the undo history.
        watcher: Reads what a run has written.
    """

    def __init__(self, source: Source, rows: Rows, editor: Editor, watcher: Watcher) -> None:
        self._source, self._rows, self._editor, self._watcher = source, rows, editor, watcher
        self._lock = threading.Lock()
        self._count = 0
        self._run: _Run | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._options = RunOptions()
        self._backend: tuple[str, CaptionBackend] | None = None

    def about(self) -> dict[str, Any]:
        """Return the choices, and those of the last run."""
        return {
            "available": self._source.captions is not None,
            "note": self._source.why_not,
            "backends": [{"name": name, "needs": list(_NEEDS.get(name, ()))} for name in backend_names()],
            "presets": [
                {"name": preset.name, "about": preset.about, "class_word": preset.uses("class_word")}
                for preset in list_presets()
            ],
            "defaults": self._options.model_dump(),
            "run": self.summary(),
        }

    def summary(self) -> dict[str, Any] | None:
        """Return the current or last run; None before the first."""
        return None if self._run is None else asdict(self._run)

    def options_of(self, body: CaptioningBody) -> RunOptions:
        """Return the options of a request. Missing ones are those of the last run, if the backend is the same."""
        last = self._options if body.given().get("backend") in (None, self._options.backend) else RunOptions()
        given = {name: value for name, value in body.given().items() if name in RunOptions.names()}
        return last.updated(**{"mode": "fill", "force": False} | given)

    def start(self, numbers: Sequence[int], options: RunOptions, *, again: bool) -> dict[str, Any]:
        """Start a run.

        Args:
            numbers: The rows to caption.
            options: Backend, preset and mode.
            again: Generate captions that differ from the earlier ones.

        Raises:
            BusyError: A run is in progress.
            ConfigError: There is no such backend or preset, or an option has no effect.
        """
        presets = {preset.name: preset for preset in list_presets()}
        if options.preset not in presets:  # a page must not name a path
            raise ConfigError(f"preset: found {options.preset!r}, expected one of {', '.join(presets)}")
        check_class_word([presets[options.preset]], options.class_word)
        if again and options.temperature == 0:
            raise ConfigError("temperature: at 0 the same image gets the same caption again; expected above 0")
        check_backend(options.backend, **self._backend_options(options, again=again))
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                raise BusyError("a captioning run is in progress: wait for it, or cancel it")
            self._count += 1
            images = self._rows.ids[numbers[0]] if len(numbers) == 1 else f"{len(numbers):,} images"
            self._run = _Run(id=str(self._count), label=f"caption {images}", total=len(numbers))
            self._options = options
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._work,
                args=(self._run, self._stop, tuple(numbers), options, again),
                name="calotype-studio-caption",
                daemon=True,
            )
            self._thread.start()
            return asdict(self._run)

    def cancel(self) -> dict[str, Any] | None:
        """Cancel the current run; its results so far are written."""
        if self._run is not None and self._run.state in ("starting", "running"):
            self._run.state = "cancelling"
            self._stop.set()
        return self.summary()

    def close(self) -> None:
        """Cancel the current run, wait for it, and close the backend."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._backend is not None:
            self._backend[1].close()

    def _work(
        self, run: _Run, stop: threading.Event, numbers: tuple[int, ...], options: RunOptions, again: bool
    ) -> None:
        before = {n: RowState.of(self._rows.state(n)) for n in numbers}
        report, problem = None, None
        try:
            with self._watcher.expecting(numbers):
                report = self._caption(run, stop, numbers, options, again)
                self._watcher.look(at_once=True)
        except CalotypeError as error:
            problem = str(error)
        except Exception as error:  # report it to the page
            _log.warning("studio: captioning failed", exc_info=error)
            problem = f"{type(error).__name__}: {error}"
        after = {n: RowState.of(self._rows.state(n)) for n in numbers}
        self._editor.history.record(run.label, before, after)
        run.seconds_left, run.error = None, problem
        if report is not None:
            self._summarize(run, report)
        run.state = "failed" if problem is not None else "cancelled" if stop.is_set() else "done"

    def _caption(
        self, run: _Run, stop: threading.Event, numbers: tuple[int, ...], options: RunOptions, again: bool
    ) -> CaptionReport:
        backend = self._opened(options.backend, self._backend_options(options, again=again))
        if run.state == "starting":
            run.state = "running"
        return captioning.run(
            self._source.config,
            backend=backend,
            presets=(options.preset,),
            n=options.n,
            mode=options.mode,
            class_word=options.class_word,
            seed=secrets.randbelow(1 << 31) if again else 0,
            force=options.force,
            retry_failed=True,
            only={self._rows.ids[number] for number in numbers},
            track=self._tracking(run),
            stop=stop,
        )

    def _backend_options(self, options: RunOptions, *, again: bool) -> dict[str, Any]:
        temperature = options.temperature
        if temperature is None and (again or (options.n or 1) > 1):
            temperature = VARIED
        return {"model": options.model, "url": options.url, "temperature": temperature}

    def _opened(self, name: str, options: Mapping[str, Any]) -> CaptionBackend:
        """Return the backend. It stays open between runs: loading a model takes longer than captioning an image."""
        key = json.dumps([name, options])
        if self._backend is None or self._backend[0] != key:
            if self._backend is not None:
                kept, self._backend = self._backend, None
                kept[1].close()
            self._backend = key, open_backend(name, **options)
        return self._backend[1]

    def _tracking(self, run: _Run) -> Any:
        """Return a `Track` that updates the run."""

        @contextmanager
        def track(what: str, *, unit: str = "images") -> Iterator[Show]:
            start = time.monotonic()

            def show(done: int, total: int) -> None:
                run.done, run.total = done, total
                spent = time.monotonic() - start
                run.seconds_left = spent / done * (total - done) if done else None

            yield show

        return track

    def _summarize(self, run: _Run, report: CaptionReport) -> None:
        run.captioned, run.failed = report.written, report.failed
        run.skipped = report.kept
        numbered = ((self._rows.number_of(failure.id), failure) for failure in report.failures[:_SHOWN])
        run.failures = [{"n": n, "id": one.id, "reason": one.reason} for n, one in numbered if n is not None]

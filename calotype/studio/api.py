"""What the page can ask, and in which form it is answered: one route for each thing, JSON in and out."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.errors import CalotypeError, CaptionError, ConfigError, EditError, ImageError
from calotype.studio.augment import SECTIONS, ConfigChangedError
from calotype.studio.bodies import BadRequestError, field, is_whole, parse_body, texts_of
from calotype.studio.edits import Edit, Outcome
from calotype.studio.guard import MOST_BYTES, error
from calotype.studio.query import QueryError
from calotype.studio.replace import ReplaceError
from calotype.studio.runs import BusyError, RunOptions
from calotype.studio.studio import SORTS, Studio
from calotype.terminal import finite_or_null

__all__ = ["ERROR_HANDLERS", "api_routes"]

_MOST_DETAILS: Final = 500
_MOST_EDITS: Final = 1000
_MOST_TEXTS: Final = 64
_MOST_EPOCHS: Final = 16
Json = dict[str, Any]


class _NotFoundError(Exception):
    """What the page asks for is not there."""


class Answer(dict[str, Any]):
    """JSON with a status other than 200."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(body)
        self.status = status


def api_routes(studio: Studio) -> list[Route]:
    """All routes below `/api`."""
    api = _Api(studio)
    reads: dict[str, Callable[[Json], Json]] = {
        "dataset": api.dataset,
        "rows": api.rows,
        "rows/details": api.details,
        "history": api.history,
        "augment": api.augment,
        "captioning": api.captioning,
        "changes": api.changes,
    }
    does: dict[str, Callable[[Json], Json]] = {
        "edit": api.edit,
        "undo": api.undo,
        "redo": api.redo,
        "bulk/preview": api.bulk_preview,
        "bulk/apply": api.bulk_apply,
        "tokens": api.tokens,
        "duplicates": api.duplicates,
        "captioning/start": api.captioning_start,
        "captioning/cancel": api.captioning_cancel,
        "augment/draw": api.augment_draw,
        "augment/save": api.augment_save,
    }
    return [
        *(Route(f"/api/{name}", _get(handler), methods=["GET"]) for name, handler in reads.items()),
        *(Route(f"/api/{name}", _post(handler), methods=["POST"]) for name, handler in does.items()),
    ]


def _get(handler: Callable[[Json], Json]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return _answer(await run_in_threadpool(handler, dict(request.query_params)))

    return endpoint


def _post(handler: Callable[[Json], Json]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                return error(413, "too_large", f"the body is larger than {MOST_BYTES:,} bytes: send it in parts")
        return _answer(await run_in_threadpool(handler, parse_body(bytes(body))))

    return endpoint


def _answer(body: Json) -> Response:
    # ASCII: JavaScript reads it the same, and half characters out of file names travel too.
    data = json.dumps(finite_or_null(body), ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")
    status = body.status if isinstance(body, Answer) else 200
    return Response(data, status_code=status, media_type="application/json")


class _Api:
    """A method for each route: plain values in, plain values out."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    # What is there

    def dataset(self, query: Json) -> Json:
        return self._studio.summary()

    def rows(self, query: Json) -> Json:
        sort = query.get("sort") or "order"
        if sort not in SORTS:
            raise BadRequestError(f"sort: found {sort!r}, expected one of {', '.join(SORTS)}")
        text = query.get("filter", "")
        seq = self._studio.rows.seq
        numbers, pending = self._studio.find(text, sort=sort)
        return {
            "filter": text,
            "total": len(self._studio.rows),
            "count": len(numbers),
            "numbers": numbers,
            "seq": seq,
            "pending": pending,
        }

    def details(self, query: Json) -> Json:
        seq = self._studio.rows.seq
        return {"rows": self._studio.details(self._numbers_of(query.get("numbers", ""))), "seq": seq}

    def changes(self, query: Json) -> Json:
        since = query.get("since", "0")
        if not since.isdecimal() or len(since) > 15:
            raise BadRequestError(f"since: found {since!r}, expected a number that an answer had as `seq`")
        return self._studio.changes(int(since))

    # What a person changes

    def edit(self, data: Json) -> Json:
        asked = field(data, "edits", list)
        if not 1 <= len(asked) <= _MOST_EDITS:
            raise BadRequestError(f"edits: found {len(asked)}, expected 1 to {_MOST_EDITS}")
        edits = [self._edit(one) for one in asked]
        if len({edit.number for edit in edits}) < len(edits):
            raise BadRequestError("edits: a row comes twice")
        label = field(data, "label", str, default=_label(edits, self._studio.rows.ids))
        return self._done(
            self._studio.editor.edit(edits, label=label[:200], group=field(data, "group", str, default=None)),
            [edit.number for edit in edits],
        )

    def _edit(self, one: Any) -> Edit:
        if not isinstance(one, dict):
            raise BadRequestError(f"edits: found {one!r}, expected objects")
        captions = field(one, "captions", list, default=None)
        rejected = field(one, "rejected", bool, default=None)
        if captions is None and rejected is None:
            raise BadRequestError("edits: expected captions or rejected, or both")
        number, id = self._number(one.get("n")), field(one, "id", str, default=None)
        if id is not None and id != self._studio.rows.ids[number]:
            raise _NotFoundError("calotype studio was started anew and numbers its images otherwise: reload the page")
        return Edit(
            number=number,
            version=field(one, "version", str),
            captions=None if captions is None else tuple(texts_of(captions, "captions", most=1000)),
            rejected=rejected,
        )

    def undo(self, data: Json) -> Json:
        return self._gone(self._studio.editor.undo())

    def redo(self, data: Json) -> Json:
        return self._gone(self._studio.editor.redo())

    def history(self, query: Json) -> Json:
        return {"steps": self._studio.editor.history.steps()}

    def bulk_preview(self, data: Json) -> Json:
        plan = self._studio.editor.plan(
            self._chosen(data),
            texts_of([field(data, "find", str)], "find", most=1)[0],
            texts_of([field(data, "replace", str)], "replace", most=1)[0],
            regex=field(data, "regex", bool, default=False),
            ignore_case=field(data, "ignore_case", bool, default=False),
        )
        return plan.summary(self._studio.rows)

    def bulk_apply(self, data: Json) -> Json:
        try:
            outcome = self._studio.editor.apply(field(data, "plan", str))
        except KeyError:
            raise _NotFoundError("this preview is too old: look again before you apply it") from None
        return self._gone(outcome)

    # What is worked out

    def tokens(self, data: Json) -> Json:
        texts = texts_of(field(data, "texts", list), "texts", most=_MOST_TEXTS)
        counter = self._studio.counter
        return {
            "counts": [list(counts) for counts in counter.counts(texts)],
            "cuts": [list(counter.cuts(text)) for text in texts],
        }

    def duplicates(self, data: Json) -> Json:
        self._studio.scans.want_duplicates()
        return Answer(202, {"scans": self._studio.scans.summary()})

    # Captioning

    def captioning(self, query: Json) -> Json:
        return self._studio.runs.about()

    def captioning_start(self, data: Json) -> Json:
        if self._studio.source.captions is None:
            raise EditError(str(self._studio.source.why_not))
        types = {"force": bool, "n": int, "temperature": (int, float)}
        defaults = self._studio.runs.about()["defaults"]
        given = {name: field(data, name, types.get(name, str), default=usual) for name, usual in defaults.items()}
        given["mode"], given["force"] = data.get("mode") or "fill", bool(data.get("force"))
        if given["mode"] not in ("fill", "add", "replace"):
            raise BadRequestError(f"mode: found {given['mode']!r}, expected fill, add or replace")
        if given["n"] is not None and not 1 <= given["n"] <= 20:
            raise BadRequestError(f"n: found {given['n']!r}, expected 1 to 20 captions an image")
        numbers = self._chosen(data)
        if not numbers:
            raise BadRequestError("there is no image to caption")
        again = data.get("numbers") is not None and given["mode"] == "replace" and given["force"]
        return Answer(202, {"run": self._studio.runs.start(numbers, RunOptions(**given), again=again)})

    def captioning_cancel(self, data: Json) -> Json:
        return {"run": self._studio.runs.cancel()}

    # Augmentations

    def augment(self, query: Json) -> Json:
        return self._studio.augmentations.options()

    def augment_draw(self, data: Json) -> Json:
        epochs = field(data, "epochs", list)
        if not 1 <= len(epochs) <= _MOST_EPOCHS or not all(is_whole(one) and 0 <= one < 1 << 31 for one in epochs):
            raise BadRequestError(f"epochs: found {epochs!r}, expected 1 to {_MOST_EPOCHS} whole numbers from 0")
        seed = field(data, "seed", int, default=None)
        if seed is not None and not 0 <= seed < 1 << 63:
            raise BadRequestError(f"seed: found {seed!r}, expected a whole number from 0")
        number = self._number(data.get("n"))
        captions = self._studio.rows.state(number).captions
        try:
            return self._studio.augmentations.draw(
                number, captions, options=_augmentations(data), epochs=epochs, seed=seed
            )
        except IndexError as problem:
            raise _NotFoundError(str(problem)) from None

    def augment_save(self, data: Json) -> Json:
        return self._studio.augmentations.save(
            _augmentations(data),
            version=field(data, "version", str, default=None),
            dry_run=field(data, "dry_run", bool, default=False),
        )

    # Parts of these

    def _done(self, outcome: Outcome, numbers: Sequence[int]) -> Json:
        """The answer to whatever has changed rows."""
        self._studio.scans.wake()
        body: Json = {
            "rows": self._studio.details(numbers[:_MOST_DETAILS]),
            "conflicts": outcome.conflicts,
            "undo": self._studio.editor.history.summary(),
            "seq": self._studio.rows.seq,
        }
        if not outcome.conflicts:
            return body
        rows = "1 row" if len(outcome.conflicts) == 1 else f"{len(outcome.conflicts)} rows"
        message = f"{rows} changed on the disk meanwhile and left as found"
        return Answer(409, body | {"error": {"kind": "conflict", "message": message}})

    def _gone(self, outcome: Outcome) -> Json:
        """The same for a step of the history."""
        numbers = [*outcome.changed, *(one["n"] for one in outcome.conflicts)]
        body = self._done(outcome, numbers)
        body |= {
            "label": outcome.label,
            "changed": len(outcome.changed),
            "backup": str(outcome.backup) if outcome.backup is not None else None,
        }
        return body

    def _chosen(self, data: Json) -> list[int]:
        """The rows that a filter or a list names; all without either."""
        if data.get("numbers") is not None:
            return list(dict.fromkeys(self._number(one) for one in field(data, "numbers", list)))
        return self._studio.find(field(data, "filter", str, default=""))[0]

    def _number(self, value: Any) -> int:
        if not is_whole(value):
            raise BadRequestError(f"n: found {value!r}, expected the number of a row")
        if not 0 <= value < len(self._studio.rows):
            raise _NotFoundError(f"there is no row {value}")
        return int(value)

    def _numbers_of(self, text: str) -> list[int]:
        """`0-59,120` as numbers."""
        found: list[int] = []
        for part in text.split(","):
            first, dash, last = part.partition("-")
            last = last if dash else first
            if not (first.isdecimal() and last.isdecimal() and len(first) < 12 and len(last) < 12):
                raise BadRequestError(f"numbers: found {part[:40]!r}, expected numbers and ranges such as 0-59,120")
            if len(found) + int(last) - int(first) + 1 > _MOST_DETAILS:
                raise BadRequestError(f"numbers: at most {_MOST_DETAILS} rows are given at a time")
            found += [self._number(number) for number in range(int(first), int(last) + 1)]
        return found


def _augmentations(data: Json) -> dict[str, Json]:
    return {name: field(data, name, dict) for name in SECTIONS if data.get(name) is not None}


def _label(edits: Sequence[Edit], ids: Sequence[str]) -> str:
    captions = any(edit.captions is not None for edit in edits)
    verb = "edit" if captions else "reject" if any(edit.rejected for edit in edits) else "take back"
    return f"{verb} {ids[edits[0].number]}" if len(edits) == 1 else f"{verb} {len(edits)} images"


async def _on_error(request: Request, problem: Exception) -> Response:
    """The answer to an error, ours or not."""
    match problem:
        case QueryError():
            more = {"position": problem.position, "length": problem.length, "expected": problem.expected}
            return error(422, "filter", str(problem), **more)
        case ReplaceError():
            return error(422, "regex", str(problem), position=problem.position)
        case ConfigChangedError():
            return error(409, "conflict", str(problem))
        case BusyError():
            return error(409, "busy", str(problem))
        case ConfigError():
            return error(422, "config", str(problem))
        case EditError():
            return error(409, "read_only", str(problem))
        case CaptionError():
            return error(502, "caption", str(problem))
        case ImageError() | _NotFoundError():
            return error(404, "not_found", str(problem))
        case CalotypeError() | BadRequestError():
            return error(422, "bad_request", str(problem))
    return error(500, "internal", f"something went wrong here ({type(problem).__name__}); see the terminal")


async def _on_http_error(request: Request, problem: Exception) -> Response:
    """The answer to an address or a method that is not there."""
    status = problem.status_code if isinstance(problem, HTTPException) else 500
    kind, message = {404: ("not_found", "there is nothing at this address"), 405: ("method", "not in this way")}.get(
        status, ("internal", "something went wrong here")
    )
    return error(status, kind, message)


ERROR_HANDLERS: Final[Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]]] = {
    CalotypeError: _on_error,
    BadRequestError: _on_error,
    _NotFoundError: _on_error,
    HTTPException: _on_http_error,
    Exception: _on_error,
}
"""For Starlette; what is no error of ours is also told in the terminal."""

"""The JSON API of the page: one route for each action, requests checked by `bodies`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from calotype.errors import CalotypeError, CaptionError, ConfigError, EditError, ImageError
from calotype.studio.augment import ConfigChangedError
from calotype.studio.bodies import (
    BadRequestError,
    Body,
    CaptioningBody,
    ChangesQuery,
    CountQuery,
    DetailsQuery,
    DrawBody,
    EditBody,
    PlanBody,
    RejectBody,
    ReplaceBody,
    RowEdit,
    RowsQuery,
    SaveBody,
    Selection,
    StatisticsQuery,
    TagBody,
    TextsBody,
)
from calotype.studio.edits import Edit, Outcome
from calotype.studio.guard import MAX_BODY_BYTES, error
from calotype.studio.query import QueryError
from calotype.studio.replace import ReplaceError
from calotype.studio.runs import BusyError
from calotype.studio.studio import SORTS, Studio
from calotype.terminal import finite_or_null

__all__ = ["ERROR_HANDLERS", "api_routes"]

_MAX_DETAILS: Final = 500
"""Maximum rows per response."""
Json = dict[str, Any]
B = TypeVar("B", bound=Body)


class _NotFoundError(Exception):
    """A row, plan or file does not exist."""


class Answer(dict[str, Any]):
    """JSON with a status other than 200."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(body)
        self.status = status


def api_routes(studio: Studio) -> list[Route]:
    """Return all routes below `/api`."""
    api = _Api(studio)
    return [
        _get("dataset", Body, api.dataset),
        _get("rows", RowsQuery, api.rows),
        _get("rows/count", CountQuery, api.count),
        _get("rows/details", DetailsQuery, api.details),
        _get("statistics", StatisticsQuery, api.statistics),
        _get("history", Body, api.history),
        _get("augment", Body, api.augment),
        _get("captioning", Body, api.captioning),
        _get("changes", ChangesQuery, api.changes),
        _post("edit", EditBody, api.edit),
        _post("undo", Body, api.undo),
        _post("redo", Body, api.redo),
        _post("bulk/preview", ReplaceBody, api.bulk_preview),
        _post("bulk/apply", PlanBody, api.bulk_apply),
        _post("bulk/tags", TagBody, api.bulk_tags),
        _post("bulk/reject", RejectBody, api.bulk_reject),
        _post("bulk/cancel", Body, api.bulk_cancel),
        _post("tokens", TextsBody, api.tokens),
        _post("duplicates", Body, api.duplicates),
        _post("captioning/start", CaptioningBody, api.captioning_start),
        _post("captioning/cancel", Body, api.captioning_cancel),
        _post("augment/draw", DrawBody, api.augment_draw),
        _post("augment/save", SaveBody, api.augment_save),
    ]


def _get(name: str, model: type[B], handler: Callable[[B], Json]) -> Route:
    async def endpoint(request: Request) -> Response:
        return _answer(await run_in_threadpool(handler, model.parse(dict(request.query_params))))

    return Route(f"/api/{name}", endpoint, methods=["GET"])


def _post(name: str, model: type[B], handler: Callable[[B], Json]) -> Route:
    async def endpoint(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                return error(413, "too_large", f"the body is larger than {MAX_BODY_BYTES:,} bytes: send it in parts")
        return _answer(await run_in_threadpool(lambda: handler(model.read(bytes(body)))))

    return Route(f"/api/{name}", endpoint, methods=["POST"])


def _answer(body: Json) -> Response:
    # Escaped as ASCII, so that lone surrogates in file names are preserved.
    data = json.dumps(finite_or_null(body), ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")
    status = body.status if isinstance(body, Answer) else 200
    return Response(data, status_code=status, media_type="application/json")


class _Api:
    """A method for each route: a checked request in, plain values out."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    # Rows

    def dataset(self, query: Body) -> Json:
        return self._studio.summary()

    def rows(self, query: RowsQuery) -> Json:
        if query.sort not in SORTS:
            raise BadRequestError(f"request.sort: found {query.sort!r}, expected one of {', '.join(SORTS)}")
        seq = self._studio.rows.seq
        numbers, pending = self._studio.find(query.filter, sort=query.sort)
        return {
            "filter": query.filter,
            "total": len(self._studio.rows),
            "count": len(numbers),
            "numbers": numbers,
            "seq": seq,
            "pending": pending,
        }

    def count(self, query: CountQuery) -> Json:
        """Return how many rows match, without their numbers."""
        numbers, pending = self._studio.find(query.filter)
        return {"filter": query.filter, "count": len(numbers), "pending": pending}

    def details(self, query: DetailsQuery) -> Json:
        seq = self._studio.rows.seq
        return {"rows": self._studio.details([self._number(one) for one in _ranges(query.numbers)]), "seq": seq}

    def changes(self, query: ChangesQuery) -> Json:
        return self._studio.changes(int(query.since), shown=_ranges(query.shown) if query.shown else ())

    # Edits

    def edit(self, body: EditBody) -> Json:
        edits = [self._edit(edit) for edit in body.edits]
        label = body.label or _label(edits, self._studio.rows.ids)
        return self._written(
            self._studio.editor.edit(edits, label=label[:200], group=body.group), [edit.number for edit in edits]
        )

    def _edit(self, edit: RowEdit) -> Edit:
        number = self._number(edit.n)
        if edit.id is not None and edit.id != self._studio.rows.ids[number]:
            raise _NotFoundError("calotype studio was restarted and numbers its images differently: reload the page")
        captions = None if edit.captions is None else tuple(edit.captions)
        return Edit(number=number, version=edit.version, captions=captions, rejected=edit.rejected)

    def undo(self, body: Body) -> Json:
        return self._step(self._studio.editor.undo())

    def redo(self, body: Body) -> Json:
        return self._step(self._studio.editor.redo())

    def history(self, query: Body) -> Json:
        return {"steps": self._studio.editor.history.steps()}

    def bulk_preview(self, body: ReplaceBody) -> Json:
        plan = self._studio.editor.plan(
            self._selected(body), body.find, body.replace, regex=body.regex, ignore_case=body.ignore_case
        )
        return plan.summary(self._studio.rows)

    def bulk_apply(self, body: PlanBody) -> Json:
        try:
            outcome = self._studio.editor.apply(body.plan)
        except KeyError:
            raise _NotFoundError("this preview has expired: preview again before you apply it") from None
        return self._step(outcome)

    def bulk_tags(self, body: TagBody) -> Json:
        return self._step(self._studio.editor.change_tags(self._selected(body), body.change))

    def bulk_reject(self, body: RejectBody) -> Json:
        return self._step(self._studio.editor.reject(self._selected(body), body.rejected))

    def bulk_cancel(self, body: Body) -> Json:
        if (writing := self._studio.editor.writing) is not None:
            writing.cancel()
        return {"writing": None if writing is None else writing.summary()}

    def statistics(self, query: StatisticsQuery) -> Json:
        return self._studio.statistics(query.filter)

    # Tokens and duplicates

    def tokens(self, body: TextsBody) -> Json:
        counter = self._studio.counter
        return {
            "counts": [list(counts) for counts in counter.counts(body.texts)],
            "cuts": [list(counter.cuts(text)) for text in body.texts],
        }

    def duplicates(self, body: Body) -> Json:
        self._studio.scans.want_duplicates()
        return Answer(202, {"scans": self._studio.scans.summary()})

    # Captioning

    def captioning(self, query: Body) -> Json:
        return self._studio.runs.about()

    def captioning_start(self, body: CaptioningBody) -> Json:
        if self._studio.source.captions is None:
            raise EditError(str(self._studio.source.why_not))
        selected = self._selected(body)
        if not selected:
            matched = f" match the filter {body.filter!r}" if body.filter else ""
            raise BadRequestError(f"there are no images to caption: 0 of {len(self._studio.rows):,}{matched}")
        self._studio.rows.ensure(selected)
        numbers = [number for number in selected if not self._studio.rows.state(number).rejected]
        if not numbers:
            raise BadRequestError(f"there are no images to caption: all {len(selected):,} selected ones are rejected")
        options = self._studio.runs.options_of(body)
        again = body.numbers is not None and options.mode == "replace" and options.force
        return Answer(202, {"run": self._studio.runs.start(numbers, options, again=again)})

    def captioning_cancel(self, body: Body) -> Json:
        return {"run": self._studio.runs.cancel()}

    # Augmentations

    def augment(self, query: Body) -> Json:
        return self._studio.augmentations.options()

    def augment_draw(self, body: DrawBody) -> Json:
        number = self._number(body.n)
        id, captions = self._studio.rows.ids[number], self._studio.rows.state(number).captions
        try:
            return self._studio.augmentations.draw(
                id, captions, options=body.transforms, epochs=body.epochs, seed=body.seed
            )
        except IndexError as problem:
            raise _NotFoundError(str(problem)) from None

    def augment_save(self, body: SaveBody) -> Json:
        return self._studio.augmentations.save(body.transforms, version=body.version, dry_run=body.dry_run)

    # Helpers

    def _written(self, outcome: Outcome, numbers: Sequence[int]) -> Json:
        """Return the response to a request that has changed rows."""
        self._studio.scans.wake()
        body: Json = {
            "rows": self._studio.details(numbers[:_MAX_DETAILS]),
            "conflicts": outcome.conflicts,
            "undo": self._studio.editor.history.summary(),
            "seq": self._studio.rows.seq,
        }
        if not outcome.conflicts:
            return body
        rows = "1 row" if len(outcome.conflicts) == 1 else f"{len(outcome.conflicts)} rows"
        message = f"{rows} changed on disk meanwhile and were not overwritten"
        return Answer(409, body | {"error": {"kind": "conflict", "message": message}})

    def _step(self, outcome: Outcome) -> Json:
        """Return the response to a step of the history."""
        numbers = [*outcome.changed, *(one["n"] for one in outcome.conflicts)]
        body = self._written(outcome, numbers)
        body |= {
            "label": outcome.label,
            "changed": len(outcome.changed),
            "stopped": outcome.stopped,
            "backup": str(outcome.backup) if outcome.backup is not None else None,
        }
        return body

    def _selected(self, selection: Selection) -> list[int]:
        """Return the numbers of the selected rows."""
        if selection.numbers is not None:
            return list(dict.fromkeys(self._number(number) for number in selection.numbers))
        return self._studio.find(selection.filter or "")[0]

    def _number(self, number: int) -> int:
        if not 0 <= number < len(self._studio.rows):
            raise _NotFoundError(f"there is no row {number}; the dataset has {len(self._studio.rows):,}")
        return number


def _ranges(text: str) -> list[int]:
    """Parse `0-59,120`."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and len(first) < 12 and len(last) < 12):
            raise BadRequestError(f"request.numbers: found {part[:40]!r}, expected numbers and ranges such as 0-59,120")
        if len(found) + int(last) - int(first) + 1 > _MAX_DETAILS:
            raise BadRequestError(f"request.numbers: expected at most {_MAX_DETAILS} rows at a time")
        found += range(int(first), int(last) + 1)
    return found


def _label(edits: Sequence[Edit], ids: Sequence[str]) -> str:
    captions = any(edit.captions is not None for edit in edits)
    verb = "edit" if captions else "reject" if any(edit.rejected for edit in edits) else "unreject"
    return f"{verb} {ids[edits[0].number]}" if len(edits) == 1 else f"{verb} {len(edits)} images"


async def _on_error(request: Request, problem: Exception) -> Response:
    """Return the response to an exception."""
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
    return error(500, "internal", f"internal error ({type(problem).__name__}); see the terminal")


async def _on_http_error(request: Request, problem: Exception) -> Response:
    """Return the response to an unknown path or method."""
    status = problem.status_code if isinstance(problem, HTTPException) else 500
    kind, message = {
        404: ("not_found", "there is nothing at this path"),
        405: ("method", "this method is not allowed here"),
    }.get(status, ("internal", "internal error"))
    return error(status, kind, message)


ERROR_HANDLERS: Final[Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]]] = {
    CalotypeError: _on_error,
    BadRequestError: _on_error,
    _NotFoundError: _on_error,
    HTTPException: _on_http_error,
    Exception: _on_error,
}
"""Exception class → handler, for Starlette, which also logs unexpected exceptions."""

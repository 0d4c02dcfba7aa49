"""Finds captions that the pipeline's tokenizers truncate. Results are cached on disk: each text is tokenised once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from calotype.encodings.dataset_records import DatasetRecords
from calotype.encodings.frozen import FrozenModels
from calotype.errors import CalotypeError
from calotype.images.cache_table import CacheTable
from calotype.ledger import LedgerEntry
from calotype.models.transform import Truncation

__all__ = ["cut_note", "cuts_of", "find_cuts"]

_AT_ONCE = 1024
"""Rows whose texts are tokenised together."""


def find_cuts(records: DatasetRecords, models: FrozenModels) -> Iterator[LedgerEntry]:
    """Yield a ledger entry for each row with a text that a tokenizer truncates, about the longest of its texts.

    Considers every final caption that a row can have, with variants, triggers and templates.

    Args:
        records: The records of the dataset.
        models: The frozen models. Only their tokenizers are loaded, and only for texts that are not cached. If that
            fails, a single entry has the reason.
    """
    rows = [int(row) for row in records.usable if records.buckets[row] >= 0]
    fit: set[int] = set()  # hashes of texts that fit: a million take 60 MB
    cut: dict[str, tuple[Truncation, ...]] = {}
    for start in range(0, len(rows), _AT_ONCE):
        # Tokenise the new texts of these rows.
        texts = {row: list(records.texts(row)) for row in rows[start : start + _AT_ONCE]}
        new = list(dict.fromkeys(t for some in texts.values() for t in some if t not in cut and hash(t) not in fit))
        try:
            found = cuts_of(models, [records.text_key(text) for text in new], new)
        except (CalotypeError, ImportError, OSError, ValueError) as error:
            reason = f"whether captions are cut was not measured: the tokenizers can't be loaded: {error}"
            yield LedgerEntry(kind="captions_not_measured", id=str(models.folder), reason=reason)
            return
        for text, cuts in zip(new, found, strict=True):
            if cuts:
                cut[text] = cuts
            else:
                fit.add(hash(text))
        # Report each row once, with the most tokens of each tokenizer.
        for row, some in texts.items():
            longest: dict[str, Truncation] = {}
            for one in (one for text in some for one in cut.get(text, ())):
                if one.tokenizer not in longest or one.tokens > longest[one.tokenizer].tokens:
                    longest[one.tokenizer] = one
            if longest:
                yield cut_note(records.dataset.manifest[row].id, longest.values())


def cuts_of(models: FrozenModels, keys: Sequence[bytes], texts: Sequence[str]) -> list[tuple[Truncation, ...]]:
    """Return the truncations of each text. Cached on disk, so that training on encodings need not load the tokenizers.

    Args:
        models: The frozen models.
        keys: Key of each text's record: a hash of the text, the tokenizers and the limit.
        texts: Final captions.
    """
    names = [(key.hex(), "") for key in keys]
    with CacheTable(
        "cuts", "cuts_1", key=("record", "part"), state=(), values=("cuts",), what="cut captions"
    ) as memory:
        known = memory.get(names)
        new = [index for index, values in enumerate(known) if values is None]
        measured = dict(zip(new, models.cut_texts([texts[index] for index in new]), strict=True)) if new else {}
        memory.put([(*names[index], json.dumps([asdict(cut) for cut in cuts])) for index, cuts in measured.items()])
    return [
        measured[index] if values is None else tuple(Truncation(**cut) for cut in json.loads(values[0]))
        for index, values in enumerate(known)
    ]


def cut_note(id: str, cuts: Iterable[Truncation]) -> LedgerEntry:
    """Return the ledger entry for a row whose caption is truncated.

    Args:
        id: Id of the row.
        cuts: Truncations, one for each tokenizer.
    """
    reasons = (f"{cut.tokenizer}: {cut.tokens} tokens where the model reads {cut.limit}" for cut in cuts)
    return LedgerEntry(kind="caption_cut", id=id, reason="; ".join(reasons))

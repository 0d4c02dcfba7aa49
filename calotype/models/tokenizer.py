"""The CLIP and T5 tokenizers: the same ids as diffusers' pipelines, without transformers.

transformers' tokenizers call the Rust library `tokenizers`. This module calls it too, configured as
`transformers.CLIPTokenizer` and `T5Tokenizer` (5.x) configure it, for all file formats;
`tests/models/test_pipelines.py` compares the ids with those of the pipelines.

The loader process and `calotype check` need a tokenizer but no model, so the base installation does not depend on
transformers (126 MB). Loading both tokenizers of FLUX.1 takes 0.45 s of CPU time here and 2 s with transformers 5 (two
cores, best of two). transformers' tokenizers also warn and lock around forks.

transformers 4 returns the same ids for plain captions. It differs for CLIP, whose slow class cleans a text first (ftfy
straightens curly quotes, resolves HTML entities, splits ligatures and removes control characters), and for T5 where
U+0085 is between words.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE, Unigram

from calotype.errors import ConfigError, unknown_key
from calotype.models.pieces import TokenPiece, byte_alphabet, readable
from calotype.models.spiece import read_spiece
from calotype.models.tokenizer_files import TokenizerFiles, find_tokenizer_files

__all__ = ["Tokenizer", "load_tokenizer"]

_BATCH = 4096
"""Number of texts tokenized at a time; it bounds the memory of their encodings."""


class Tokenizer:
    """Converts texts to token ids.

    An instance is thread-safe and may be used before a fork. It pickles with its vocabulary: unpickling needs no files.

    Args:
        backend: Tokenizes a text, without special tokens.
        before: Ids before each text (CLIP's start token).
        after: Ids after each text (the end token), never truncated.
        pad_id: Id of the padding token.
        name: Name in errors and reports.
    """

    def __init__(
        self, backend: Backend, *, before: tuple[int, ...], after: tuple[int, ...], pad_id: int, name: str
    ) -> None:
        self._backend = backend
        self._before = before
        self._after = after
        self.pad_id = pad_id
        self.name = name

    @property
    def eos_id(self) -> int:
        """Id of the end token."""
        return self._after[-1]

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary, added tokens included."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    def __call__(self, text: str, max_length: int) -> list[int]:
        """Return exactly `max_length` ids: truncated before the end token, or padded on the right."""
        ids = self._frame(self._backend.encode(text, add_special_tokens=False).ids[: self._room(max_length)])
        return ids + [self.pad_id] * (max_length - len(ids))

    def encode(self, text: str) -> list[int]:
        """Return all ids of a text with special tokens, without truncation or padding."""
        return self._frame(self._backend.encode(text, add_special_tokens=False).ids)

    def count(self, text: str) -> int:
        """Count the tokens of the whole text, special tokens included."""
        return len(self.encode(text))

    def cut(self, text: str, max_length: int) -> int | None:
        """Return the index of the first character lost where `text` is truncated at `max_length`; None if it fits.

        Args:
            text: The caption.
            max_length: In tokens, special tokens included.
        """
        encoding = self._backend.encode(text, add_special_tokens=False)
        room = self._room(max_length)
        if len(encoding.ids) <= room:
            return None
        start: int = encoding.offsets[room][0]
        return start

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return `count` of each text, tokenized in parallel on all cores."""
        frame = len(self._before) + len(self._after)
        return [
            len(encoding.ids) + frame
            for start in range(0, len(texts), _BATCH)
            for encoding in self._backend.encode_batch(list(texts[start : start + _BATCH]), add_special_tokens=False)
        ]

    def pieces(self, text: str, max_length: int) -> tuple[TokenPiece, ...]:
        """Return all tokens of a text in readable form: the model's input without padding, then the truncated ones."""
        ids = self._backend.encode(text, add_special_tokens=False).ids
        room = self._room(max_length)
        kept: list[tuple[list[int], Literal["frame", "text", "cut"]]] = [
            (list(self._before), "frame"),
            (ids[:room], "text"),
            (list(self._after), "frame"),
            (ids[room:], "cut"),
        ]
        byte_level = isinstance(self._backend.model, BPE)
        return tuple(
            TokenPiece(readable(self._backend.id_to_token(id) or f"<{id}>", byte_level=byte_level), id, kind)
            for some, kind in kept
            for id in some
        )

    def _frame(self, ids: list[int]) -> list[int]:
        return [*self._before, *ids, *self._after]

    def _room(self, max_length: int) -> int:
        room = max_length - len(self._before) - len(self._after)
        if room < 0:
            raise ConfigError(
                f"{self.name}: max_length {max_length} is too short: {max_length - room} tokens frame every text"
            )
        return room

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, vocab_size={self.vocab_size}, pad_id={self.pad_id}, eos_id={self.eos_id})"


def load_tokenizer(
    path: str | Path, *, kind: str, subfolder: str | None = None, pad_token: str | None = None
) -> Tokenizer:
    """Load a tokenizer from its files.

    Args:
        path: A local folder (`tokenizer.json`, or `vocab.json` and `merges.txt`, or `spiece.model`), one of these
            files alone (for CLIP `merges.txt` is enough: the vocabulary is derived from it), or a hub name with its
            subfolder, `black-forest-labs/FLUX.1-dev:tokenizer_2`.
        kind: `"clip"` or `"t5"`.
        subfolder: Subfolder of the folder or hub repository.
        pad_token: The padding token, for files that name none (SDXL's second tokenizer pads with `!`). The default is
            CLIP's end token, or T5's `<pad>`.

    Raises:
        MissingTokenizerError: There are no files; the message says how to get them.
        ConfigError: The files are not a tokenizer of this kind.
    """
    if kind not in _KINDS:
        raise unknown_key("kind of tokenizer", kind, _KINDS)
    files = find_tokenizer_files(path, subfolder=subfolder)
    return _KINDS[kind](files, pad_token)


def _clip(files: TokenizerFiles, pad_token: str | None) -> Tokenizer:
    """Load a byte-level BPE tokenizer, configured as `transformers.CLIPTokenizer` configures it."""
    # Read the vocabulary and the merges.
    vocab: dict[str, int]
    if "tokenizer.json" in files:
        model = _model(files, "BPE")
        vocab, merges = model["vocab"], [_pair(merge) for merge in model["merges"]]
    elif "merges.txt" in files:
        merges = _merges(files)
        vocab = files.json("vocab.json") if "vocab.json" in files else _clip_vocab(merges)
    else:
        raise _wrong_files(files, "CLIP", "tokenizer.json, or merges.txt (with or without vocab.json)")
    _check_whole(files, vocab, merges)
    config = files.config()

    # Configure the model, the normalizer and the pre-tokenizer.
    start, end = _token(config, "bos_token", "<|startoftext|>"), _token(config, "eos_token", "<|endoftext|>")
    pad = _token(config, "pad_token", pad_token or end)
    try:
        backend = Backend(BPE(vocab=vocab, merges=merges, end_of_word_suffix="</w>", unk_token=end))
    except Exception as error:
        raise ConfigError(f"{files.path}: not a whole CLIP tokenizer ({error}); copy or download it again") from error
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    # As in CLIP's own files, the start token is matched after lower-casing, the others before it.
    defaults = [AddedToken(start, normalized=True, special=True), AddedToken(end, normalized=False, special=True)]
    _add_tokens(backend, files, config, [*defaults, AddedToken(pad, normalized=False, special=True)])
    return _framed(backend, files, before=(start,), after=(end,), pad=pad)


def _t5(files: TokenizerFiles, pad_token: str | None) -> Tokenizer:
    """Load a Unigram tokenizer, configured as `transformers.T5Tokenizer` configures it."""
    # Read the pieces with their scores, and the normalizer's character map.
    if "tokenizer.json" in files:
        model = _model(files, "Unigram")
        pieces = [(piece, float(score)) for piece, score in model["vocab"]]
        charsmap = _charsmap(files.json("tokenizer.json").get("normalizer"))
    elif "spiece.model" in files:
        pieces, charsmap = read_spiece(files.read("spiece.model"), name=str(files.path))
        pieces += [(token, 0.0) for token in _SENTINELS]
    else:
        raise _wrong_files(files, "T5", "tokenizer.json or spiece.model")
    config = files.config()

    # Configure the model, the normalizer and the pre-tokenizer.
    end, pad = _token(config, "eos_token", "</s>"), _token(config, "pad_token", pad_token or "<pad>")
    unknown = _token(config, "unk_token", "<unk>")
    ids = {piece: id for id, (piece, _) in enumerate(pieces)}
    if unknown not in ids:
        raise ConfigError(f"{files.path}: not a T5 tokenizer: its vocabulary has no {unknown!r}")
    backend = Backend(Unigram(pieces, unk_id=ids[unknown], byte_fallback=False))
    if charsmap:
        backend.normalizer = normalizers.Precompiled(charsmap)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    special = [pad, end, unknown, *(token for token in _SENTINELS if token in ids)]
    _add_tokens(backend, files, config, [AddedToken(token, normalized=False, special=True) for token in special])
    return _framed(backend, files, before=(), after=(end,), pad=pad)


_KINDS: Mapping[str, Callable[[TokenizerFiles, str | None], Tokenizer]] = {"clip": _clip, "t5": _t5}

_SENTINELS = [f"<extra_id_{i}>" for i in range(99, -1, -1)]
"""T5's 100 sentinel tokens, absent from its SentencePiece file. Their ids follow its last one, in this order."""


def _framed(
    backend: Backend, files: TokenizerFiles, *, before: tuple[str, ...], after: tuple[str, ...], pad: str
) -> Tokenizer:
    ids = backend.get_vocab()
    return Tokenizer(
        backend,
        before=tuple(ids[token] for token in before),
        after=tuple(ids[token] for token in after),
        pad_id=ids[pad],
        name=str(files.path),
    )


def _add_tokens(backend: Backend, files: TokenizerFiles, config: Mapping[str, Any], defaults: list[AddedToken]) -> None:
    """Add the tokens that are matched before a text is split into words: those listed in the files, then the defaults.

    Raises:
        ConfigError: A special token is not in the vocabulary, or a listed one would get another id than in the files.
    """
    listed = _listed_tokens(files, config, special={token.content for token in defaults})
    vocab = backend.get_vocab(with_added_tokens=False)
    lacking = [token.content for token in defaults if token.content not in vocab and token.content not in listed]
    if lacking:
        raise ConfigError(
            f"{files.path}: its vocabulary of {len(vocab)} tokens lacks {', '.join(lacking)}; "
            "the files are cut short or are another tokenizer's: copy or download them again"
        )
    for content, (id, token) in sorted(listed.items(), key=lambda item: item[1][0]):
        _add_token(backend, token)
        if backend.token_to_id(content) != id:
            raise ConfigError(
                f"{files.path}: the files give the token {content!r} the id {id}, and its place in the vocabulary of "
                f"{len(vocab)} is {backend.token_to_id(content)}; they are not of one tokenizer: copy them again"
            )
    for token in defaults:
        if token.content not in listed:
            _add_token(backend, token)


def _add_token(backend: Backend, token: AddedToken) -> None:
    add = backend.add_special_tokens if token.special else backend.add_tokens
    add([token])


def _listed_tokens(
    files: TokenizerFiles, config: Mapping[str, Any], *, special: set[str]
) -> dict[str, tuple[int, AddedToken]]:
    """Return the added tokens in the files, with their ids; `tokenizer_config.json` overrides `tokenizer.json`."""
    found: dict[str, tuple[int, Mapping[str, Any]]] = {}
    if "tokenizer.json" in files:
        found |= {token["content"]: (token["id"], token) for token in files.json("tokenizer.json")["added_tokens"]}
    if "added_tokens_decoder" in config:
        found |= {token["content"]: (int(id), token) for id, token in config["added_tokens_decoder"].items()}
    elif not found:
        # The oldest format, `added_tokens.json`, has ids without flags.
        found |= {
            content: (id, {"special": content in special, "normalized": content not in special})
            for content, id in files.added_tokens().items()
        }
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {
        content: (id, AddedToken(content, **{flag: bool(token[flag]) for flag in flags if flag in token}))
        for content, (id, token) in found.items()
    }


def _model(files: TokenizerFiles, kind: str) -> dict[str, Any]:
    """Return the `model` section of `tokenizer.json`.

    Raises:
        ConfigError: It is missing, or of another kind.
    """
    found = files.json("tokenizer.json")
    model: dict[str, Any] = found.get("model", {}) if isinstance(found, dict) else {}
    # Old files don't name the type of their model.
    if not model.get("vocab") or model.get("type", kind) != kind or (kind == "BPE" and "merges" not in model):
        raise ConfigError(
            f"{files.path}: a tokenizer.json whose model is {kind} was expected, found {model.get('type', 'none')!r}; "
            "is this another model's tokenizer?"
        )
    return model


def _charsmap(normalizer: Any) -> bytes:
    """Return the precompiled character map of a `normalizer` section; empty where it has none."""
    if not isinstance(normalizer, dict):
        return b""
    for part in normalizer.get("normalizers", [normalizer]):
        if part.get("type") == "Precompiled":
            return base64.b64decode(part["precompiled_charsmap"])
    return b""


def _merges(files: TokenizerFiles) -> list[tuple[str, str]]:
    lines = [line for line in files.text("merges.txt").split("\n") if line and not line.startswith("#version")]
    try:
        return [_pair(line) for line in lines]
    except ValueError as error:
        raise ConfigError(f"{files.path}: not a list of merges ({error}); copy or download it again") from error


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _clip_vocab(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Build CLIP's vocabulary from its merges: 256 bytes, the same with `</w>`, the merged pairs, start and end tokens.

    The order is that of OpenAI's `simple_tokenizer.py` (https://github.com/openai/CLIP): printable bytes first.
    """
    characters = sorted(byte_alphabet())
    tokens = [*characters, *(f"{character}</w>" for character in characters), *(a + b for a, b in merges)]
    return {token: id for id, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}


def _check_whole(files: TokenizerFiles, vocab: Mapping[str, int], merges: list[tuple[str, str]]) -> None:
    """Refuse a vocabulary with tokens that no merge produces: it would load, and return other ids than in training.

    The usual cause is a `merges.txt` that was truncated by an interrupted download.

    Raises:
        ConfigError: There are such tokens.
    """
    reachable = {left + right for left, right in merges}
    lost = [
        token
        for token in vocab
        if token not in reachable and len(token.removesuffix("</w>")) > 1 and not token.startswith("<|")
    ]
    if lost:
        raise ConfigError(
            f"{files.path}: {len(lost)} of the vocabulary's {len(vocab)} tokens (such as {lost[0]!r}) follow from none "
            f"of the {len(merges)} merges; the merges are cut short: copy or download the tokenizer again"
        )


def _token(config: Mapping[str, Any], key: str, default: str) -> str:
    found = config.get(key) or default
    return str(found["content"]) if isinstance(found, Mapping) else str(found)


def _wrong_files(files: TokenizerFiles, kind: str, expected: str) -> ConfigError:
    return ConfigError(f"{files.path}: a {kind} tokenizer needs {expected}; found {', '.join(files.names)}")

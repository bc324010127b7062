"""tokenizer.json: read strictly, built by the `tokenizers` library.

Every part (normalizer, pre-tokenizer, model, decoder) must be one that is known here, with no setting unread
and no regular expression that is not in the table of patterns.py. The library then gets the parts, never the
file.
"""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import TokenizerError
from ..files import paths
from . import around, declared, patterns, stream
from .boundary import MAX_FILE, reading
from .modelproto import check_charsmap
from .pipeline import Model, Pipeline, PipelineTokenizer, Steps

Json = dict[str, Any]

_TOP = {
    "version",
    "truncation",
    "padding",
    "added_tokens",
    "normalizer",
    "pre_tokenizer",
    "post_processor",
    "decoder",
}
_MASKS = ("[MASK]", "<mask>")
_BYTE_LEVEL = {"add_prefix_space", "trim_offsets", "use_regex"}
_METASPACE = {"replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"}

# Part -> the settings it may have. The library fills in those that are absent.
_NORMALIZERS: Mapping[str, Collection[str]] = {
    **dict.fromkeys(("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents"), ()),
    "Sequence": {"normalizers"},
    "Strip": {"strip_left", "strip_right"},
    "Prepend": {"prepend"},
    "Replace": {"pattern", "content"},
    "Precompiled": {"precompiled_charsmap"},
    "BertNormalizer": {"clean_text", "handle_chinese_chars", "strip_accents", "lowercase"},
}
_PRE_TOKENIZERS: Mapping[str, Collection[str]] = {
    **dict.fromkeys(("BertPreTokenizer", "Whitespace", "WhitespaceSplit"), ()),
    "Sequence": {"pretokenizers"},
    "ByteLevel": _BYTE_LEVEL,
    "Metaspace": _METASPACE,
    "Split": {"pattern", "behavior", "invert"},
    "Digits": {"individual_digits"},
    "Punctuation": {"behavior"},
}
_DECODERS: Mapping[str, Collection[str]] = {
    **dict.fromkeys(("ByteFallback", "Fuse"), ()),
    "Sequence": {"decoders"},
    "ByteLevel": _BYTE_LEVEL,
    "Metaspace": _METASPACE,
    "Replace": {"pattern", "content"},
    "Strip": {"content", "start", "stop"},
    "WordPiece": {"prefix", "cleanup"},
    "BPEDecoder": {"suffix"},
}
_MODELS: Mapping[str, Collection[str]] = {
    "BPE": {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk"}
    | {"byte_fallback", "ignore_merges", "vocab", "merges"},
    "Unigram": {"unk_id", "vocab", "byte_fallback"},
    "WordPiece": {"unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"},
}


def load(path: Path, said: declared.Declared, *, control: Mapping[str, int]) -> PipelineTokenizer:
    """Return the tokenizer of a tokenizer.json.

    said: what the files beside it declare. control: control tokens that no file names.
    Raises TokenizerError: not JSON, a part or a setting that is not known, or a vocabulary that does not fit
    together.
    """
    with reading(path):
        return build(paths.read_json(path, limit=MAX_FILE), said, control=control)


def build(file: Json, said: declared.Declared, *, control: Mapping[str, int]) -> PipelineTokenizer:
    """Return the tokenizer of a parsed tokenizer.json; see `load`."""
    _refuse_unknown("tokenizer.json", file, _TOP | {"model"})
    entries = file.get("added_tokens") or []
    if not isinstance(entries, list):
        raise TokenizerError("added_tokens is no list")
    added = [declared.added_token("added_tokens", _at(entry, "id"), entry) for entry in entries]
    model = _model(_object("model", file.get("model")))
    known = model.vocab | {token.content: token.id for token in added}
    added += [token for token in said.added.values() if token.content not in known]
    pipeline = Pipeline(
        model=model,
        steps=_decoder(file.get("decoder")),
        normalizer=_part("normalizer", file.get("normalizer"), _NORMALIZERS, "normalizers"),
        pre_tokenizer=_part("pre-tokenizer", file.get("pre_tokenizer"), _PRE_TOKENIZERS, "pretokenizers"),
        added=tuple(added),
    )
    wrapped = around.read(file.get("post_processor"))
    first, last = (None, None) if wrapped is None else around.ends(wrapped[0])
    vocab = model.vocab | {token.content: token.id for token in added}
    marked = {token.content: token.id for token in added if token.special}
    # Of the special tokens the file names none; the two that hide words have two spellings in all files.
    names = {"bos_token": first, "eos_token": last, "mask_token": next(filter(marked.get, _MASKS), None)}
    special = said.special(
        vocab,
        marked | dict(control),
        add_bos=first is not None,
        add_eos=last is not None,
        defaults={key: name for key, name in names.items() if name},
        whole=[token.content for token in added],
    )
    if wrapped is not None and (special.add_bos, special.add_eos) == (first is not None, last is not None):
        special = replace(special, around=around.Around.of(*wrapped, vocab))
    return PipelineTokenizer(pipeline, special, skip={token.id for token in added if token.special})


# Reading parts.


def _refuse_unknown(where: str, part: Json, known: Collection[str]) -> None:
    if unknown := sorted(set(part) - set(known)):
        raise TokenizerError(f"{where} has {unknown[0][:80]!r}, which is not known here. Update bestiary")


def _object(where: str, value: object) -> Json:
    if isinstance(value, dict):
        return value
    raise TokenizerError(f"{where} is {str(value)[:80]!r}, not an object")


def _at(entry: object, key: str) -> object:
    return entry.get(key) if isinstance(entry, dict) else None


def _typed(where: str, part: Json, key: str, kind: type, default: Any) -> Any:
    value = part.get(key, default)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise TokenizerError(f"{where}: {key} is {str(value)[:80]!r}, not of type {kind.__name__}")


def _part(where: str, value: object, known: Mapping[str, Collection[str]], inner: str) -> Json | None:
    """Return a part, checked through and in today's spelling; None when there is none."""
    if value is None:
        return None
    part = _object(where, value)
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in known:
        raise TokenizerError(f"{where} {str(kind)[:80]!r} is not known here. Update bestiary")
    _refuse_unknown(f"{where} {kind}", part, [*known[kind], "type"])
    if kind == "Sequence":
        items = _typed(where, part, inner, list, None)
        return {"type": kind, inner: [_part(where, _object(where, item), known, inner) for item in items]}
    if kind == "Metaspace":
        return _metaspace(where, part)
    if kind == "Precompiled":
        _check_precompiled(part)
    if "pattern" in part:
        _pattern(f"{where} {kind}", part["pattern"])
    return part


def _pattern(where: str, pattern: object) -> str | None:
    """Return a literal pattern's string, None for a regular expression that is known."""
    if isinstance(pattern, dict) and len(pattern) == 1:
        string, regex = pattern.get("String"), pattern.get("Regex")
        if isinstance(string, str) and string:
            return string
        if isinstance(regex, str):
            if regex in patterns.REGEXES:
                return None
            raise TokenizerError(
                f"{where}: the regular expression {regex[:200]!r} is not that of a published tokenizer known "
                "here, and a stranger's is not run. Update bestiary, or use the tokenizer of the model that "
                "this one was made from"
            )
    raise TokenizerError(f"{where}: {str(pattern)[:80]!r} is no pattern")


def _metaspace(where: str, part: Json) -> Json:
    """Return a Metaspace as tokenizers >= 0.19 writes it; some published files (XVERSE) are older."""
    prefix = _typed(where, part, "add_prefix_space", bool, True)
    return {
        "type": "Metaspace",
        "replacement": _typed(where, part, "replacement", str, stream.SPACE),
        "prepend_scheme": _typed(where, part, "prepend_scheme", str, "always" if prefix else "never"),
        "split": _typed(where, part, "split", bool, True),
    }


def _check_precompiled(part: Json) -> None:
    try:
        blob = base64.b64decode(_typed("normalizer", part, "precompiled_charsmap", str, None), validate=True)
    except binascii.Error as error:
        raise TokenizerError(f"normalizer Precompiled: the map is no base64: {error}") from error
    check_charsmap(blob)


# The model.


def _model(part: Json) -> Model:
    kind = part.get("type", "BPE" if "merges" in part else None)  # the oldest files do not name the type
    if not isinstance(kind, str) or kind not in _MODELS:
        raise TokenizerError(f"model {str(kind)[:80]!r} is not known here; known: {', '.join(_MODELS)}")
    _refuse_unknown(f"model {kind}", part, [*_MODELS[kind], "type"])
    if kind == "Unigram":
        return _unigram(part)
    vocab = _typed("model", part, "vocab", dict, None)
    check_vocab(vocab)
    unk = part.get("unk_token")
    if unk is not None and (not isinstance(unk, str) or unk not in vocab):
        raise TokenizerError(f"model: the unk_token {str(unk)[:80]!r} is not in the vocabulary")
    if kind == "WordPiece":
        options: Json = {
            "max_input_chars_per_word": _typed("model", part, "max_input_chars_per_word", int, 100),
            "continuing_subword_prefix": _typed("model", part, "continuing_subword_prefix", str, "##"),
        }
        if unk is None:
            raise TokenizerError("model WordPiece has no unk_token")
        return Model(kind, vocab, unk=unk, options=options)
    if part.get("dropout"):
        raise TokenizerError(f"model: dropout {part['dropout']!r} would make each run differ. Set it to null")
    options = {
        key: _typed("model", part, key, bool, False) for key in ("fuse_unk", "byte_fallback", "ignore_merges")
    }
    merges = pairs(_typed("model", part, "merges", list, None))
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if part.get(key) is not None:
            options[key] = _typed("model", part, key, str, None)
    prefix = options.get("continuing_subword_prefix", "")
    if prefix and not all(right.startswith(prefix) for _, right in merges):
        raise TokenizerError(f"model: a merge's second token does not begin with the prefix {prefix[:80]!r}")
    return Model(kind, vocab, merges=merges, unk=unk, options=options)


def check_vocab(vocab: Mapping[str, Any]) -> None:
    """Raise TokenizerError unless each token of a vocabulary has an id of its own, below 2^31."""
    numbers = set(map(type, vocab.values())) <= {int}
    ids = set(vocab.values()) if numbers else set()
    if not ids or len(ids) != len(vocab) or min(ids) < 0 or max(ids) >= 2**31:
        raise TokenizerError(
            "the vocabulary is empty, or two tokens share an id, or one has none that is a number"
        )


def pairs(merges: list[Any]) -> list[tuple[str, str]]:
    """Return BPE's merges from the two forms they are written in: "a b" and ["a", "b"].

    Raises TokenizerError: a merge that is not two tokens.
    """
    # A published file has 50,000 to 500,000 of these, so they are checked in bulk.
    written = set(map(type, merges))
    if written <= {str}:
        found = [tuple(merge.split(" ")) for merge in merges]
    elif written <= {list}:
        found = [tuple(merge) for merge in merges]
    else:
        raise TokenizerError("the merges are neither all strings nor all lists")
    tokens = itertools.chain.from_iterable(found)
    if not set(map(len, found)) <= {2} or not set(map(type, tokens)) <= {str} or not all(map(all, found)):
        raise TokenizerError("a merge is not two tokens")
    return found


def _unigram(part: Json) -> Model:
    pieces = _typed("model", part, "vocab", list, None)
    vocab: dict[str, int] = {}
    scores: list[float] = []
    for piece in pieces:
        if not (
            isinstance(piece, list)
            and len(piece) == 2
            and isinstance(piece[0], str)
            and piece[0] not in vocab
        ):
            raise TokenizerError(
                f"model Unigram: {str(piece)[:80]!r} is no piece with its score, or is there twice"
            )
        if not isinstance(piece[1], int | float) or isinstance(piece[1], bool):
            raise TokenizerError(f"model Unigram: the score of {piece[0][:80]!r} is no number")
        vocab[piece[0]] = len(vocab)
        scores.append(float(piece[1]))
    unk = part.get("unk_id")
    if not isinstance(unk, int) or not 0 <= unk < len(scores):
        raise TokenizerError(
            f"model Unigram: unk_id {str(unk)[:80]!r} is not one of its {len(scores)} pieces"
        )
    options = {"byte_fallback": _typed("model", part, "byte_fallback", bool, False)}
    return Model("Unigram", vocab, scores=scores, unk=list(vocab)[unk], options=options)


# The decoder.


def _decoder(value: object) -> Steps:
    """Return what makes a decoder's steps; see `stream` for each.

    Raises TokenizerError: a decoder, or an order of decoders, that is not known.
    """
    part = _part("decoder", value, _DECODERS, "decoders")
    if part is None:
        raise TokenizerError("there is no decoder, so what a token adds to a text is not known")
    parts: list[Json] = part["decoders"] if part["type"] == "Sequence" else [part]
    makers: list[Callable[[bool], stream.Step]] = []
    fused = False
    for one in parts:
        maker = _step(one, fused=fused)
        fused = fused or one["type"] in ("Fuse", "ByteLevel")
        if maker is not None:
            makers.append(maker)
    return lambda continues: [maker(continues) for maker in makers]


def _step(part: Json, *, fused: bool) -> Callable[[bool], stream.Step] | None:
    """Return what makes one step. fused: the tokens before it have become one text."""
    kind = part["type"]
    if kind == "Fuse":
        return None
    if kind == "Strip" and fused and part.get("stop", 0) == 0:
        character = _typed("decoder", part, "content", str, None)
        count = _typed("decoder", part, "start", int, 0)
        return lambda continues: stream.StripStart(character, 0 if continues else count)
    if kind == "Replace":
        old, new = (
            _pattern("decoder Replace", part.get("pattern")),
            _typed("decoder", part, "content", str, None),
        )
        if old is not None and (not fused or len(old) == 1):  # a longer one could lie across two tokens
            return lambda continues: stream.Replace(old, new)
    if not fused:
        return _step_by_token(part)
    raise TokenizerError(f"decoder {kind} is not known at this place among the decoders")


def _step_by_token(part: Json) -> Callable[[bool], stream.Step]:
    match part["type"]:
        case "ByteLevel":
            return lambda continues: stream.ByteLevel()
        case "ByteFallback":
            return lambda continues: stream.ByteFallback()
        case "Metaspace":
            mark, drop = part["replacement"], part["prepend_scheme"] != "never"
            return lambda continues: stream.Metaspace(mark, drop_first=drop and not continues)
        case "WordPiece":
            prefix = _typed("decoder", part, "prefix", str, "##")
            clean = _typed("decoder", part, "cleanup", bool, True)
            return lambda continues: stream.WordPiece(prefix, clean=clean, first=not continues)
        case "BPEDecoder":
            suffix = _typed("decoder", part, "suffix", str, "</w>")
            return lambda continues: stream.WordEnd(suffix)
    raise TokenizerError(f"decoder {part['type']} is not known at this place among the decoders")

"""A tokenizer as the keys of a GGUF file: gguf.py, backwards.

llama.cpp splits words by rules that it knows by name (`tokenizer.ggml.pre`); a tokenizer whose rules have no
name there is refused. What is written is read back, and has to encode a list of awkward texts as its source
does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import TokenizerError
from . import gguf, patterns
from .modelproto import BPE, BYTE, CONTROL, NORMAL, UNIGRAM, UNKNOWN, UNUSED, USER_DEFINED, ModelProto
from .pipeline import PipelineTokenizer
from .sentencepiece import SentencePieceTokenizer
from .stream import BYTE as BYTE_TOKEN
from .stream import BYTE_OF, SPACE
from .tiktoken import TiktokenTokenizer
from .tokenizer import Tokenizer

Json = dict[str, Any]
_PREFIX = "tokenizer.ggml."
_REMEDY = "Write the file without it: --no-tokenizer"
_CHARACTER_OF = {byte: character for character, byte in BYTE_OF.items()}
# How Falcon's tokenizer.json spells what GGUF's "falcon" does.
_FALCON: Json = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Punctuation", "behavior": "Contiguous"},
        patterns.GPT2,
        {"type": "Digits", "individual_digits": False},
        {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated"},
    ],
}
_LEAST = -1e6  # the score of a piece that no merge makes

# What has told tokenizers apart: case, digits, spaces, lines, marks, scripts, accents in two forms, emoji,
# code.
PROBES = (
    "Hello world", " Hello  world", "the quick brown fox's 12345 tests, isn't it? WE'LL see", "a", " ", "\n",
    "   x", "I've 1234 tokens\n\n  def f(x):\n\treturn x+1  # 3.14e-10", "你好，世界！こんにちは 안녕하세요",
    "naïve café cafe\u0301 Ärger", "🙂👩‍👩‍👧‍👦 \u200b\u00a0x", "a" * 40, "trailing spaces   ",
    "\ttabs\tand\r\nlines\r\n", "<b>http://x.y/z?q=1&r=%20</b>", '{"k": [1, 2.5, null]}',
    "русский العربية हिन्दी ไทย", "1 22 333 4444 55555", "...!!!???—–…“”‘’", "ﬁ Ⅷ ½ ﷺ", "<0x0A>\x00\x1f",
)  # fmt: skip


def keys(tokenizer: Tokenizer, *, size: int, template: str = "") -> dict[str, object]:
    """Return the `tokenizer.*` keys of a GGUF file.

    size: rows of the model's vocabulary, for which tokens are made up that nothing gives. template: the chat
    template. Raises TokenizerError for a tokenizer that has no form there, or reads otherwise in it.
    """
    # Classes made of these rewrite a text first, which GGUF has no word for.
    if type(tokenizer) is SentencePieceTokenizer:
        found = _sentencepiece(tokenizer)
    elif isinstance(tokenizer, TiktokenTokenizer):
        found = _ranked(tokenizer)
    elif type(tokenizer) is PipelineTokenizer and tokenizer.pipeline.model.kind == "BPE":
        byte_level = not tokenizer.pipeline.model.options.get("byte_fallback", False)
        found = _byte_level(tokenizer) if byte_level else _fallback(tokenizer)
    else:
        raise _refusal(f"a {type(tokenizer).__name__} of this kind has no form in GGUF")
    _fill(found, size)
    ids = {"bos": tokenizer.bos, "eos": tokenizer.eos}
    found |= {f"{_PREFIX}{name}_token_id": number for name, number in ids.items() if number is not None}
    found |= {f"{_PREFIX}add_bos_token": tokenizer.add_bos, f"{_PREFIX}add_eos_token": tokenizer.add_eos}
    if template:
        found["tokenizer.chat_template"] = template
    _check(tokenizer, found)
    return found


def _refusal(why: str) -> TokenizerError:
    return TokenizerError(f"the tokenizer: {why}. {_REMEDY}")


def _fill(found: dict[str, object], size: int) -> None:
    """Give every row of the vocabulary a token, as llama.cpp asks."""
    tokens: Any = found[f"{_PREFIX}tokens"]
    types: Any = found[f"{_PREFIX}token_type"]
    if len(tokens) > size:
        raise _refusal(f"it has {len(tokens):,} tokens, and the model has rows for {size:,}")
    known = set(tokens)
    for number in range(len(tokens), size):
        name = f"[PAD{number}]"
        while name in known:
            name += "]"
        tokens.append(name)
        types.append(UNUSED)
        if (scores := found.get(f"{_PREFIX}scores")) is not None:
            scores.append(_LEAST)  # type: ignore[attr-defined]


def _sentencepiece(tokenizer: SentencePieceTokenizer) -> dict[str, object]:
    model = tokenizer.model
    tokens, scores, types = list(model.pieces), list(model.scores), list(model.types)
    controls = set(tokenizer.control.values())
    for number, name in sorted(tokenizer.names.items()):
        tokens += [f"[PAD{between}]" for between in range(len(tokens), number)]
        scores += [_LEAST] * (number + 1 - len(scores))
        types += [UNUSED] * (number + 1 - len(types))
        tokens[number : number + 1] = [name]
        types[number] = CONTROL if number in controls else USER_DEFINED
    found: dict[str, object] = {f"{_PREFIX}model": "llama" if model.algorithm == BPE else "t5"}
    found |= _pieces(tokens, scores, types)
    found[f"{_PREFIX}unknown_token_id"] = model.unknown
    found |= _spaces(model)
    if model.algorithm == UNIGRAM and model.charsmap:
        found[f"{_PREFIX}precompiled_charsmap"] = model.charsmap
    return found


def _spaces(model: ModelProto) -> dict[str, object]:
    return {
        f"{_PREFIX}add_space_prefix": model.add_dummy_prefix,
        f"{_PREFIX}remove_extra_whitespaces": model.remove_extra_whitespaces,
    }


def _pieces(tokens: list[str], scores: list[float], types: list[int]) -> dict[str, object]:
    return {
        f"{_PREFIX}pre": "default",
        f"{_PREFIX}tokens": tokens,
        f"{_PREFIX}scores": [float(score) for score in scores],
        f"{_PREFIX}token_type": types,
    }


def _numbered(tokenizer: PipelineTokenizer) -> tuple[list[str], list[int]]:
    """Return the tokens in the order of their ids, and their types; gaps are filled."""
    pipeline = tokenizer.pipeline
    spelled = {number: name for name, number in pipeline.model.vocab.items()}
    tokens = [spelled.get(number, f"[PAD{number}]") for number in range(tokenizer.vocab_size)]
    types = [NORMAL if number in spelled else UNUSED for number in range(len(tokens))]
    for token in pipeline.added:
        types[token.id] = CONTROL if token.special else USER_DEFINED
    for number in tokenizer.control.values():
        types[number] = CONTROL
    return tokens, types


def _byte_level(tokenizer: PipelineTokenizer) -> dict[str, object]:
    pipeline = tokenizer.pipeline
    ignores = bool(pipeline.model.options.get("ignore_merges", False))
    pre = _named(pipeline.pre_tokenizer, pipeline.normalizer, ignores)
    tokens, types = _numbered(tokenizer)
    return _merged(pre, tokens, types, [f"{left} {right}" for left, right in pipeline.model.merges])


def _merged(pre: str, tokens: list[str], types: list[int], merges: list[str]) -> dict[str, object]:
    found = {"model": "gpt2", "pre": pre, "tokens": tokens, "token_type": types, "merges": merges}
    return {f"{_PREFIX}{key}": value for key, value in found.items()}


def _named(pre_tokenizer: Json | None, normalizer: Json | None, ignores: bool) -> str:
    """Return GGUF's name for a way of splitting words. ignores: a word that is a token is taken whole."""
    wanted = (*_splits(pre_tokenizer), *_normal(normalizer))
    if wanted == tuple(_splits(_FALCON)):
        return "falcon"
    for name, named in patterns.GGUF.items():
        known = (*_splits(named.pre_tokenizer), *_normal(named.normalizer))
        if (known, named.ignore_merges) == (wanted, ignores):
            return name
    raise _refusal("its way of splitting words has no name in GGUF (tokenizer.ggml.pre)")


def _ranked(tokenizer: TiktokenTokenizer) -> dict[str, object]:
    """Return the keys of a tiktoken vocabulary: a token's merge is of the last two parts that ranks join."""
    known = {
        patterns.LLAMA3_REGEX: (patterns.LLAMA3, None, True),
        patterns.QWEN2_REGEX: (patterns.QWEN2, patterns.NFC, False),
    }
    if tokenizer.pattern not in known:
        raise _refusal("its way of splitting words has no name in GGUF (tokenizer.ggml.pre)")
    ordered = sorted(tokenizer.ranks, key=tokenizer.ranks.__getitem__)
    halves = (_halves(tokenizer.ranks, token) for token in ordered)
    merges = [" ".join(map(_visible, parts)) for parts in halves if len(parts) == 2]
    tokens, types = list(map(_visible, ordered)), [NORMAL] * len(ordered)
    for name, number in sorted(tokenizer.control.items(), key=lambda item: item[1]):
        missing = range(len(tokens), number)
        tokens += [*(f"[PAD{between}]" for between in missing), name]
        types += [*(UNUSED for _ in missing), CONTROL]
    return _merged(_named(*known[tokenizer.pattern]), tokens, types, merges)


def _halves(ranks: Mapping[bytes, int], token: bytes) -> list[bytes]:
    """Return the two parts that make a token, which joins of lower rank leave; more where it takes no
    joining.

    Llama 3 has words that no join makes, and takes those whole.
    """
    own, parts = ranks[token], [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(left + right, own) for left, right in itertools.pairwise(parts)]
        if (least := min(joined)) >= own:
            break
        at = joined.index(least)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _visible(token: bytes) -> str:
    return "".join(_CHARACTER_OF[byte] for byte in token)


def _splits(part: Json | None) -> Iterator[tuple[object, ...]]:
    """Yield the steps of a pre-tokenizer, in one spelling."""
    if part is None:
        return
    if part["type"] == "Sequence":
        for inner in part["pretokenizers"]:
            yield from _splits(inner)
    elif part["type"] == "ByteLevel":
        yield "bytes", part.get("use_regex", True), part.get("add_prefix_space", True)
    else:
        behaviour = str(part.get("behavior", "")).lower()
        yield part["type"], str(part.get("pattern")), behaviour, part.get("individual_digits")


def _normal(part: Json | None) -> Iterator[tuple[object, ...]]:
    """Yield the steps of a normalizer; an empty sequence is none."""
    if part is None:
        return
    if part["type"] == "Sequence":
        for inner in part["normalizers"]:
            yield from _normal(inner)
    else:
        yield ("normal", *sorted((key, str(value)) for key, value in part.items()))


def _fallback(tokenizer: PipelineTokenizer) -> dict[str, object]:
    """Return the keys of a BPE of characters and bytes: SentencePiece's, which tokenizer.json holds as
    merges.

    SentencePiece joins the pair whose piece has the highest score; so the earlier a merge, the higher.
    """
    pipeline = tokenizer.pipeline
    tokens, types = _numbered(tokenizer)
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(pipeline.model.merges):
        ranks.setdefault(left + right, rank)
    scores = [-float(ranks[token]) if token in ranks else _LEAST for token in tokens]
    unknown = pipeline.model.vocab.get(pipeline.model.unk or "", 0)
    for number, token in enumerate(tokens):
        if types[number] == NORMAL and BYTE_TOKEN.fullmatch(token):
            types[number] = BYTE
    types[unknown] = UNKNOWN
    said = f"{pipeline.normalizer} {pipeline.pre_tokenizer}"
    prefix = (
        "'Prepend'" in said or "'prepend_scheme': 'always'" in said or "'prepend_scheme': 'first'" in said
    )
    if SPACE not in said:
        raise _refusal("it is no BPE of bytes, and none of SentencePiece's either")
    found: dict[str, object] = {f"{_PREFIX}model": "llama", **_pieces(tokens, scores, types)}
    return found | {
        f"{_PREFIX}unknown_token_id": unknown,
        f"{_PREFIX}add_space_prefix": prefix,
        f"{_PREFIX}remove_extra_whitespaces": False,
    }


def _check(tokenizer: Tokenizer, found: Mapping[str, object]) -> None:
    """Read the keys back. Raises TokenizerError where they encode a text otherwise.

    What follows a control token in SentencePiece's is not asked of those with `legacy` false: there GGUF and
    llama.cpp know only the dummy prefix of its own that the others have.
    """
    plain = {key: list(value) if isinstance(value, bytes) else value for key, value in found.items()}
    again = gguf.from_metadata(plain)
    marks = [name for name in tokenizer.control if name][:8]
    between = "" if isinstance(tokenizer, SentencePieceTokenizer) and not tokenizer.legacy else "x "
    for text in (*PROBES, "".join(f"{mark}{between}{mark}" for mark in marks)):
        for control in (False, True):
            if tokenizer.encode(text, control=control) != again.encode(text, control=control):
                raise _refusal(f"in GGUF's terms it would encode {text[:40]!r} otherwise")
    wanted = (tokenizer.bos, tokenizer.eos, tokenizer.add_bos, tokenizer.add_eos)
    if (again.bos, again.eos, again.add_bos, again.add_eos) != wanted:
        raise _refusal("in GGUF's terms its BOS or EOS would be another")

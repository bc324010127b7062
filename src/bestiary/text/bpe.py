"""Byte-level BPE as vocab.json and merges.txt, the form in which GPT-2 and its like were first published.

The two files say nothing of how words are split; the class named in tokenizer_config.json does, and a class
that is not known here is refused. A folder that names none is GPT-2's, whose format this is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import TokenizerError
from ..files import paths
from . import hf, patterns, stream
from .around import Around
from .boundary import MAX_FILE, reading
from .declared import Declared
from .pipeline import Added, Model, Pipeline, PipelineTokenizer, Special

Json = dict[str, Any]


@dataclass(frozen=True)
class _Class:
    """What a tokenizer class does beside the files.

    named: its own special tokens. ending: what a word's last token ends in, where tokens are no bytes.
    around: what stands around texts, made of BOS and EOS.
    """

    pre_tokenizer: Json
    named: Mapping[str, str] = field(default_factory=dict)
    normalizer: Json | None = None
    add_bos: bool = False
    add_eos: bool = False
    ending: str | None = None
    around: Callable[[int, int], Around] | None = None


_COMMON = frozenset([*range(0x20, 0x7F), *range(0x80, 0xC0)])
_END = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
_GPT2 = _Class(patterns.GPT2, _END)
_CLASSES = {
    "GPT2": _GPT2,
    "CodeGen": _GPT2,
    "GPTNeoX": _Class(patterns.GPT2, _END, patterns.NFC),
    "Qwen2": _Class(patterns.QWEN2, {"eos_token": "<|endoftext|>"}, patterns.NFC),
    "Moss": _Class(patterns.GPT2, _END | {"eos_token": "<eom>"}),
    "Roberta": _Class(
        patterns.GPT2,
        {"bos_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>"},
        add_bos=True,
        add_eos=True,
        around=Around.roberta,
    ),
    # GPT-1 as transformers has it without spaCy and ftfy: BERT's way of splitting words.
    "OpenAIGPT": _Class(
        {"type": "BertPreTokenizer"},
        {"unk_token": "<unk>"},
        {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": True},
        ending="</w>",
    ),
}


def load(path: Path, merges: str, said: Declared, *, control: Mapping[str, int]) -> PipelineTokenizer:
    """Return the tokenizer of a vocab.json, with the merges beside it.

    merges: the name of their file. said: what the other files there declare. control: control tokens that no
    file names.
    Raises TokenizerError: a damaged file, or a tokenizer_class that is not known here.
    """
    with reading(path):
        vocab = paths.read_json(path, limit=MAX_FILE)
        lines = paths.read_bytes(path.parent / merges, limit=MAX_FILE).decode()
        return build(vocab, lines, said, control=control)


def build(vocab: Json, merges: str, said: Declared, *, control: Mapping[str, int]) -> PipelineTokenizer:
    """Return the tokenizer of the two files' content; see `load`."""
    name = (said.class_name or "GPT2Tokenizer").removesuffix("Fast").removesuffix("Tokenizer")
    if name not in _CLASSES:
        raise TokenizerError(
            f"tokenizer_config.json names the class {str(said.class_name)[:80]!r}; how that splits "
            f"words is not known here. Known: {', '.join(_CLASSES)}, each with Tokenizer at its end"
        )
    known = _CLASSES[name]
    hf.check_vocab(vocab)
    # The first line says "#version: 0.2"; "#" alone begins a merge like any other character.
    lines = [line.removesuffix("\r") for line in merges.split("\n")]
    pairs = hf.pairs(
        [line for i, line in enumerate(lines) if line and not (i == 0 and line.startswith("#version"))]
    )
    pre_tokenizer = known.pre_tokenizer
    if said.flag("add_prefix_space"):
        if pre_tokenizer is not patterns.GPT2:
            raise TokenizerError(
                "tokenizer_config.json: add_prefix_space is known for GPT-2's way of splitting only"
            )
        pre_tokenizer = patterns.byte_level(words=True, prefix=True)
    special = said.special(
        vocab | {token.content: token.id for token in said.added.values()} | dict(control),
        control,
        add_bos=known.add_bos,
        add_eos=known.add_eos,
        defaults=known.named,
    )
    if known.around is not None and special.bos is not None and special.eos is not None:
        special = replace(special, around=known.around(special.bos, special.eos))
    added = tuple(said.added.values())
    if known.ending is None:
        model = Model("BPE", vocab, merges=pairs)
        return byte_level(model, pre_tokenizer, known.normalizer, special, added)
    return _words(Model("BPE", vocab, merges=pairs, unk=known.named["unk_token"]), known, special, added)


def _words(model: Model, known: _Class, special: Special, added: tuple[Added, ...]) -> PipelineTokenizer:
    """Return a tokenizer whose tokens are letters, the last of each word with an ending."""
    ending, unk = known.ending or "", model.unk or ""
    if unk not in model.vocab:
        raise TokenizerError(f"the vocabulary has no {unk!r} for characters that it does not have")
    model = replace(model, options={"end_of_word_suffix": ending})
    added = (*added, Added(model.vocab[unk], unk))
    pipeline = Pipeline(
        model, lambda continues: [stream.WordEnd(ending)], known.normalizer, known.pre_tokenizer, added
    )
    return PipelineTokenizer(pipeline, special)


def byte_level(
    model: Model, pre_tokenizer: Json, normalizer: Json | None, special: Special, added: tuple[Added, ...]
) -> PipelineTokenizer:
    """Return a tokenizer whose tokens are bytes in GPT-2's alphabet.

    A byte that has no token is left out of a text, as in every implementation: SmolLM2 has none for six
    control characters and for some that UTF-8 never or hardly uses.
    Raises TokenizerError: printable ASCII or UTF-8's later bytes are missing, so this is another vocabulary.
    """
    needed = (character for character, byte in stream.BYTE_OF.items() if byte in _COMMON)
    if missing := [character for character in needed if character not in model.vocab]:
        raise TokenizerError(f"the vocabulary is not byte-level BPE: it has no token {missing[0]!r}")
    pipeline = Pipeline(model, lambda continues: [stream.ByteLevel()], normalizer, pre_tokenizer, added)
    return PipelineTokenizer(pipeline, special)

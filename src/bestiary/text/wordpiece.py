"""BERT's WordPiece, from vocab.txt and from GGUF, by the `tokenizers` library.

As in google-research/bert: words of more than 200 characters become the unknown token (transformers: 100),
and characters are lowered and accents stripped unless tokenizer_config.json says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import TokenizerError
from ..files import paths
from . import hf, stream
from .around import Around
from .boundary import MAX_FILE, reading
from .declared import Declared
from .pipeline import Added, Model, Pipeline, PipelineTokenizer, Special

_CLASSES = ("BertTokenizer", "BertTokenizerFast")
_NAMED = {
    "bos_token": "[CLS]",
    "eos_token": "[SEP]",
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}

# BERT's published files call what begins and ends a text by these names.
_ENDS = {"bos_token": "cls_token", "eos_token": "sep_token"}


def load(path: Path, said: Declared, *, control: Mapping[str, int]) -> PipelineTokenizer:
    """Return the tokenizer of a vocab.txt.

    said: what the files beside it declare. control: control tokens that no file names.
    Raises TokenizerError: a damaged file, or a tokenizer_class other than BERT's.
    """
    with reading(path):
        return of_text(paths.read_bytes(path, limit=MAX_FILE).decode(), said, control=control)


def of_text(text: str, said: Declared, *, control: Mapping[str, int]) -> PipelineTokenizer:
    """Return the tokenizer of a vocab.txt's content, a token a line; see `load`."""
    if said.class_name is not None and said.class_name not in _CLASSES:
        raise TokenizerError(
            f"tokenizer_config.json names the class {said.class_name[:80]!r}; of vocab.txt files only BERT's "
            "are known here"
        )
    lines = text.split("\n")
    words = [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    vocab = {word: number for number, word in enumerate(words)}
    names = dict(_NAMED) | {key: said.named[key] for key in _NAMED if key in said.named}
    names |= {end: said.named[key] for end, key in _ENDS.items() if key in said.named}
    added = tuple(said.added.values())
    ids = vocab | {token.content: token.id for token in added} | dict(control)
    return build(
        vocab,
        said.special(ids, control, add_bos=True, add_eos=True, defaults=names),
        unk=names["unk_token"],
        lowercase=said.flag("do_lower_case") is not False,
        strip_accents=said.flag("strip_accents"),
        chinese=said.flag("tokenize_chinese_chars") is not False,
        added=added,
    )


def build(
    vocab: dict[str, int],
    special: Special,
    *,
    unk: str,
    lowercase: bool,
    strip_accents: bool | None,
    chinese: bool = True,
    added: tuple[Added, ...] = (),
) -> PipelineTokenizer:
    """Return a WordPiece tokenizer. strip_accents: None for "when characters are lowered".

    Raises TokenizerError: the unknown token is not in the vocabulary, or ids are missing or there twice.
    """
    hf.check_vocab(vocab)
    if unk not in vocab:
        raise TokenizerError(f"the vocabulary has no {unk!r} for words that it cannot spell")
    options = {"max_input_chars_per_word": 200, "continuing_subword_prefix": "##"}
    pipeline = Pipeline(
        model=Model("WordPiece", vocab, unk=unk, options=options),
        steps=lambda continues: [stream.WordPiece("##", clean=True, first=not continues)],
        normalizer={
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": chinese,
            "strip_accents": strip_accents,
            "lowercase": lowercase,
        },
        pre_tokenizer={"type": "BertPreTokenizer"},
        added=(Added(vocab[unk], unk), *(token for token in added if token.content != unk)),
    )
    if special.add_bos and special.add_eos and special.bos is not None and special.eos is not None:
        special = replace(special, around=Around.bert(special.bos, special.eos))
    return PipelineTokenizer(pipeline, special, skip={vocab[unk]})

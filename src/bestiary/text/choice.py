"""Which of a folder's files holds its tokenizer."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import TokenizerError

# A vocabulary of BPE and its merges; the second pair are the names that OpenAI gave GPT-1's.
MERGES = {"vocab.json": "merges.txt", "encoder_bpe_40000.json": "vocab_40000.bpe"}
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf")  # the first part of a split file has the keys


def file(path: Path) -> Path:
    """Return the file that a folder's tokenizer is in; a file is itself. Raises TokenizerError for none."""
    return _of_folder(path) if path.is_dir() else path


def _of_folder(folder: Path) -> Path:
    names = (
        "tokenizer.json",
        "tokenizer.model",
        "spiece.model",
        "sentencepiece.model",
        "*.tiktoken",
        "*.model",
    )
    for name in names:
        if found := sorted(folder.glob(name)):
            return _only(found)
    for vocabulary, merges in MERGES.items():
        if (folder / vocabulary).exists() and (folder / merges).exists():
            return folder / vocabulary
    for name in ("vocab.txt", "bpe_simple_vocab_16e6.txt.gz"):
        if (folder / name).exists():
            return folder / name
    if found := [each for each in sorted(folder.glob("*.gguf")) if not _LATER_PART.search(each.name)]:
        return _only(found)
    raise TokenizerError(
        f"{folder}: no tokenizer in this folder: none of tokenizer.json, *.model, *.tiktoken, vocab.json "
        "with merges.txt, vocab.txt, *.gguf. Copy the files of the model's own tokenizer into it"
    )


def _only(found: list[Path]) -> Path:
    if len(found) == 1:
        return found[0]
    raise TokenizerError(f"{found[0].parent}: {found[0].name} or {found[1].name}? Name the one that is meant")

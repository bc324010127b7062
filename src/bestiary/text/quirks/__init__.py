"""What systems published of their tokenizers in code only, as data: no program of a stranger runs for it.

A folder of a model says much of its tokenizer, and not all: Yuan's code adds fifteen tokens to LLaMA's class,
ChatGLM2's puts [gMASK] and sop before a text, the first LLaMA conversions name wrong ids. Each .toml file
here holds what one system's code says, as `Quirks` explains, and `when` holds what makes it certain that a
folder is that system's: the SHA-256 of its vocabulary, the class that it names, its model_type.
`open_tokenizer` looks there by itself, and in the roster for the repository that a model was pulled from.
Where nothing is certain the entry has to be named: `open_tokenizer(path, quirks="dolly")`.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path

from ... import roster
from ...errors import RequestError
from ...files import paths
from ...hub import cache as cache_of_hub
from .. import choice, declared
from ..boundary import MAX_FILE, reading
from ..declared import Declared
from .entry import NONE, Characters, Icetk, Quirks, When, read

__all__ = ["NONE", "Characters", "Icetk", "Quirks", "When", "certain", "find", "named", "of", "wrong_ids"]


@cache
def named() -> Mapping[str, Quirks]:
    """Return every entry by its name, which is that of its file."""
    files = resources.files(__package__).iterdir()
    texts = {
        file.name.removesuffix(".toml"): file.read_text(encoding="utf-8")
        for file in files
        if file.name.endswith(".toml")
    }
    return {name: read(name, tomllib.loads(texts[name])) for name in sorted(texts)}


def find(name: str) -> Quirks:
    """Return the entry that goes by a name. Raises RequestError, with the nearest names, for none."""
    if name in named():
        return named()[name]
    near = difflib.get_close_matches(name, named(), n=3)
    meant = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(named())}"
    raise RequestError(f"no tokenizer's quirks go by the name {name[:80]!r}; {meant}")


def certain(file: Path, said: Declared) -> Quirks:
    """Return the entry that a tokenizer's file and its folder's word make certain, or NONE.

    Where two are, the one with more that has to hold. said: what the files beside it declare.
    Raises TokenizerError for a file that cannot be read.
    """

    @cache
    def data() -> bytes:
        with reading(file):
            return paths.read_bytes(file, limit=MAX_FILE)

    @cache
    def sha256() -> str:
        return hashlib.sha256(data()).hexdigest()

    def holds(when: When) -> bool:
        return (
            (when.class_name is None or (said.class_name or "") in when.class_name)
            and (when.model_type is None or said.model_type in when.model_type)
            and (when.origin is None or any(name in said.origins for name in when.origin))
            and (when.file is None or any(map(file.match, when.file)))
            and (when.contains is None or when.contains.encode() in data())
            and (when.sha256 is None or sha256() in when.sha256)
        )

    found = [quirks for quirks in named().values() if quirks.when is not None and holds(quirks.when)]
    return max(found, key=lambda quirks: quirks.when.conditions if quirks.when else 0, default=NONE)


def of(file: Path, said: Declared) -> Quirks:
    """Return what the roster names for the repository that a file was pulled from, or what is certain.

    Raises TokenizerError for a file that cannot be read.
    """
    return _pulled(file) or certain(file, said)


def wrong_ids(path: Path) -> Mapping[str, int]:
    """Return which of a folder's bos_token_id and eos_token_id are other tokens' ids, and those ids."""
    file = choice.file(path)
    return {} if file.suffix == ".gguf" else of(file, declared.read(file.parent)).wrong


def _pulled(file: Path) -> Quirks | None:
    repository = cache_of_hub.origin(file) or cache_of_hub.origin(file.parent)
    entry = None if repository is None else roster.find(repository)
    name = None if entry is None or entry.tokenizer is None else entry.tokenizer.quirks
    return None if name is None else find(name)

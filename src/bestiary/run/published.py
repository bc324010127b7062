"""What a model's files say of its answers: the tokens that end them, and those they must or must not have.

The names are transformers' (generation/configuration_utils.py). How to search (temperature, num_beams,
length_penalty, min_length, no_repeat_ngram_size) is no rule of the model: it is left to the request. The
command line takes what it samples and compares beams with from there, never the number of beams or a length.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files.paths import read_json
from ..load import Loaded
from ..text import quirks
from ..text.tokenizer import Tokenizer
from .params import show
from .vocabulary import Rules

_LIMIT = 1 << 20  # bytes of a generation_config.json; published ones have a few hundred

# Rules that are not computed: the values under which they rule nothing.
_IDLE: Mapping[str, tuple[object, ...]] = {
    "encoder_no_repeat_ngram_size": (0,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": (),
    "forced_decoder_ids": ([],),
    "sequence_bias": ({}, []),
}


def ends(tokenizer: Tokenizer, loaded: Loaded, path: Path) -> frozenset[int]:
    """Return every token that ends an answer: the tokenizer's EOS, and what the model's other files name.

    An id that is known to be another token's is not believed: the first LLaMA conversions name BOS as EOS.
    """
    metadata, key = loaded.checkpoint.metadata, "eos_token_id"
    named = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eom")]
    named += [loaded.config.get(key), (generation(path) or {}).get(key)]
    found = {i for value in named for i in _ids(key, value, path)}
    own = set() if tokenizer.eos is None else {tokenizer.eos}
    return frozenset(own | found - {quirks.wrong_ids(path).get(key)})


def rules(loaded: Loaded, path: Path) -> Rules:
    """Return what a model's generation_config.json, or else its config.json, says of all of its answers.

    Raises ConfigError for values that are no token ids, and for rules that are not computed here.
    """
    found = generation(path)
    said = loaded.config if found is None else found
    for key, idle in _IDLE.items():
        if said.get(key) is not None and said[key] not in idle:
            raise ConfigError(
                f"{path}: {key} = {show(said[key])} changes answers and is not computed here; remove the key "
                "to go without it"
            )

    def named(key: str) -> tuple[int, ...]:
        return _ids(key, said.get(key), path)

    first, banned = named("forced_bos_token_id"), said.get("bad_words_ids")
    if not first and loaded.config.get("force_bos_token_to_be_generated"):  # the first BARTs' spelling
        first = _ids("bos_token_id", loaded.config.get("bos_token_id"), path)
    sequences = [_ids("bad_words_ids", s, path) for s in (banned if isinstance(banned, list) else [])]
    return Rules(
        first[0] if first else None,
        named("forced_eos_token_id"),
        (*(s for s in sequences if s), *((i,) for i in named("suppress_tokens"))),
        named("begin_suppress_tokens"),
    )


def generation(path: Path) -> Mapping[str, Any] | None:
    """Return the generation_config.json of a model's folder; None without one, and for a .gguf file."""
    file = (path if path.is_dir() else path.parent) / "generation_config.json"
    return None if path.suffix == ".gguf" or not file.is_file() else read_json(file, limit=_LIMIT)


def _ids(key: str, value: object, path: Path) -> tuple[int, ...]:
    """Return a token id, or a list of them, or nothing, as a tuple."""
    ids: Iterable[object] = value if isinstance(value, list) else () if value is None else (value,)
    found: list[int] = []
    for i in ids:
        if i is None:
            continue
        if isinstance(i, bool) or not isinstance(i, int):
            raise ConfigError(f"{path}: {key} = {show(value)} should be a token id, or a list of them")
        found.append(i)
    return tuple(found)

"""Which files of a repository make a model: one kind of weights, the configs, the tokenizer; never code."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import HubError
from .cache import NOT_WEIGHTS, SHARD, WEIGHTS, is_later_shard
from .names import Name, is_inside

# Configs, tokenizers, templates, the licence, and the model card, which states it.
_BESIDE = re.compile(
    r"[\w.-]+\.(json|jinja|tiktoken|model|vocab)|(vocab|merges|added_tokens)[\w.-]*\.txt|"
    r"(README|LICEN[CS]E|NOTICE|USE_POLICY|COPYING)([\w-]*|[\w.-]*\.(md|txt|rst|pdf))",
    re.IGNORECASE,
)
# An index is of one kind of weights only; the others are left by a training run, and large.
_NOT_BESIDE = re.compile(r".*\.index\.json|(trainer_state|all_results|eval_results|optimizer.*)\.json")
# The names that every tool looks for; others of the same kind are the same weights in another precision.
_CANONICAL = re.compile(r"(model|pytorch_model)(-\d{5}-of-\d{5})?\.(safetensors|bin)")
_MOST_OFFERS = 40


def choose(sizes: Mapping[str, int], name: Name) -> list[str]:
    """Choose the files to download, given the bytes of each file of the repository by its path.

    Safetensors come before .bin before GGUF, in the top folder only. Raises HubError when there is nothing to
    choose, when only the user can choose, and for a path that leads out of the repository.
    """
    for path in sizes:
        if not is_inside(path):
            raise HubError(f"{name.repo} lists a file {path[:100]!r}, which points outside of it: refused")
    beside = [path for path in sizes if _BESIDE.fullmatch(path) and not _NOT_BESIDE.fullmatch(path)]
    if name.file is not None:
        if name.file not in sizes:
            raise HubError(f"{name.repo} has no file {name.file}; it has:{_offers(sizes, name) or ' none'}")
        return [*beside, *_parts(sizes, name.file)]
    top = [path for path in sizes if "/" not in path]
    for kind in WEIGHTS:
        weights = _weights(top, kind)
        firsts = [path for path in weights if not is_later_shard(path)]
        if kind == ".gguf" and len(firsts) > 1:
            raise HubError(f"{name.repo} holds {len(firsts)} GGUF models; name one:{_offers(sizes, name)}")
        if weights:
            return [*beside, *(path for path in top if path.endswith(f"{kind}.index.json")), *weights]
    raise HubError(
        f"{name.repo} holds no weights that can be read here: no file ends in {', '.join(WEIGHTS)}"
    )


def _weights(top: list[str], kind: str) -> list[str]:
    """The weight files of one kind: the canonical ones if there are any, else all that are weights at all."""
    found = [path for path in top if path.endswith(kind)]
    weights = [path for path in found if not NOT_WEIGHTS.fullmatch(path)]
    return [path for path in weights if _CANONICAL.fullmatch(path)] or weights


def _parts(sizes: Mapping[str, int], file: str) -> list[str]:
    """The file, or all shards of the set that it is one of."""
    if (shard := SHARD.fullmatch(file)) is None:
        return [file]
    mine = shard.group("stem", "of", "kind")
    found = (SHARD.fullmatch(path) for path in sizes)
    return [other.string for other in found if other and other.group("stem", "of", "kind") == mine]


def _offers(sizes: Mapping[str, int], name: Name) -> str:
    """The model files a user can name, one a line, each spelled as `pull` takes it."""
    files = [path for path in sorted(sizes) if path.endswith((".gguf", ".safetensors"))]
    firsts = [path for path in files if not is_later_shard(path)][:_MOST_OFFERS]
    lines = []
    for path in firsts:
        nbytes = sum(sizes[part] for part in _parts(sizes, path))
        lines.append(f"\n  {Name(name.repo, name.revision, path)}  {nbytes / 1e9:.2f} GB")
    return "".join(lines)

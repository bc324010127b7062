"""What an adapter does to a model's ends: a larger vocabulary, a head of its own, one that judges texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from ..errors import CheckpointError
from ..families.heads import DECODERS
from ..load import Loaded
from ..tensors import Match, Rules, Same, Use
from .peft import Adapter
from .weights import rows

ENDS = ("embed.weight", "head.weight")

# How config.json files spell the rows of the embedding.
_ROWS = ("vocab_size", "padded_vocab_size", "n_vocab")


def tied(model: nn.Module) -> bool:
    """Tell whether a model's embedding and head are one tensor."""
    embed, head = (getattr(getattr(model, path, None), "weight", None) for path in ("embed", "head"))
    return embed is not None and embed is head


def described(
    loaded: Loaded, brought: Sequence[Use], rules: Rules, *, were_tied: bool, adapter: Adapter
) -> tuple[Mapping[str, object], Match]:
    """Return the config and the names of a model's tensors, now that an adapter is on it.

    brought: the tensors that it brought whole. rules: published names. were_tied: whether the model's ends
    were one tensor. Raises CheckpointError for a vocabulary that grew in one place only.
    """
    config, found = dict(loaded.config), loaded.match
    head = next((use for use in brought if use.ours == ("head.weight",)), None)
    if head is not None and head.published[0].rpartition(".")[0] in DECODERS.rules:
        config |= _judging(loaded)
        return config, _with_head(found, head)
    if were_tied and not tied(loaded.model):
        config["tie_word_embeddings"] = False
        names = [path for path, ours in rules.items() if ours == "head" and path not in DECODERS.rules]
        if head is None and names:
            head = Use((f"{names[0]}.weight",), ("head.weight",), Same("head"))
        found = found if head is None else _with_head(found, head)
    return config | _grown(loaded, adapter), found


def _with_head(found: Match, head: Use) -> Match:
    others = tuple(use for use in found.uses if use.ours != ("head.weight",))
    return replace(found, uses=(*others, head))


def _judging(loaded: Loaded) -> dict[str, object]:
    """Return what a config.json says of a model whose head gives scores of a text."""
    named = loaded.config.get("architectures")
    first = str(named[0]) if isinstance(named, list) and named else "ForCausalLM"
    classes = rows(loaded.model.get_submodule("head"))
    return {
        "architectures": [first.replace("ForCausalLM", "ForSequenceClassification")],
        "num_labels": classes,
    }


def _grown(loaded: Loaded, adapter: Adapter) -> dict[str, object]:
    """Return the rows of the vocabulary, as the config spells them, where they are others than it says."""
    ends = [rows(getattr(loaded.model, path)) for path in ("embed", "head") if hasattr(loaded.model, path)]
    counts = {count for count in ends if count is not None}
    key = next((key for key in _ROWS if isinstance(loaded.config.get(key), int)), None)
    if not adapter.whole or key is None or not counts or counts == {loaded.config[key]}:
        return {}
    if len(counts) > 1:
        remedy = (
            "It should bring both; ask its author for the other, or attach it to the base it was made for"
        )
        reason = f"makes the embedding and the head differ: {' and '.join(map(str, ends))} rows"
        raise CheckpointError(reason, file=adapter.path, remedy=remedy)
    return {key: counts.pop()}

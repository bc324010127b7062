"""`bestiary show`: what a system is, from the roster, and a model, from its headers; no weight is read."""

from __future__ import annotations

import argparse
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import hub, roster
from ..errors import BestiaryError, HubError
from . import card
from .labels import in_chinese
from .listing import pulled
from .options import add_model, model_name
from .terminal import BOLD, amount, columns, paint, print_json, printable, size
from .texts import room

if TYPE_CHECKING:
    from ..files import Checkpoint
    from ..models import Model

# What is shown of an architecture, in the order in which people ask for it, under Llama's published names.
_KEYS = {
    "num_hidden_layers": "layers",
    "encoder_layers": "encoder layers",
    "decoder_layers": "decoder layers",
    "hidden_size": "width",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv heads",
    "head_dim": "head size",
    "intermediate_size": "feed-forward",
    "vocab_size": "vocabulary",
    "max_position_embeddings": "context",
    "sliding_window": "window",
    "rope_theta": "rope theta",
    "rope_scaling": "rope scaling",
    "tie_word_embeddings": "tied head",
}
_FLOAT32 = 4  # bytes: what keys and values are kept in on a CPU


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model(parser)
    parser.add_argument("--language", choices=("en", "zh"), help="of the card (default: the locale's)")
    parser.add_argument("--json", action="store_true", help="print it as JSON, sizes in bytes")


def run(options: argparse.Namespace) -> int:
    """Print the card of a system; of a model that is here, what its files say, and why it does not run."""
    name = model_name(options)
    entry = (
        None if Path(name).exists() and "/" in name else roster.find(re.split("[@:]", name, maxsplit=1)[0])
    )
    try:
        path = hub.resolve(name)
    except HubError:
        if entry is None:
            raise
        path = None
    here = pulled().get(entry.id, []) if entry else []
    told = {} if path is None else _facts(name, path)
    if options.json:
        print_json({**({"system": card.facts(entry, here)} if entry else {}), **told})
        return 0
    if entry is not None:
        card.print_card(entry, here, chinese=in_chinese(options.language), room=room())
    if path is not None:
        _print(told)
    return 0


def _facts(name: str, path: Path) -> dict[str, Any]:
    """What the files of a model say."""
    from ..files import open_checkpoint

    with open_checkpoint(path) as checkpoint:
        return {
            "name": name,
            "path": str(path),
            "licence": _licence(name, path, checkpoint),
            "weights": _weights(checkpoint),
            **_architecture(checkpoint),
            "text": _text(path),
        }


def _licence(name: str, path: Path, checkpoint: Checkpoint) -> str | None:
    entry = roster.find(name)
    stated = checkpoint.metadata.get("general.license")
    return (
        entry.licence.weights
        if entry
        else str(stated)[:100]
        if isinstance(stated, str)
        else hub.licence(path)
    )


def _weights(checkpoint: Checkpoint) -> dict[str, Any]:
    """The number of parameters, the bytes, and how many of each are in which type."""
    tensors, parameters, nbytes = Counter[str](), Counter[str](), Counter[str]()
    for entry in checkpoint.entries.values():
        tensors[entry.dtype] += 1
        parameters[entry.dtype] += math.prod(entry.shape)
        nbytes[entry.dtype] += entry.nbytes
    types = {
        dtype: {"tensors": tensors[dtype], "parameters": parameters[dtype], "nbytes": nbytes[dtype]}
        for dtype, _ in nbytes.most_common()
    }
    return {
        "kind": checkpoint.kind,
        "tensors": len(checkpoint.entries),
        "parameters": parameters.total(),
        "nbytes": checkpoint.nbytes,
        "types": types,
    }


def _architecture(checkpoint: Checkpoint) -> dict[str, Any]:
    """The shape of the model and the memory of its context; or the reason why it does not run here."""
    import torch

    from ..config import Config
    from ..describe import describe

    try:
        config, _, build = describe(checkpoint)
        with torch.device("meta"):
            model = build(Config(config))
    except BestiaryError as refused:
        return {"runs": False, "reason": str(refused), "architecture": _named(checkpoint), "memory": None}
    known = {**config, **_shape(model, config)}
    return {
        "runs": True,
        "architecture": {
            "model_type": config.get("model_type"),
            **{key: known[key] for key in _KEYS if known.get(key) is not None},
        },
        "memory": _memory(checkpoint, model, config),
    }


def _named(checkpoint: Checkpoint) -> dict[str, Any]:
    """What an unknown model calls itself."""
    said = checkpoint.metadata.get("general.architecture")
    return {"model_type": said} if isinstance(said, str) else {}


def _shape(model: Model, config: Mapping[str, object]) -> dict[str, object]:
    """What the built model says of itself, whatever its family's config calls it."""
    from ..bricks import Attention
    from ..describe import context

    attn = next(module for module in model.modules() if isinstance(module, Attention))
    queries, keys = attn.q.out_features // attn.head_dim, attn.k.out_features // attn.head_dim
    return {
        **_layers(model),
        "hidden_size": attn.q.in_features,
        "num_attention_heads": queries,
        "num_key_value_heads": keys,
        "head_dim": attn.head_dim,
        "max_position_embeddings": context(config),
    }


def _layers(model: Model) -> dict[str, object]:
    """How many layers are computed, which may share their weights, as ALBERT's do; of two stacks, in each."""
    from ..models import EncoderDecoder

    if not isinstance(model, EncoderDecoder):
        return {"num_hidden_layers": len(model.layers), "encoder_layers": None, "decoder_layers": None}
    stacks = {"encoder_layers": len(model.encoder.layers), "decoder_layers": len(model.decoder.layers)}
    return {"num_hidden_layers": None, **stacks}


def _memory(checkpoint: Checkpoint, model: Model, config: Mapping[str, object]) -> dict[str, Any]:
    """Bytes of the weights, of one token's keys and values, and of a full context of them."""
    from ..describe import context
    from ..models import Encoder

    # An encoder reads a text at once and keeps nothing of it.
    token = 0 if isinstance(model, Encoder) else sum(slot.channels for slot in model.slots()) * _FLOAT32
    full = None if (length := context(config)) is None else token * length
    return {"weights": checkpoint.nbytes, "kv_token": token, "kv_context": full}


def _text(path: Path) -> dict[str, Any]:
    """The tokenizer and the chat template, or why there is none."""
    from ..text.templates import open_template
    from ..text.tokenizer import open_tokenizer

    try:
        tokenizer = open_tokenizer(path)
    except BestiaryError as refused:
        return {"tokenizer": None, "reason": str(refused)}
    found = {
        "tokenizer": type(tokenizer).__name__,
        "tokens": tokenizer.vocab_size,
        "control_tokens": len(tokenizer.control),
        "adds_bos": tokenizer.add_bos,
    }
    try:
        template = open_template(path, tokenizer)
    except BestiaryError as refused:
        return {**found, "template": None, "reason": str(refused)}
    return {**found, "template": template.name if template is not None else None}


def _print(facts: Mapping[str, Any]) -> None:
    name, path = printable(facts["name"]), printable(facts["path"])
    print(paint(path, BOLD) if name == path else f"{paint(name, BOLD)} {path}")
    rows = [*_weight_rows(facts), *_architecture_rows(facts), *_text_rows(facts["text"])]
    for line in columns([(key, printable(value).replace("\n", " ")) for key, value in rows]):
        print(f"  {line}")


def _weight_rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    weights = facts["weights"]
    yield "licence", facts["licence"] or "none stated"
    yield (
        "weights",
        f"{amount(weights['parameters'])} parameters, {size(weights['nbytes'])}, {weights['kind']}",
    )
    cells = [
        (dtype, f"{of['tensors']} tensors", f"{amount(of['parameters'])} parameters", size(of["nbytes"]))
        for dtype, of in weights["types"].items()
    ]
    for line in columns(cells, right=frozenset({1, 2, 3})):
        yield "", line


def _architecture_rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "runs here", "yes" if facts["runs"] else f"no: {facts['reason']}"
    for key, value in facts["architecture"].items():
        yield _KEYS.get(key, "architecture"), str(value)
    if (memory := facts["memory"]) is not None:
        token = f"{size(memory['kv_token'])} a token in float32"
        whole = f", {size(memory['kv_context'])} for the whole context" if memory["kv_context"] else ""
        kept = f"; keys and values {token}{whole}" if memory["kv_token"] else ""
        yield "memory", f"{size(memory['weights'])} of weights{kept}"


def _text_rows(text: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if text["tokenizer"] is None:
        yield "tokenizer", f"none: {text['reason']}"
        return
    bos = "adds BOS" if text["adds_bos"] else "no BOS"
    about = f"{text['tokens']:,} tokens, {text['control_tokens']} of them control tokens, {bos}"
    yield "tokenizer", f"{text['tokenizer']}: {about}"
    missing = f"none: {text['reason']}" if "reason" in text else "none: it is no chat model"
    yield "chat template", text["template"] or missing

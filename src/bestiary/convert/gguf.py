"""A loaded model as a GGUF file: the architecture that computes the same, its metadata, its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ..config import Config
from ..describe import empty
from ..errors import BestiaryError, RequestError
from ..families import gguf
from ..families.gguf_architectures import ARCHITECTURES, Architecture
from ..files.writing import Planned
from ..load import Loaded
from ..models import Decoder
from ..tensors import Use
from . import types
from .facts import facts
from .likeness import changes, differences, factors, gelu
from .names import uses
from .weights import Weights, names, planned

# Metadata of a source that are about the model, not about its arithmetic, and go with it.
_ABOUT = ("general.name", "general.author", "general.license", "general.url", "general.description")
_QUANTISATION_VERSION = 2  # GGML_QNT_VERSION


@dataclass(frozen=True)
class Plan:
    """What a GGUF file will hold. fallen: tensors that have another type than was asked for -> that type."""

    metadata: Mapping[str, object]
    tensors: tuple[Planned, ...]
    fallen: Mapping[str, str]
    notes: tuple[str, ...]


def plan(loaded: Loaded, *, kind: str | None, name: str) -> Plan:
    """Plan the GGUF file of a model, its tokenizer aside.

    kind: one of types.TYPES, None for each tensor's own. name: the model's. Raises RequestError for a model
    that no architecture of llama.cpp computes.
    """
    if not isinstance(loaded.model, Decoder) or loaded.scores:
        what = "a model with a head of its own" if loaded.scores else f"an {type(loaded.model).__name__}"
        raise RequestError(
            f"{loaded.checkpoint.path} holds {what}, and GGUF is written of decoders alone"
            "\nTry: --format safetensors"
        )
    row, said, found, target = _row(loaded, loaded.model)
    weights = Weights(loaded, changes(loaded.model, target))
    tensors, fallen = _tensors(loaded.model, found, weights, kind)
    about = {key: loaded.checkpoint.metadata[key] for key in _ABOUT if key in loaded.checkpoint.metadata}
    metadata: dict[str, object] = {"general.architecture": row.kind, "general.name": name, **about}
    if kind is not None:
        metadata["general.file_type"] = types.FILE_TYPES[kind]
    if any(tensor.dtype.startswith("Q") for tensor in tensors):
        metadata["general.quantization_version"] = _QUANTISATION_VERSION
    metadata |= {f"{row.kind}.{key}": value for key, value in said.items()}
    return Plan(metadata, tuple(tensors), fallen, tuple(_notes(row, said, loaded.model, target)))


def config(loaded: Loaded) -> dict[str, object]:
    """Return the config.json that GGUF's metadata of a model amount to.

    Raises RequestError for a model that no architecture computes.
    """
    if not isinstance(loaded.model, Decoder):
        raise RequestError(f"{loaded.checkpoint.path} is no decoder, and has no config.json to be made of it")
    row, said, found, _ = _row(loaded, loaded.model)
    metadata = {"general.architecture": row.kind} | {
        f"{row.kind}.{key}": value for key, value in said.items()
    }
    there = frozenset(name for use in found for name in use.published)
    return gguf.described(metadata, there, _factors(loaded.model))[0]


def _row(loaded: Loaded, model: Decoder) -> tuple[Architecture, dict[str, object], list[Use], nn.Module]:
    """Return the architecture that computes what a model computes, its metadata, its names, and its
    bricks."""
    known = facts(model, context=loaded.context, config=loaded.config)
    own = names(model)
    kind, why = loaded.config.get("model_type"), ""
    rows = sorted(ARCHITECTURES, key=lambda row: kind not in row.model_types)
    for index, row in enumerate(rows):
        said = {key: value for key, value in known.items() if key in row.takes}
        try:
            found = uses(gguf.rules(row, {"num_experts": known.get("expert_count", 0)}), own)
            target = _read_back(row, said, found, model)
            wrong = next(differences(model, target), None)
        except BestiaryError as error:
            wrong = str(error)
        if wrong is None:
            return row, said, found, target
        why = f"{row.kind}: {wrong}" if index == 0 else why
    if kind not in rows[0].model_types:
        why = f"none here is for model_type = {kind!r}"
    raise RequestError(
        f"{loaded.checkpoint.path}: no architecture of llama.cpp computes this model: {why}"
        "\nTry: --format safetensors"
    )


def _read_back(row: Architecture, said: Mapping[str, object], found: list[Use], model: Decoder) -> nn.Module:
    """Return the bricks, on `meta`, that the file will be read as."""
    metadata = {"general.architecture": row.kind} | {
        f"{row.kind}.{key}": value for key, value in said.items()
    }
    there = frozenset(name for use in found for name in use.published)
    if gguf.architecture(metadata, there) is not row:
        raise RequestError("would be read as another architecture")
    config, _, build = gguf.described(metadata, there, _factors(model))
    return empty(Config(config).raw, build)


def _factors(model: Decoder) -> list[float] | None:
    position = getattr(model.layers[0].attn, "position", None)
    return factors(position) if position is not None and hasattr(position, "frequencies") else None


def _tensors(
    model: Decoder, found: list[Use], weights: Weights, kind: str | None
) -> tuple[list[Planned], dict[str, str]]:
    fallen: dict[str, str] = {}
    tensors = list(_rope_freqs(model))
    heads = model.slots()[0].heads
    there = {name for use in found for name in use.published}
    ends = "output.weight" if "output.weight" in there else "token_embd.weight"
    for use in found:
        (drawn,) = planned(use, weights, dtypes=dict.fromkeys(use.published, "F32"), heads=heads)
        if kind is None:
            choice = _as_stored(use, drawn, weights)
        else:
            choice = types.choose(kind, drawn.name, drawn.shape, layers=len(model.layers), ends=ends)
        if choice.instead_of is not None:
            fallen[drawn.name] = choice.instead_of
        tensors += planned(use, weights, dtypes={drawn.name: choice.dtype}, heads=heads)
    return tensors, fallen


def _as_stored(use: Use, drawn: Planned, weights: Weights) -> types.Choice:
    """Return the type that the source has a tensor in; of what GGUF has no type for, float16."""
    stored = {weights.stored(name) for name in use.ours}
    usual = types.choose("f16", drawn.name, drawn.shape, layers=1, ends="")
    if usual.dtype == "F32" or len(stored) != 1 or None in stored:
        return usual
    return types.Choice(str(stored.pop()))


def _rope_freqs(model: Decoder) -> Iterator[Planned]:
    if (values := _factors(model)) is not None:
        yield Planned("rope_freqs.weight", (len(values),), "F32", lambda: torch.tensor(values))


def _notes(
    row: Architecture, said: Mapping[str, object], model: nn.Module, target: nn.Module
) -> Iterator[str]:
    """Yield what is computed otherwise by who reads the file."""
    if gelu(model) != gelu(target):
        yield f"{row.kind} has no key for which gelu is meant, erf's or tanh's: logits differ by some 1e-3"
    window = said.get("attention.sliding_window")
    if window is not None:
        yield (
            f"each token sees {window} before it, which the file says and llama.cpp does not read for "
            f"{row.kind}: beyond {window} tokens it computes otherwise"
        )

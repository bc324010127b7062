"""What a checkpoint is: its published config, its family's names for tensors, and what builds its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from . import families
from .config import Config
from .errors import CheckpointError
from .families import easylm, gguf, glm130b, grok, tencent_pretrain, transformer
from .families.heads import DECODERS, Build, Heads, headed
from .files import Checkpoint
from .files.paths import read_json
from .models import Model
from .quant import repository
from .tensors import Rules

# Keys that tell of integer weights. A file without any holds what was made of them, whatever its config says.
WIDENED = frozenset({"quantization_bit", "quantization_bit_width", "quantization_embeddings"})
# Kinds of checkpoints that have one model each, which was released without a config.json.
RELEASED: Mapping[str, Mapping[str, object]] = {"jax": grok.RELEASED, "sat": glm130b.RELEASED}

# How config.json files spell the tokens that a model was published for; the first that is there counts.
CONTEXT_KEYS = (
    "max_sequence_length",
    "max_position_embeddings",
    "model_max_length",
    "seq_length",
    "max_seq_len",
    "max_seq_length",
    "n_positions",
    "n_ctx",
    "max_target_positions",
)


def context(config: Mapping[str, object]) -> int | None:
    """Return how many tokens a config.json says that its model was published for; None where it does not."""
    values = (config.get(key) for key in CONTEXT_KEYS)
    return next((value for value in values if isinstance(value, int)), None)


def describe(
    checkpoint: Checkpoint, changes: Mapping[str, object] | None = None
) -> tuple[Mapping[str, object], Rules, Build]:
    """Return a checkpoint's published config, its family's tensor rules, and what builds its model.

    changes: keys to set over the published ones. Raises ConfigError for a family that is not known here.
    """
    if checkpoint.kind == "gguf":
        names, factors = frozenset(checkpoint.entries), _factors(checkpoint)
        config, rules, build = gguf.described(checkpoint.metadata, names, factors)
        return {**config, **(changes or {})}, rules, build
    config = {**_read_config(checkpoint), **(changes or {})}
    if not any(entry.dtype == "I8" for entry in checkpoint.entries.values()):
        config = {key: value for key, value in config.items() if key not in WIDENED}
    config = repository.said(config, checkpoint)
    module = families.family(Config(config))
    config |= _sizes(getattr(module, "SIZES", {}), config, checkpoint)
    rules = module.TENSORS(Config(config)) if callable(module.TENSORS) else module.TENSORS
    entries, said = checkpoint.entries, config.get("architectures")
    rules, build = headed(_heads(module), rules, module.build, entries, said)
    if config.get(repository.KEY) is not None:
        rules, build = repository.packed(rules, build, entries)
    return config, rules, build


def empty(config: Mapping[str, object], build: Build | None = None) -> Model:
    """Build the model that a config.json describes on `meta`: every module and shape, and no memory.

    build: what composes it; unless told, its family, with the head that its architecture is named for.
    Raises ConfigError for a config that is not computed as written.
    """
    c = Config(config)
    if build is None:
        module = families.family(c)
        build = headed(_heads(module), {}, module.build, (), config.get("architectures"))[1]
        if c.get(repository.KEY, None) is not None:
            build = repository.packed({}, build, {})[1]
    with torch.device("meta"), _Uninitialised():
        model = build(c)
    c.finish()
    return model


def _heads(module: families.Family) -> Heads:
    heads: Heads = getattr(module, "HEADS", DECODERS)
    return heads


def _sizes(
    counted: Mapping[str, str], config: Mapping[str, object], checkpoint: Checkpoint
) -> dict[str, object]:
    """Return the sizes that a config.json leaves to its tensors' rows: the key is not there, or -1."""
    missing = {key: checkpoint.entries.get(name) for key, name in counted.items()}
    return {
        key: entry.shape[0]
        for key, entry in missing.items()
        if entry is not None and entry.shape and config.get(key) in (None, -1)
    }


def _factors(checkpoint: Checkpoint) -> list[float] | None:
    """Return the rotary factors that a GGUF file holds as a tensor."""
    freqs = checkpoint.entries.get("rope_freqs.weight")
    if freqs is not None and freqs.dtype != "F32":
        raise CheckpointError(
            f"holds {freqs.dtype} where F32 factors should be",
            file=freqs.file,
            tensor=freqs.name,
            offset=freqs.offset,
            remedy="Download the file again, or convert it with today's llama.cpp",
        )
    return None if freqs is None else freqs.read().tolist()


def _read_config(checkpoint: Checkpoint) -> Mapping[str, object]:
    """Read the config.json of a checkpoint's folder; of fairseq's, the arguments that lie in the file itself.

    One of JAX arrays or of ranks may have it beside the folder. Grok-1, GLM-130B, koala and Linly, which were
    released so, need none.
    """
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    if checkpoint.kind in (*RELEASED, "megatron"):
        for place in (folder, folder.parent):
            if (place / "config.json").is_file():
                return read_json(place / "config.json")
        if checkpoint.kind in RELEASED:
            return RELEASED[checkpoint.kind]
    # Meta's and Mistral's own files have theirs beside a config.json for others, or alone.
    own, shared = folder / "params.json", folder / "config.json"
    shapes = {name: entry.shape for name, entry in checkpoint.entries.items()}
    if checkpoint.kind == "easylm":
        said = read_json(shared) if shared.exists() else easylm.published(shapes)
        return {**said, "model_type": "easylm"}
    if not shared.exists() and not own.exists():
        arguments = transformer.published(checkpoint.metadata, shapes) or tencent_pretrain.published(shapes)
        if arguments is not None:
            return arguments
    theirs = "tok_embeddings.weight" in checkpoint.entries or not shared.exists()
    return read_json(own if theirs and own.exists() else shared)


class _Uninitialised(TorchFunctionMode):
    """Leave new parameters as they are: they are on `meta`, and about to be replaced.

    Drawing random numbers on `meta` would import torch's symbolic shapes, and with them sympy: a second and
    75 MB, of the 1.4 s and 300 MB that opening the default model takes.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))

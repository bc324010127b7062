"""A checkpoint under our names, tensor by tensor: what is added to another, or told in another's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..adapters.pairs import halves, interleaved, neighbours
from ..config import Config
from ..describe import describe, empty
from ..errors import CheckpointError
from ..families import llama_native, mixtral, tencent_pretrain
from ..files import Checkpoint, Entry, open_checkpoint
from ..formats import FORMATS
from ..models import Model
from ..tensors import Match, Rules, Use, match

FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in FLOATS.items()}


@dataclass(frozen=True)
class Side:
    """A checkpoint, the model that its config describes (on `meta`), and how one is the other.

    files: where its config and tokenizer lie.
    """

    checkpoint: Checkpoint
    config: Mapping[str, object]
    model: Model
    match: Match

    @classmethod
    def open(cls, path: Path) -> Side:
        """Open a checkpoint, of which only headers are read. Raises as load does."""
        checkpoint = open_checkpoint(path)
        config, rules, build = describe(checkpoint)
        model = empty(config, build)
        found = match(rules, checkpoint.entries, identities(model))
        found.check(checkpoint.path)
        return cls(checkpoint, config, model, found)

    @property
    def folder(self) -> Path:
        """Where its config and its tokenizer lie."""
        path = self.checkpoint.path
        return path if path.is_dir() else path.parent

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each of our tensors that the checkpoint holds, by name."""
        held = _tensors(self.model)
        return {ours: tuple(held[ours].shape) for use in self.match.uses for ours in use.ours}

    def entries(self, use: Use) -> list[Entry]:
        """Return what holds a use's tensors in the file."""
        return [self.checkpoint.entries[name] for name in use.published]

    def read(self, use: Use, shapes: Mapping[str, tuple[int, ...]]) -> list[Tensor]:
        """Return our tensors of a use, in the file's type; packed ones as the numbers they stand for."""
        pieces = [_numbers(entry) for entry in self.entries(use)]
        return use.split(pieces, self.model, [shapes[ours] for ours in use.ours])

    def check_floats(self, what: str) -> None:
        """Raise CheckpointError for weights that are packed: integers cannot be added to."""
        for entry in self.checkpoint.entries.values():
            if entry.dtype not in FLOATS and entry.name not in self.match.dropped:
                reason = f"holds {entry.dtype}, and {what} has to be in 16 or 32 bits"
                raise CheckpointError(
                    reason, file=entry.file, tensor=entry.name, remedy="Take the version that is not packed"
                )


def reordered(tensor: Tensor, name: str, *, source: Model, target: Model) -> Tensor:
    """Return one of a model's tensors with its rows in the order of another's rotary pairs."""
    if interleaved(source) == interleaved(target):
        return tensor
    change = neighbours if interleaved(target) else halves
    return change(tensor, target, name)


def port(side: Side) -> tuple[Mapping[str, object], Rules] | None:
    """Return the config and the names that Hugging Face's port of a checkpoint has; None where it is one.

    Meta's and Mistral's own files, GGUF, EasyLM's and TencentPretrain's have others. Other forms that are
    read here have none.
    """
    if side.config.get("model_type") == "easylm":
        return {**side.config, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}, mixtral.TENSORS
    if "heads_num" in side.config:
        told = tencent_pretrain.spelled(Config(side.config))
        return {"architectures": ["LlamaForCausalLM"], **told}, mixtral.TENSORS
    if side.checkpoint.kind == "gguf":
        kept = {key: value for key, value in side.config.items() if value is not None}
        return {**kept, "architectures": ["LlamaForCausalLM"]}, mixtral.TENSORS
    if not {"n_heads", "n_layers"} <= side.config.keys():
        return None
    told = llama_native.spelled(Config(side.config))
    named = {"llama": "Llama", "mistral": "Mistral", "mixtral": "Mixtral"}[str(told["model_type"])]
    return {"architectures": [f"{named}ForCausalLM"], **told}, mixtral.TENSORS


def uses(rules: Rules, model: Model) -> tuple[Use, ...]:
    """Return how a table of names holds a model's tensors: each under the first name that it has there."""
    wanted = identities(model)
    named = match(rules, [], wanted).missing
    return match(rules, named, wanted).uses


def _tensors(model: Model) -> dict[str, Tensor]:
    parameters: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    return {**parameters, **dict(model.named_buffers(remove_duplicate=False))}


def identities(model: Model) -> dict[str, object]:
    """Return a model's tensors by name, tied ones as one: what `match` wants."""
    return {name: id(tensor) for name, tensor in _tensors(model).items()}


def _numbers(entry: Entry) -> Tensor:
    tensor = entry.read()
    packed = entry.dtype in FORMATS and entry.dtype not in FLOATS
    if not packed:
        return tensor
    numbers = FORMATS[entry.dtype].decode(tensor).half()
    if not numbers.isfinite().all():
        raise CheckpointError(
            "holds numbers that float16 does not reach",
            file=entry.file,
            tensor=entry.name,
            remedy="Write it with: bestiary convert --type bf16",
        )
    return numbers

"""A loaded model as Hugging Face publishes models: config.json, safetensors in shards, the tokenizer's
files."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..config import Config
from ..describe import empty
from ..errors import CheckpointError, RequestError
from ..families import family
from ..files import safetensors
from ..files.writing import Planned, Progress, check_room, write_json
from ..load import FLOATS, Loaded
from ..quant import repository
from ..tensors import Use, some
from . import gguf
from .likeness import changes, differences
from .names import uses
from .weights import Weights, names, planned

SHARD = 5_000_000_000  # bytes, as the hub's own files
# Kinds of files whose names are those of Hugging Face's classes; the others' are their authors' own.
_PUBLISHED = ("safetensors", "bin")
# What a tokenizer and its prompts are, beside the weights.
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "spiece.model",
    "sentencepiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
_BESIDE = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "chat_template.json", "generation_config.json", "preprocessor_config.json",
)  # fmt: skip
# Weights, and what changes how they are read.
_OTHERS = re.compile(
    r".*\.(safetensors|bin|pt|pth|ckpt|gguf|index\.json)|(adapter_config|quantize_config|quant_config)\.json|"
    r"params\.json|adopted\.json"
)
# Keys that tell of packed weights.
_PACKED = frozenset({repository.KEY, "quantization_bit", "quantization_bit_width"})
_PATTERNS = ("*.model", "*.tiktoken", "LICENSE*", "README.md", "USE_POLICY*", "NOTICE*")


@dataclass(frozen=True)
class Plan:
    """What a folder will hold. config: its config.json. copied: files that go as they are."""

    config: Mapping[str, object]
    tensors: tuple[Planned, ...]
    copied: tuple[Path, ...]
    notes: tuple[str, ...]


def plan(loaded: Loaded, *, kind: str | None, tokenizer: bool) -> Plan:
    """Plan the folder of a model.

    kind: f32, f16 or bf16, None for each tensor's own. Raises RequestError for packed weights without a kind,
    and for models whose family has no such form.
    """
    config, found, weights, heads = _named(loaded)
    tensors = []
    for use in found:
        dtypes = dict.fromkeys(use.published, _dtype(use, weights, kind, loaded))
        tensors += planned(use, weights, dtypes=dtypes, heads=heads(use))
    if kind is not None:
        said = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}[kind]
        config = {**config, ("dtype" if "dtype" in config else "torch_dtype"): said}
    folder = loaded.checkpoint.path if loaded.checkpoint.path.is_dir() else loaded.checkpoint.path.parent
    copied, notes = _beside(loaded, folder) if tokenizer else ((), ())
    return Plan(config, tuple(tensors), tuple(copied), tuple(notes))


def _named(
    loaded: Loaded,
) -> tuple[Mapping[str, object], list[Use], Weights, Callable[[Use], int]]:
    """Return a model's config.json, what its tensors are called there, and the weights in that form."""
    model, config = loaded.model, dict(loaded.config)
    whole = not any(hasattr(part, "dequantize") and not hasattr(part, "fmt") for part in model.modules())
    native = loaded.checkpoint.kind in _PUBLISHED and "model_type" in config
    if native and whole:
        return config, list(loaded.match.uses), Weights(loaded, {}), lambda use: _heads(loaded, use)
    config = {key: value for key, value in config.items() if key not in _PACKED}
    if not native:
        config = _translated(loaded)
    module = family(Config(config))
    target = empty(config)
    drop_empty_biases(model, target)
    if wrong := next(differences(model, target), None):
        raise RequestError(f"{loaded.checkpoint.path} computes what no config.json says: {wrong}")
    rules = module.TENSORS(Config(config)) if callable(module.TENSORS) else module.TENSORS
    weights = Weights(loaded, changes(model, target))
    return config, uses(rules, names(model)), weights, lambda use: _heads(loaded, use)


def _translated(loaded: Loaded) -> dict[str, object]:
    """Return the config.json of what has another description: read off the bricks, as for GGUF.

    What no architecture of GGUF computes keeps the one that its family reads.
    """
    if loaded.checkpoint.kind == "gguf":
        return dict(loaded.config)
    try:
        return gguf.config(loaded)
    except RequestError:
        return {key: value for key, value in loaded.config.items() if key not in _PACKED}


def drop_empty_biases(model: nn.Module, target: nn.Module) -> None:
    """Take off biases of zeros where the target has none: packers write one for every layer."""
    there = dict(model.named_modules())
    for path, theirs in target.named_modules():
        ours: Any = there.get(path)
        bias = getattr(ours, "bias", None)
        if isinstance(bias, Tensor) and getattr(theirs, "bias", None) is None and not bias.any():
            ours.bias = None


def _heads(loaded: Loaded, use: Use) -> int:
    owner: Any = loaded.model.get_submodule(use.ours[0].rpartition(".")[0].rpartition(".")[0])
    return int(owner.slot.heads) if hasattr(owner, "slot") else 1


def _dtype(use: Use, weights: Weights, kind: str | None, loaded: Loaded) -> str:
    stored = weights.stored(use.ours[0])
    if (whole := weights.integers(use.ours[0])) is not None:
        return whole  # tables of positions and the like
    if kind is not None:
        return kind.upper()
    if stored not in FLOATS:
        raise RequestError(
            f"{loaded.checkpoint.path} holds weights packed as {stored or 'integers'}, "
            "which safetensors has no type for"
            "\nTry: --type f16, which writes them as numbers: what packing lost stays lost"
        )
    return stored


def _beside(loaded: Loaded, folder: Path) -> tuple[Sequence[Path], Sequence[str]]:
    """Return the files of the tokenizer, and what is to be said of them."""
    if loaded.checkpoint.kind == "gguf":
        notes = ["the tokenizer of a GGUF file is not written: copy that of the model it was made from"]
        scaling = loaded.config.get("rope_scaling")
        if isinstance(scaling, dict) and scaling.get("rope_type") == "factors":
            notes.append("its rotary factors are numbers, which only bestiary reads in a config.json")
        return (), notes
    found = {folder / name for name in (*_TOKENIZER_FILES, *_BESIDE) if (folder / name).is_file()}
    found |= {path for pattern in _PATTERNS for path in folder.glob(pattern) if path.is_file()}
    spoken = any(path.name in _TOKENIZER_FILES or path.suffix in (".model", ".tiktoken") for path in found)
    return sorted(found), () if spoken else ("there is no tokenizer beside the weights to copy",)


def check_free(folder: Path, plan: Plan) -> None:
    """Raise RequestError for a folder with weights that would be read in place of new ones, or with them."""
    names = _names(len(_shards(plan.tensors)))
    there = folder.iterdir() if folder.is_dir() else ()
    others = [path.name for path in there if _OTHERS.fullmatch(path.name) and path.name not in names]
    if others:
        raise RequestError(
            f"{folder} holds other weights or what is said of them ({some(sorted(others))}), which would be "
            "read for the model that is written\nTry: another folder, or remove them first"
        )


def write(folder: Path, plan: Plan, *, progress: Progress | None = None) -> list[Path]:
    """Write a planned folder and return its files.

    They are written to a folder in it, and take their places when all are whole, config.json last; on failure
    what was there before stays. Raises CheckpointError when the disk refuses.
    """
    shards = _shards(plan.tensors)
    new = not folder.exists()
    temporary = folder / f".{secrets.token_hex(4)}.tmp"
    try:
        temporary.mkdir(parents=True)
        try:
            made = _fill(temporary, plan, shards, progress)
            return [file.replace(folder / file.name) for file in made]
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if new and not any(folder.iterdir()):
                folder.rmdir()
    except OSError as error:
        remedy = "Make room or choose another folder"
        raise CheckpointError(f"cannot be written: {error.strerror}", file=folder, remedy=remedy) from error


def _fill(
    folder: Path, plan: Plan, shards: Sequence[Sequence[Planned]], progress: Progress | None
) -> list[Path]:
    """Write a plan's files to a new folder: weights first, so that a config.json is of a whole model."""
    total, done = sum(tensor.nbytes for tensor in plan.tensors), 0
    check_room(folder, total)

    def written(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if progress is not None:
            progress(done, total)

    names = _names(len(shards))
    where: dict[str, str] = {}
    for name, shard in zip(names, shards, strict=False):
        where |= {tensor.name: name for tensor in shard}
        safetensors.write_planned(folder / name, shard, {"format": "pt"}, written=written)
    if len(shards) > 1:
        write_json(folder / names[-1], {"metadata": {"total_size": total}, "weight_map": where})
    for path in plan.copied:
        shutil.copyfile(path, folder / path.name)
    write_json(folder / "config.json", plan.config)
    return [folder / name for name in (*names, *(path.name for path in plan.copied), "config.json")]


def _names(shards: int) -> list[str]:
    """Return what the files of weights are called, the index last."""
    if shards == 1:
        return ["model.safetensors"]
    many = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
    return [*many, "model.safetensors.index.json"]


def _shards(tensors: Sequence[Planned]) -> list[list[Planned]]:
    shards: list[list[Planned]] = [[]]
    held = 0
    for tensor in tensors:
        if shards[-1] and held + tensor.nbytes > SHARD:
            shards.append([])
            held = 0
        shards[-1].append(tensor)
        held += tensor.nbytes
    return shards

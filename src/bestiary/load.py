"""Checkpoints to models and back: config, bricks on `meta`, packed modules for packed files, tensors."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import families
from .config import Config
from .errors import CheckpointError, RequestError
from .families import gguf
from .files import Checkpoint, Entry, open_checkpoint
from .files.paths import read_json
from .files.safetensors import write
from .formats import FORMATS
from .models import Decoder
from .quant.linear import PackedEmbedding, PackedLinear
from .tensors import Match, Rules, match, published_name, some

# Bytes done, bytes in all: called as the weights are taken in.
Progress = Callable[[int, int], None]

FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Loaded:
    """A model, and what it was made from.

    config: the published config.json, as it was read (or as a GGUF file's metadata amounts to). dtype: what
    it computes in. context: the tokens it was published for.
    """

    model: Decoder
    config: Mapping[str, object]
    checkpoint: Checkpoint
    rules: Rules
    dtype: torch.dtype

    @property
    def context(self) -> int:
        for key in ("max_sequence_length", "max_position_embeddings"):
            if isinstance(value := self.config.get(key), int):
                return value
        return 2048


def load(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
    check_finite: bool = True,
    progress: Progress | None = None,
) -> Loaded:
    """Load a model folder or file.

    dtype: what the model computes in. "auto" is float32 on a CPU and the file's own type on a GPU. Weights
    that a file holds in fewer bits stay packed as they are and are widened, exactly, as they are used.
    check_finite: look at every weight once and warn, by name, of NaN and infinity (0.4 s a GB).
    Raises ConfigError for a config that is not computed as written, CheckpointError for weights that do not
    fit.
    """
    device = torch.device(device)
    checkpoint = open_checkpoint(path)
    config, rules, build = describe(checkpoint)
    c = Config(config)
    layers = config.get("num_hidden_layers")
    if isinstance(layers, int) and layers > len(checkpoint.entries):
        raise CheckpointError(
            f"the config asks for {layers} layers and there are only {len(checkpoint.entries)} tensors",
            file=checkpoint.path,
            remedy="Download the model again, with all its weight files",
        )
    with torch.device("meta"), _Uninitialised():
        model = build(c)
    c.finish()
    if check_finite and (broken := checkpoint.check_finite()):
        warnings.warn(
            f"{checkpoint.path}: {len(broken)} tensor(s) hold NaN or infinity: {some(broken)}. "
            "Compare the file with its published hash",
            stacklevel=2,
        )
    kind = _compute_dtype(dtype, device, checkpoint)
    _fill(model, checkpoint, _match(model, rules, checkpoint), kind, device, progress)
    return Loaded(model.eval(), config, checkpoint, rules, kind)


def describe(checkpoint: Checkpoint) -> tuple[Mapping[str, object], Rules, Callable[[Config], Decoder]]:
    """Return a checkpoint's published config, its family's tensor rules, and what builds its model."""
    if checkpoint.kind == "gguf":
        freqs = checkpoint.entries.get("rope_freqs.weight")
        if freqs is not None and freqs.dtype != "F32":
            raise _misfit(freqs, f"holds {freqs.dtype} where F32 factors should be")
        factors = None if freqs is None else freqs.read().tolist()
        config = gguf.published(checkpoint.metadata, frozenset(checkpoint.entries), factors)
        return config, gguf.TENSORS, gguf.build
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    config = read_json(folder / "config.json")
    module = families.family(Config(config))
    return config, module.TENSORS, module.build


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


def save(loaded: Loaded, folder: str | Path) -> None:
    """Write a model as it is published: config.json and model.safetensors, each whole or not at all.

    Raises CheckpointError for weights that safetensors cannot hold (the packed GGUF types).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "model.safetensors", published(loaded), {"format": "pt"})
    text = json.dumps(dict(loaded.config), indent=2, ensure_ascii=False)
    temporary = folder / "config.json.tmp"
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(folder / "config.json")


def published(loaded: Loaded) -> dict[str, Tensor]:
    """Return the model's tensors under their published names, each in the type that the file had."""
    out: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in _tensors(loaded.model).items():
        theirs = published_name(loaded.rules, name)
        if id(tensor) in seen or theirs is None:
            continue
        seen.add(id(tensor))
        owner = loaded.model.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, PackedLinear | PackedEmbedding) and name.endswith(".weight"):
            out[theirs] = _unpacked(owner.fmt.name, tensor, theirs)
        else:
            out[theirs] = _as_published(tensor.detach(), loaded.checkpoint.entries.get(theirs))
    return out


def _unpacked(kind: str, tensor: Tensor, name: str) -> Tensor:
    if kind not in FLOATS:
        raise CheckpointError(
            f"its {kind} weights have no safetensors form",
            tensor=name,
            remedy="Keep the GGUF file: it is the weights",
        )
    return tensor.view(FLOATS[kind])


def _as_published(tensor: Tensor, entry: Entry | None) -> Tensor:
    """Narrow to the file's type where that loses nothing: what was only widened on the way in."""
    if entry is None or entry.dtype not in FLOATS:
        return tensor
    narrow = tensor.to(FLOATS[entry.dtype])
    return narrow if torch.equal(narrow.to(tensor.dtype), tensor) else tensor


def _compute_dtype(name: str, device: torch.device, checkpoint: Checkpoint) -> torch.dtype:
    if name in DTYPES:
        return DTYPES[name]
    if name != "auto":
        raise RequestError(f"dtype = {name!r} is not known; choose auto, {', '.join(DTYPES)}")
    if device.type == "cpu":
        return torch.float32
    largest = max(checkpoint.entries.values(), key=lambda e: e.nbytes)
    return FLOATS.get(largest.dtype, torch.bfloat16)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every weight by name, tied ones under each of their names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _match(model: nn.Module, rules: Rules, checkpoint: Checkpoint) -> Match:
    found = match(rules, checkpoint.entries, {name: id(t) for name, t in _tensors(model).items()})
    found.check(checkpoint.path)
    return found


def _fill(
    model: nn.Module,
    checkpoint: Checkpoint,
    found: Match,
    dtype: torch.dtype,
    device: torch.device,
    progress: Progress | None,
) -> None:
    wanted = _tensors(model)
    filled: dict[int, Tensor] = {}
    done, total = 0, sum(checkpoint.entries[name].nbytes for name in found.targets)
    for theirs, ours in found.targets.items():
        entry, target = checkpoint.entries[theirs], wanted[ours]
        if entry.shape != tuple(target.shape):
            raise _misfit(
                entry, f"has shape {list(entry.shape)}, and the config makes it {list(target.shape)}"
            )
        value = _value(entry, dtype, device)  # one object under all of its tied names
        if (before := filled.get(id(target))) is not None:
            if not torch.equal(before, value):
                raise _misfit(entry, f"differs from the tensor that the config ties it to ({ours})")
            continue
        filled[id(target)] = value
        for name in (n for n, t in wanted.items() if t is target):
            _place(model, name, value, entry, dtype)
        done += entry.nbytes
        if progress is not None:
            progress(done, total)


def _value(entry: Entry, dtype: torch.dtype, device: torch.device) -> Tensor | nn.Parameter:
    """Return an entry's tensor as the model will hold it: a Parameter, or bytes when it stays packed."""
    tensor = entry.read()
    if entry.dtype in FLOATS:
        kind = FLOATS[entry.dtype]
        if len(entry.shape) == 2 and kind != dtype and kind.itemsize < dtype.itemsize:
            tensor = tensor.contiguous().view(torch.uint8)  # stays in its 16 bits, widened as it is used
        else:
            tensor = tensor.to(dtype)
    elif entry.dtype not in FORMATS:
        raise _misfit(entry, f"holds {entry.dtype} where weights should be")
    elif len(entry.shape) != 2:
        tensor = FORMATS[entry.dtype].decode(tensor).to(dtype)
    return tensor.to(device) if tensor.dtype == torch.uint8 else nn.Parameter(tensor.to(device))


def _place(
    model: nn.Module, name: str, value: Tensor | nn.Parameter, entry: Entry, dtype: torch.dtype
) -> None:
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    if isinstance(value, nn.Parameter):
        owner.register_parameter(leaf, value)
        return
    packed = _packed(owner, entry, dtype)
    packed.weight = value
    model.set_submodule(path, packed)


def _packed(owner: nn.Module, entry: Entry, dtype: torch.dtype) -> PackedLinear | PackedEmbedding:
    fmt = FORMATS[entry.dtype]
    with torch.device("meta"):  # its own weight is about to be replaced
        if isinstance(owner, nn.Linear):
            packed = PackedLinear(owner.in_features, owner.out_features, fmt, bias=owner.bias is not None)
            packed.bias = owner.bias
            return packed
        if isinstance(owner, nn.Embedding):
            return PackedEmbedding(owner.num_embeddings, owner.embedding_dim, fmt, dtype=dtype)
    raise _misfit(entry, f"is packed as {entry.dtype}, and {type(owner).__name__} weights are not")


def _misfit(entry: Entry, reason: str) -> CheckpointError:
    return CheckpointError(
        reason,
        file=entry.file,
        tensor=entry.name,
        offset=entry.offset,
        remedy="The config and the weights belong to different models, or the file is damaged",
    )

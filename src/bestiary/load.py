"""Checkpoints to models and back: config, bricks on `meta`, packed modules for packed files, tensors."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .bricks import Learned
from .describe import context, describe, empty
from .errors import CheckpointError, RequestError
from .families.heads import DECODERS
from .files import Checkpoint, Entry, open_checkpoint
from .files.safetensors import write
from .formats import FORMATS
from .models import Decoder, EncoderDecoder, Model
from .quant.linear import PackedEmbedding, PackedLinear
from .quant.rows import RowScaledEmbedding
from .tensors import Match, Use, match, some

# Bytes done, bytes in all: called as the weights are taken in.
Progress = Callable[[int, int], None]

FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Loaded:
    """A model, and what it was made from.

    config: the published config.json, as it was read (or as a GGUF file's metadata amounts to). match: which
    published tensors fill which of the model's. dtype: what it computes in. context: the tokens it was
    published for.
    """

    model: Model
    config: Mapping[str, object]
    checkpoint: Checkpoint
    match: Match
    dtype: torch.dtype

    @property
    def decoder(self) -> Decoder:
        """The model, where it is a decoder alone. Raises RequestError for one of another architecture."""
        if not isinstance(self.model, Decoder):
            kind = type(self.model).__name__
            raise RequestError(f"{self.checkpoint.path} holds an {kind}, and a Decoder is wanted here")
        return self.model

    @property
    def context(self) -> int:
        model, said = self.model, context(self.config) or 2048
        stacks = (model.encoder, model.decoder) if isinstance(model, EncoderDecoder) else (model,)
        tables = [stack.positions for stack in stacks if isinstance(stack.positions, Learned)]
        # RoBERTa's files count the rows before the first position in; fairseq's stacks may differ.
        return min([said, *(table.table.num_embeddings - table.offset for table in tables)])

    @property
    def scores(self) -> bool:
        """Whether the head gives scores or classes of a text in place of logits of its next token."""
        heads = {f"{path}.weight" for path, ours in DECODERS.rules.items() if ours == "head"}
        return any(name in heads for use in self.match.uses for name in use.published)


def load(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str = "auto",
    config: Mapping[str, object] | None = None,
    check_finite: bool = True,
    progress: Progress | None = None,
) -> Loaded:
    """Load a model folder or file.

    config: keys to set over those of the published config.json, for what its authors left out of it.
    dtype: what the model computes in. "auto" is float32 on a CPU and the file's own type on a GPU. Weights
    that a file holds in fewer bits stay packed as they are and are widened, exactly, as they are used.
    check_finite: look at every weight once and warn, by name, of NaN and infinity (0.4 s a GB).
    Raises ConfigError for a config that is not computed as written, CheckpointError for weights that do not
    fit.
    """
    device = torch.device(device)
    checkpoint = open_checkpoint(path)
    described, rules, build = describe(checkpoint, config)
    _check_layers(described, checkpoint)
    model = empty(described, build)
    if check_finite and (broken := checkpoint.check_finite()):
        warnings.warn(
            f"{checkpoint.path}: {len(broken)} tensor(s) hold NaN or infinity: {some(broken)}. "
            "Compare the file with its published hash",
            stacklevel=2,
        )
    kind = _compute_dtype(dtype, device, checkpoint)
    found = match(rules, checkpoint.entries, {name: id(t) for name, t in _tensors(model).items()})
    found.check(checkpoint.path)
    for part in model.modules():
        if isinstance(part, RowScaledEmbedding):  # its tensors are integers in any case
            part.dtype = kind
    _fill(model, checkpoint, found, kind, device, progress)
    return Loaded(model.eval(), described, checkpoint, found, kind)


def _check_layers(config: Mapping[str, object], checkpoint: Checkpoint) -> None:
    """Refuse a config of more layers than there are tensors, before any is built."""
    for key in ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "depth"):
        layers = config.get(key)
        if isinstance(layers, int) and layers > len(checkpoint.entries):
            raise CheckpointError(
                f"the config asks for {layers} layers and there are only {len(checkpoint.entries)} tensors",
                file=checkpoint.path,
                remedy="Download the model again, with all its weight files",
            )


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
    """Return the model's tensors under their published names and in their layout, each in the file's type.

    Raises CheckpointError for a module that was replaced since it was loaded, and for packed GGUF types.
    """
    return {name: tensor for use in loaded.match.uses for name, tensor in published_by(loaded, use).items()}


def published_by(loaded: Loaded, use: Use) -> dict[str, Tensor]:
    """Return the published tensors that some of ours are joined to, as `published` does for all."""
    # An adapter may have brought a tensor that the file has not.
    entry = loaded.checkpoint.entries.get(use.published[0])
    parts = [_as_published(loaded.model, name, entry.dtype if entry else None) for name in use.ours]
    return use.join(parts, loaded.model)


def _as_published(model: nn.Module, name: str, dtype: str | None) -> Tensor:
    """Return one of our tensors in the file's type, where that loses nothing: what was only widened."""
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    tensor = getattr(owner, leaf, None)
    if not isinstance(tensor, Tensor):
        raise _replaced(name)
    tensor = tensor.detach()
    if isinstance(owner, PackedLinear | PackedEmbedding) and leaf == "weight":
        if owner.fmt.name not in FLOATS:
            raise CheckpointError(
                f"its {owner.fmt.name} weights have no safetensors form",
                tensor=name,
                remedy="Keep the GGUF file: it is the weights",
            )
        return tensor.view(FLOATS[owner.fmt.name])
    if dtype in FLOATS and not tensor.is_floating_point():
        raise _replaced(name)
    if dtype not in FLOATS or tensor.dtype == FLOATS[dtype]:
        return tensor
    narrow = tensor.to(FLOATS[dtype])
    return narrow if torch.equal(narrow.to(tensor.dtype), tensor) else tensor


def _replaced(name: str) -> CheckpointError:
    return CheckpointError(
        "was replaced since the model was loaded",
        tensor=name,
        remedy="Merge the adapter, or take it off, before saving",
    )


def _compute_dtype(name: str, device: torch.device, checkpoint: Checkpoint) -> torch.dtype:
    if name in DTYPES:
        return DTYPES[name]
    if name != "auto":
        raise RequestError(f"dtype = {name!r} is not known; choose auto, {', '.join(DTYPES)}")
    if device.type == "cpu":
        return torch.float32
    held = Counter[str]()
    for entry in checkpoint.entries.values():
        held[entry.dtype] += entry.nbytes
    most, _ = held.most_common(1)[0]
    # Beside packed weights the scales and the ends are what the authors computed in.
    halves = [name for name, _ in held.most_common() if name in ("F16", "BF16")]
    return FLOATS[most] if most in FLOATS else FLOATS[(halves or ["BF16"])[0]]


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every weight by name, tied ones under each of their names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _fill(
    model: nn.Module,
    checkpoint: Checkpoint,
    found: Match,
    dtype: torch.dtype,
    device: torch.device,
    progress: Progress | None,
) -> None:
    wanted = _tensors(model)
    homes: dict[int, list[str]] = {}  # a tensor of the model: all of its tied names
    for name, tensor in wanted.items():
        homes.setdefault(id(tensor), []).append(name)
    filled: dict[int, Tensor] = {}
    done, total = 0, sum(checkpoint.entries[name].nbytes for use in found.uses for name in use.published)
    for use in found.uses:
        entries = [checkpoint.entries[name] for name in use.published]
        for ours, piece in zip(use.ours, _split(use, entries, model, wanted), strict=True):
            target = wanted[ours]
            value = _value(piece, entries[0], target, dtype, device)
            if (before := filled.get(id(target))) is not None:
                if not torch.equal(before, value):
                    raise _misfit(entries[0], f"differs from the tensor that the config ties it to ({ours})")
                continue
            filled[id(target)] = value  # one object under all of its tied names
            for name in homes[id(target)]:
                _place(model, name, value, entries[0], dtype)
        done += sum(entry.nbytes for entry in entries)
        if progress is not None:
            progress(done, total)


def _split(use: Use, entries: list[Entry], model: nn.Module, wanted: Mapping[str, Tensor]) -> list[Tensor]:
    """Read published tensors and cut them into ours. Raises CheckpointError when they do not fit."""
    shapes = [tuple(wanted[name].shape) for name in use.ours]
    try:  # on tensors without data first: of packed weights, the bytes of a row are not its channels
        cut = use.split([torch.empty(entry.shape, device="meta") for entry in entries], model, shapes)
        fits = [tuple(part.shape) for part in cut] == shapes
    except (ValueError, RuntimeError):
        fits = False
    if not fits:
        made = " and ".join(str(list(shape)) for shape in shapes)
        raise _misfit(entries[0], f"has shape {list(entries[0].shape)}, and the config makes it {made}")
    return use.split([entry.read() for entry in entries], model, shapes)


def _value(
    tensor: Tensor, entry: Entry, target: Tensor, dtype: torch.dtype, device: torch.device
) -> Tensor | nn.Parameter:
    """Return a tensor as the model will hold it: a Parameter, or a buffer's own type, or packed bytes."""
    if not isinstance(target, nn.Parameter):
        if tensor.dtype != target.dtype:
            raise _misfit(entry, f"holds {entry.dtype}, and the config makes it {target.dtype}")
        return tensor.to(device)
    if entry.dtype in FLOATS:
        kind = FLOATS[entry.dtype]
        if tensor.ndim == 2 and kind != dtype and kind.itemsize < dtype.itemsize:
            tensor = tensor.contiguous().view(torch.uint8)  # stays in its 16 bits, widened as it is used
        else:
            tensor = tensor.to(dtype)
    elif entry.dtype not in FORMATS:
        raise _misfit(entry, f"holds {entry.dtype} where weights should be")
    elif tensor.ndim != 2:
        tensor = FORMATS[entry.dtype].decode(tensor).to(dtype)
    return tensor.to(device) if tensor.dtype == torch.uint8 else nn.Parameter(tensor.to(device))


def _place(
    model: nn.Module, name: str, value: Tensor | nn.Parameter, entry: Entry, dtype: torch.dtype
) -> None:
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    if isinstance(value, nn.Parameter):
        owner.register_parameter(leaf, value)
    elif leaf in owner._buffers:
        owner.register_buffer(leaf, value)
    else:
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

"""Published adapter folders, in and out: adapter_config.json with adapter_model.safetensors or .bin.

The layout is that of PEFT's save_pretrained: `base_model.model.<published module>.lora_A.weight`, without the
adapter's name, and whole tensors under their published names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from torch import Tensor

from ..errors import CheckpointError, ConfigError
from ..files import open_checkpoint
from ..files.paths import read_json
from .config import NAME, Settings, settings

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."

# An adapter's name ("default") stands in files that were not written by save_pretrained.
_FACTOR = re.compile(
    r"(?P<path>.+)\.(?P<kind>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.(?!weight$|bias$)\w+)?(?:\.(?P<leaf>weight|bias))?"
)
_WRAPPED = re.compile(r"\.(base_layer|modules_to_save(\.default)?)(?=\.)")
_LIMIT = 1 << 20  # bytes of an adapter_config.json


@dataclass(frozen=True)
class Factors:
    """What is added to one published module: scale * B A.

    a (rank, in), b (out, rank); of an embedding (rank, rows) and (width, rank). magnitude: DoRA's lengths
    (out).
    """

    a: Tensor
    b: Tensor
    scale: float
    magnitude: Tensor | None = None
    embedding: bool = False

    @property
    def rank(self) -> int:
        return self.a.shape[0]


@dataclass(frozen=True)
class Adapter:
    """A published adapter: what it adds, by published module, and the tensors it brings whole, by name.

    config: its adapter_config.json, as read.
    """

    path: Path
    config: Mapping[str, object]
    factors: Mapping[str, Factors]
    whole: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def base(self) -> str | None:
        """The base that its config names; often a path on its author's machine, or one that is gone."""
        said = self.config.get("base_model_name_or_path")
        return said if isinstance(said, str) and said else None

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        sizes = [f.a.numel() + f.b.numel() for f in self.factors.values()]
        sizes += [f.magnitude.numel() for f in self.factors.values() if f.magnitude is not None]
        return sum(sizes) + sum(tensor.numel() for tensor in self.whole.values())


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder is that of an adapter."""
    return (folder / NAME).is_file()


def read(folder: str | Path) -> Adapter:
    """Read an adapter's folder. Its tensors stay views of the file until they are attached.

    Raises ConfigError for a config that is not computed as written, CheckpointError for weights that are
    damaged, missing, or not those of the config.
    """
    folder = Path(folder)
    said = read_json(folder / NAME, limit=_LIMIT)
    how = settings(said, str(folder / NAME))
    file = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if file is None:
        remedy = f"Download {' or '.join(WEIGHTS)} beside its {NAME}"
        raise CheckpointError("holds no weights of an adapter", file=folder, remedy=remedy)
    tensors = _tensors(file)
    parts, whole = _sorted(tensors, file)
    factors = {path: _factors(path, held, how, file) for path, held in parts.items()}
    return Adapter(folder, said, factors, whole)


def _tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of an adapter's file; one without any is refused with how it came about."""
    try:
        tensors = {name: entry.read() for name, entry in open_checkpoint(file).entries.items()}
    except CheckpointError as error:
        if not error.reason.startswith("holds no tensors"):
            raise
        tensors = {}
    if not tensors:
        remedy = "It was saved empty, as tloen/alpaca-lora's script does with a later PEFT: ask its author"
        raise CheckpointError("holds no tensors", file=file, remedy=remedy)
    return tensors


def _sorted(
    tensors: Mapping[str, Tensor], file: Path
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Tell the parts of low-rank products, by module, from tensors that are whole."""
    parts: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        bare = name.removeprefix(PREFIX)
        if hit := _FACTOR.fullmatch(bare):
            if hit["leaf"] == "bias":
                raise _refused("is a bias of B (lora_bias), which is not computed here", name, file)
            parts.setdefault(hit["path"], {})[hit["kind"]] = tensor
        elif ".original_module." not in bare:  # the base's own, which old versions kept beside
            whole[_WRAPPED.sub("", bare)] = tensor
    return parts, whole


def _factors(path: str, held: Mapping[str, Tensor], how: Settings, file: Path) -> Factors:
    embedding = "lora_embedding_A" in held or "lora_embedding_B" in held
    names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
    if missing := [name for name in names if name not in held]:
        raise _refused(f"has no {missing[0]}", path, file)
    a, b = (held[name] for name in names)
    magnitude = held.get("lora_magnitude_vector")
    if how.dora != (magnitude is not None):
        raise ConfigError(
            f"{file}: {path[:200]} has {'no' if magnitude is None else 'a'} lora_magnitude_vector, and its "
            f"{NAME} says use_dora = {str(how.dora).lower()}"
        )
    if b.ndim == 3 and not embedding:
        a, b = _ungrouped(path, a, b, how, file)
    rank = how.rank_of(path) * (sum(how.enabled) if held[names[1]].ndim == 3 else 1)
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or a.shape[0] != rank:
        shapes = f"{list(held[names[0]].shape)} and {list(held[names[1]].shape)}"
        raise _refused(f"has factors {shapes}, and {NAME} makes it rank {how.rank_of(path)}", path, file)
    flat = None if magnitude is None else magnitude.flatten()
    return Factors(a, b, how.scale_of(path), flat, embedding)


def _ungrouped(path: str, a: Tensor, b: Tensor, how: Settings, file: Path) -> tuple[Tensor, Tensor]:
    """Return one product of the products that a MergedLinear of 2023 adds to some pieces of a fused layer.

    a (pieces * rank, in); b (pieces * out, rank, 1), the kernel of a grouped convolution: each piece has an A
    and a B of its own, and the others are left as they are (peft 0.2, tuners/lora.py).
    """
    groups = sum(how.enabled)
    if not groups or b.shape[2] != 1 or b.shape[1] * groups != a.shape[0] or b.shape[0] % groups:
        raise _refused(f"has a grouped B {list(b.shape)}, and enable_lora does not say of what", path, file)
    rank, out = b.shape[1], b.shape[0] // groups
    whole = b.new_zeros(len(how.enabled) * out, a.shape[0])
    places = [place for place, adapted in enumerate(how.enabled) if adapted]
    for group, place in enumerate(places):
        rows, columns = slice(place * out, (place + 1) * out), slice(group * rank, (group + 1) * rank)
        whole[rows, columns] = b[group * out : (group + 1) * out, :, 0]
    return a, whole


def _refused(reason: str, tensor: str, file: Path) -> CheckpointError:
    remedy = f"The file and its {NAME} do not belong together, or the file is of another kind"
    return CheckpointError(reason, file=file, tensor=tensor, remedy=remedy)

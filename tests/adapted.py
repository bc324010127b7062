"""Random adapters in PEFT's layout, and what they amount to added to transformers' own models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

RANK, ALPHA = 4, 6.0
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "r": RANK,
    "lora_alpha": ALPHA,
    "lora_dropout": 0.05,
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "target_modules": ["q_proj"],
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "somebody/base",
}
PREFIX = "base_model.model."


def factors(out: int, columns: int, *, seed: int, rank: int = RANK) -> tuple[Tensor, Tensor]:
    """Return an A and a B large enough to move logits."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rank, columns, generator=g) / 4, torch.randn(out, rank, generator=g) / 4


def write(folder: Path, tensors: Mapping[str, Tensor], **changes: object) -> Path:
    """Write an adapter's folder; tensors by published name."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {key: value for key, value in {**CONFIG, **changes}.items() if value is not ...}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    whole = {f"{PREFIX}{name}": tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / "adapter_model.safetensors")
    return folder


def of(model: Any, ends: Iterable[str], *, seed: int = 1) -> dict[str, Tensor]:
    """Return random factors for the modules of transformers' model whose paths end so, and add them to it."""
    tensors: dict[str, Tensor] = {}
    for number, (path, module) in enumerate(model.named_modules()):
        if path.rpartition(".")[2] not in set(ends):
            continue
        conv = type(module).__name__ == "Conv1D"  # which holds its matrix turned
        columns, out = module.weight.shape if conv else module.weight.shape[::-1]
        a, b = factors(out, columns, seed=seed + number)
        tensors |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
        added = ALPHA / RANK * b @ a
        module.weight.data += added.T if conv else added
    return tensors

"""Adapters as PEFT writes them: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import RequestError
from ..files.safetensors import write
from ..files.writing import write_json
from ..load import Loaded
from ..tensors import Turned, Use
from .attach import Adapted
from .config import NAME, settings
from .dora import DoRA
from .lora import LoRA, LoRAEmbedding, dense
from .peft import PREFIX, WEIGHTS, Adapter, Factors
from .place import Names, by_rows
from .weights import rows


def save(source: Adapter | Loaded, folder: str | Path) -> None:
    """Write an adapter, or those on a model, as PEFT does; each file whole or not at all.

    Raises RequestError for a model without adapters, and CheckpointError when the disk refuses.
    """
    adapter, folder = source if isinstance(source, Adapter) else gather(source), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{PREFIX}{name}": tensor for name, tensor in adapter.whole.items()}
    for path, f in adapter.factors.items():
        linear, table = ("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B")
        kinds = table if f.embedding else linear
        tensors |= {f"{PREFIX}{path}.{kinds[0]}": f.a, f"{PREFIX}{path}.{kinds[1]}": f.b}
        if f.magnitude is not None:
            tensors[f"{PREFIX}{path}.lora_magnitude_vector"] = f.magnitude
    write(folder / WEIGHTS[0], {n: t.detach().contiguous() for n, t in tensors.items()}, {"format": "pt"})
    # A grouped B was made one of the whole layer: enable_lora is said of files that have it.
    said = {key: value for key, value in adapter.config.items() if key != "enable_lora"} | _told(adapter)
    write_json(folder / NAME, said)


def gather(loaded: Loaded) -> Adapter:
    """Return the adapter that a model has on it now, as it was attached or trained.

    Raises RequestError for a model without one, with one over another, of several kinds, or in a file whose
    names are not those of adapters (GGUF, Meta's).
    """
    if Names.of(loaded).foreign:
        raise RequestError(
            f"{loaded.checkpoint.path} has other names than adapters are saved under\n"
            "Try: train over the model in Hugging Face's form"
        )
    model, factors, turned = loaded.model, dict[str, Factors](), set[bool]()
    for use in loaded.match.uses:
        modules = [model.get_submodule(name.rpartition(".")[0]) for name in use.ours]
        cut, stem, _ = by_rows(use), *use.published[0].rpartition(".")[::2]
        kinds = (LoRA, LoRAEmbedding)
        if stem in factors or cut is None or not any(isinstance(module, kinds) for module in modules):
            continue
        if any(isinstance(getattr(module, "base", None), kinds) for module in modules):
            raise RequestError("one adapter stands on another\nTry: merge the first, and attach the second")
        factors[stem] = _factors(cut, modules, model)
        turned.add(isinstance(use.layout, Turned))
    if not factors:
        raise RequestError("no adapter is on this model, so there is none to save")
    whole = _whole(loaded) if isinstance(loaded, Adapted) else {}
    return Adapter(loaded.checkpoint.path, _config(loaded, factors, whole, turned), factors, whole)


def _whole(loaded: Adapted) -> dict[str, Tensor]:
    """Return the tensors that an adapter brought whole, as they are now where they were trained."""
    model, brought = loaded.model, loaded.adapter.whole
    found: dict[str, Tensor] = {}
    for name, use in Names.of(loaded).find(brought, model)[0].items():
        now = _joined(use, [_now(model, ours) for ours in use.ours], model)
        same = torch.equal(brought[name].to(now), now)
        found[name] = brought[name] if same else now
    return found


def _now(model: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    while isinstance(owner, LoRA | LoRAEmbedding):
        owner = owner.base
    if leaf == "weight" and hasattr(owner, "dequantize"):  # 16 bits, as bytes
        return dense(owner)
    tensor: Tensor = getattr(owner, leaf)
    return tensor.detach()


def _factors(cut: Use, modules: Sequence[nn.Module], model: nn.Module) -> Factors:
    """Return the one product of a published layer that its pieces here have as several."""
    table = modules[0]
    if isinstance(table, LoRAEmbedding):
        return Factors(table.lora_embedding_A, table.lora_embedding_B, table.scale, embedding=True)
    adapted = [module for module in modules if isinstance(module, LoRA)]
    kinds = {type(module) for module in modules}
    if len({module.scale for module in adapted}) > 1 or (DoRA in kinds and len(kinds) > 1):
        raise RequestError(f"{cut.published[0]} is one layer, and its pieces were adapted in several ways")
    lengths = [module.lora_magnitude_vector.detach() for module in adapted if isinstance(module, DoRA)]
    magnitude = _joined(cut, lengths, model) if lengths else None
    a, bs = _side_by_side(modules, adapted)
    return Factors(a, _joined(cut, bs, model), adapted[0].scale, magnitude)


def _side_by_side(modules: Sequence[nn.Module], adapted: Sequence[LoRA]) -> tuple[Tensor, list[Tensor]]:
    """Return one A for several layers, and of each layer a B: zero where the A is another's.

    Layers that share an A share its rows.
    """
    distinct = {id(layer.lora_A.weight): layer for layer in adapted}
    ends = list(itertools.accumulate(layer.rank for layer in distinct.values()))
    end = dict(zip(distinct, ends, strict=True))
    bs = []
    for module in modules:
        b = adapted[0].lora_B.weight.new_zeros(rows(module) or 0, ends[-1])
        if isinstance(module, LoRA):
            last = end[id(module.lora_A.weight)]
            b[:, last - module.rank : last] = module.lora_B.weight.detach()
        bs.append(b)
    return torch.cat([layer.lora_A.weight.detach() for layer in distinct.values()]), bs


def _joined(cut: Use, parts: Sequence[Tensor], model: nn.Module) -> Tensor:
    return next(iter(cut.join(parts, model).values()))


def _config(
    loaded: Loaded, factors: Mapping[str, Factors], whole: Mapping[str, Tensor], turned: set[bool]
) -> dict[str, object]:
    if isinstance(loaded, Adapted):
        return dict(loaded.adapter.config)
    rank = Counter(f.rank for f in factors.values()).most_common(1)[0][0]
    scale = Counter(f.scale for f in factors.values()).most_common(1)[0][0]
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if loaded.scores else "CAUSAL_LM",
        "base_model_name_or_path": str(loaded.checkpoint.path),
        "r": rank,
        "lora_alpha": _short(scale * rank),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": turned == {True},
        "use_dora": any(f.magnitude is not None for f in factors.values()),
        "target_modules": sorted(factors),
        "modules_to_save": sorted({name.rpartition(".")[0] for name in whole}) or None,
        "inference_mode": True,
    }


def _told(adapter: Adapter) -> dict[str, object]:
    """Return the ranks and scales that an adapter's config does not say yet, module by module."""
    how = settings(adapter.config)
    changed = {
        path: f
        for path, f in adapter.factors.items()
        if f.rank != how.rank_of(path) or abs(f.scale - how.scale_of(path)) > 1e-9 * f.scale
    }
    if not changed:
        return {}
    power = 0.5 if how.rooted else 1.0
    alphas = {path: _short(f.scale * f.rank**power) for path, f in changed.items()}
    # The first that fits counts: whole paths before the ends of some.
    return {
        "rank_pattern": {path: f.rank for path, f in changed.items()} | _without(how.ranks, changed),
        "alpha_pattern": alphas | _without(how.alphas, changed),
    }


def _without(said: Mapping[str, float], paths: Iterable[str]) -> dict[str, float]:
    return {path: value for path, value in said.items() if path not in set(paths)}


def _short(alpha: float) -> float:
    """Return a scale's alpha as people write it: 16, where division and multiplication gave 16.000000001."""
    return round(alpha) if abs(alpha - round(alpha)) < 1e-9 * max(1.0, alpha) else alpha

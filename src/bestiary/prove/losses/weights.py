"""Objectives and arithmetic of weights: smoothing, balance of experts, packed and adapted matrices."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ... import adapters
from ...bricks.experts import softmax_of_top, top_of_softmax
from ...context import Full
from ...files import open_checkpoint
from ...load import load, published
from ...quant.bnb import BitsAndBytes4, DoubleFourBitLinear, FourBitLinear
from ...train.objectives import experts
from ...train.objectives.translation import smoothed_cross_entropy
from .case import Case


def label_smoothing(case: Case) -> None:
    """Compare smoothed losses and gradients; torch's own smoothing is another."""
    for name, how in case.variants.items():
        logits, targets = case.learned("logits"), case["target"]
        real = targets != how["ignore_index"]
        each = smoothed_cross_entropy(logits, targets, how["epsilon"]) * real
        case.check(f"{name}.loss_per_token", each)
        case.check(f"{name}.loss", each.sum())
        case.check(f"{name}.nll_loss", (smoothed_cross_entropy(logits, targets, 0.0) * real).sum())
        case.check_gradients(each.sum(), {f"{name}.grad_logits": logits})
        theirs = cross_entropy(logits[real], targets[real], label_smoothing=how["epsilon"], reduction="sum")
        case.check(f"{name}.torch_label_smoothing_loss", theirs)


def moe_aux(case: Case) -> None:
    """Compare balancing losses and their gradients."""
    names = case.keys("gate_logits.")
    for name, how in case.variants.items():
        if name.startswith("deepseek"):
            _deepseek(case, name)
            continue
        logits = [case.learned(key) for key in names]
        real = case["attention_mask"].flatten() if how["masked"] else None
        loss = experts.balance(logits, how["top_k"], real)
        case.check(f"{name}.loss", loss)
        case.check_gradients(
            loss, {f"{name}.grad_{key}": own for key, own in zip(names, logits, strict=True)}
        )
    case.check("mixtral_transformers_4_36_2.loss", experts.balance_of_chosen([case[key] for key in names], 2))


def _deepseek(case: Case, name: str) -> None:
    how = case.variants[name]
    weight, states = case.learned("deepseek.gate_weight"), case.learned("deepseek.hidden_states")
    logits, count = states @ weight.T, how["num_experts_per_tok"]
    balance = experts.balance_of_sequences if how["seq_aux"] else experts.balance_of_batch
    loss = how["aux_loss_alpha"] * balance(logits, count)
    case.check(f"{name}.loss", loss)
    case.check_gradients(loss, {f"{name}.grad_gate_weight": weight, f"{name}.grad_hidden_states": states})
    route = softmax_of_top if how["norm_topk_prob"] else top_of_softmax
    weights, chosen = route(count)(logits.flatten(0, 1))
    chosen, order = chosen.sort()
    case.check(f"{name}.topk_idx_sorted", chosen)
    case.check(f"{name}.topk_weight_by_sorted_idx", weights.gather(-1, order))


def qlora(case: Case) -> None:
    """Compare packed layers of 4 bits, decoded, with an adapter beside them and merged."""
    for name, how in case.variants.items():
        layer = _packed(case, name)
        dtype = getattr(torch, how["dtype"].removeprefix("torch."))
        whole = layer.dequantize()
        case.require(f"{name}.weight", _nearest(case, name, whole))
        case.leave("packing a merged matrix again is not offered", *case.keys(f"{name}.merged_requantized."))
        a, b = case[f"{name}.lora_A"], case[f"{name}.lora_B"]
        both = adapters.LoRA.of(layer, a, b, scale=how["lora_alpha"] / how["r"], dtype=torch.float32)
        case.check(f"{name}.delta_weight", both.dequantize() - whole)
        if how["shape"][1] % how["blocksize"]:
            # Its CPU kernel takes absmax[row * (columns // block) + column // block], another block's where
            # blocks pass from row to row: what it decodes is up to 14 times as far from what it packed.
            wrong = [f"{name}.{key}" for key in ("dequantized", "merged", "x", "y_unmerged")]
            case.leave("bitsandbytes 0.50 decodes blocks across rows wrongly on a CPU", *wrong)
            continue
        case.check(f"{name}.dequantized", whole.to(dtype))
        case.check(f"{name}.y_unmerged", both(case[f"{name}.x"]))
        case.check(f"{name}.merged", both.dequantize())


def _nearest(case: Case, name: str, whole: Tensor) -> bool:
    """Whether every weight was packed as the level nearest to it: no error is above half a step.

    A share of 1/64 of the largest is allowed for absmax in 8 bits, and for what rounds to bfloat16.
    """
    levels, block = case[f"{name}.code"].sort().values, case.variants[name]["blocksize"]
    scale = case[f"{name}.weight"].flatten().split(block)
    error = (whole - case[f"{name}.weight"]).flatten().split(block)
    half = torch.diff(levels).max() / 2 + 1 / 64
    return all(bool(far.abs().max() <= half * own.abs().max()) for far, own in zip(error, scale, strict=True))


def _packed(case: Case, name: str) -> FourBitLinear:
    """Return the layer of a variant, read from a file as bitsandbytes writes them."""
    how, start = case.variants[name], f"{name}.saved."
    tensors = {f"weight.{key.removeprefix(start)}": case[key] for key in case.keys(start)}
    # The same tensors by the names of bitsandbytes' own QuantState.
    states = (("absmax", "absmax"), ("quant_map", "code"), ("nested_absmax", "nested_absmax"))
    for saved, own in (*states, ("nested_quant_map", "nested_code")):
        if f"{start}{saved}" in case:
            case.check(f"{name}.{own}", tensors[f"weight.{saved}"])
    rows, columns = how["shape"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "layer.safetensors"
        save_file({"weight": case[f"{name}.qweight"], **tensors}, file)
        opened = open_checkpoint(file)
        held = {BitsAndBytes4.leaves[key]: entry for key, entry in opened.entries.items()}
        layer = BitsAndBytes4(how["double_quant"]).layer(nn.Linear(columns, rows, bias=False), held)
        read = {leaf: entry.read().clone() for leaf, entry in held.items()}
    for leaf, tensor in read.items():
        place = getattr(layer, leaf)
        place.copy_(tensor.repeat_interleave(layer.repeats.get(leaf, 1), 0)[: len(place)])
    if not isinstance(layer, FourBitLinear):
        raise TypeError(type(layer).__name__)
    if isinstance(layer, DoubleFourBitLinear):
        blocks = layer.scales()[:: layer.repeats["absmax"]]
        case.check(f"{name}.absmax_dequantized", blocks)
        case.check(f"{name}.nested_offset", layer.offset)
    return layer


@torch.inference_mode()
def adapted(case: Case) -> None:
    """Compare a model's logits without an adapter, with it, and merged; and the merged tensors."""
    loaded, ids = load(case.folder), case["input_ids"]

    def logits() -> Tensor:
        found: Tensor = loaded.decoder(ids, Full.of(ids))
        return found

    case.check("base_logits", logits())
    loaded = adapters.attach(loaded, adapters.read(case.folder / "adapter"))
    case.check("logits", logits())
    loaded = adapters.merge(loaded)
    case.check("merged_logits", logits())
    saved = published(loaded)
    for key in case.keys("merged."):
        name = key.removeprefix("merged.")
        # GPT-2's files of old leave out the name of its stack; norms that were trained whole are as they are.
        case.check(key, saved[name] if name in saved else saved[name.removeprefix("transformer.")])

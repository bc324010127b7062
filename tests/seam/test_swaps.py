"""What is put in a module's place by path: adapters, 8-bit weights, one over the other, on every family."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bestiary.adapters.lora import LoRA
from bestiary.context import Cache, Stream
from bestiary.quant.linear import PackedLinear
from bestiary.quant.rows import RowScaled
from bestiary.quant.striped import Striped
from bestiary.run.score import kl_divergence
from bestiary.swap import swap
from tests.subjects import Subject

# Every linear of a block, by the one vocabulary of names.
LINEARS = r"((encoder|decoder)\.)?layers\.\d+\.(attn|cross|mlp)\.(.*\.)?(q|k|v|o|gate|up|down)"
_PACKED = (RowScaled, PackedLinear, Striped)
ROWS, TOKENS, PREFILL = 2, 15, 8


def assert_cached_is_the_same(it: Subject, ids: Tensor) -> None:
    cache, begin = Cache.empty(it.model, ROWS, TOKENS), it.prompt(ids)
    cuts = [(0, PREFILL), *((at, at + 1) for at in range(PREFILL, TOKENS))]
    if it.whole:
        cuts = [(0, TOKENS)]
    with torch.inference_mode():
        got = [it.model(ids[:, a:b], Stream.at(cache, a, b - a, begin)) for a, b in cuts]
    assert (torch.cat(got, 1) - it.logits(ids)).abs().max() <= 1e-4


def adapt(module: nn.Module) -> nn.Module:
    return LoRA(module, rank=4, alpha=8)


def eight_bits(module: nn.Module) -> nn.Module:
    if isinstance(module, RowScaled):  # published in 8 or 4 bits already
        return module
    return RowScaled.of(module, bits=8)


def test_a_new_adapter_changes_nothing(it: Subject) -> None:
    ids = it.tokens(ROWS, TOKENS)
    want = it.logits(ids)
    assert swap(it.model, LINEARS, adapt) >= 5 * it.blocks
    assert torch.equal(it.logits(ids), want)


def test_an_adapter_adds_its_product(it: Subject) -> None:
    """Against the same product added to the plain weights."""
    swap(it.model, LINEARS, adapt)
    assert_products_are_added(it, it.tokens(ROWS, TOKENS))


def assert_products_are_added(it: Subject, ids: Tensor) -> None:
    """Train the adapters, as it were, and compare with plain layers that have the sum."""
    for module in it.model.modules():
        if isinstance(module, LoRA):
            nn.init.normal_(module.lora_B.weight, std=0.1)
    got = it.logits(ids)
    assert_cached_is_the_same(it, ids)
    swap(it.model, LINEARS, _merged)
    want = it.logits(ids)
    assert (got - want).abs().max() <= 2e-4 * max(1, want.abs().max().item())


def _merged(module: nn.Module) -> nn.Module:
    assert isinstance(module, LoRA)
    base = module.base
    weight = base.dequantize() if isinstance(base, _PACKED) else base.get_parameter("weight")
    plain = nn.Linear(module.in_features, module.out_features, base.bias is not None)
    with torch.no_grad():
        plain.weight.copy_(weight + 2.0 * module.lora_B.weight @ module.lora_A.weight)  # alpha / rank = 2
        if base.bias is not None:
            plain.bias.copy_(base.get_parameter("bias"))
    return plain


def test_eight_bits(it: Subject) -> None:
    """Next to the float32 model, exact to the model of the rounded weights, the same over a cache."""
    ids = it.tokens(ROWS, TOKENS)
    original = it.logits(ids)
    swap(it.model, LINEARS, eight_bits)
    got = it.logits(ids)
    # Typically 0.002; random routers choose between experts by a hair, and 8 bits turn a few choices: 0.04.
    assert kl_divergence(original.flatten(0, 1), got.flatten(0, 1)) <= 0.1
    assert_cached_is_the_same(it, ids)
    swap(it.model, LINEARS, adapt)
    assert torch.equal(it.logits(ids), got)
    assert_products_are_added(it, ids)

"""Mixtures of experts: each kernel against a loop over tokens, with gradients, and the rules of routing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from bestiary.bricks import (
    GatedMLP,
    GatedSharedMoE,
    MoE,
    Routing,
    SharedMoE,
    nearest,
    softmax_of_top,
    top_of_softmax,
)
from bestiary.config import ACTIVATIONS
from bestiary.errors import KernelError
from bestiary.kernels.experts import mixture

WIDTH, HIDDEN, EXPERTS, TOP, TOKENS = 8, 12, 6, 3, 10
# The shares of experts are float32 in a model of any type.
assert_close = partial(torch.testing.assert_close, rtol=0, atol=1e-6)
KERNELS = [kernel.name for kernel in mixture.kernels]
EXPERT = partial(GatedMLP, WIDTH, HIDDEN, ACTIVATIONS["silu"])


@pytest.fixture
def moe() -> MoE:
    torch.manual_seed(5)
    return MoE(WIDTH, (EXPERT() for _ in range(EXPERTS)), softmax_of_top(TOP)).double()


def one_by_one(moe: MoE, x: Tensor) -> Tensor:
    """Compute a mixture as its equation is written, a token and an expert at a time. x (N, width)."""
    rows = []
    for row in x:
        logits = moe.route.weight @ row
        chosen = sorted(range(EXPERTS), key=lambda index: -logits[index].item())[:TOP]
        shares = torch.stack([logits[index] for index in chosen]).exp()
        shares = shares / shares.sum()
        outs = torch.stack([moe.experts[index](row) for index in chosen])
        rows.append((shares[:, None] * outs).sum(0))
    return torch.stack(rows)


def gradients(moe: MoE, x: Tensor, out: Tensor) -> list[Tensor]:
    """Return what a fixed direction of the output says of x and of every weight; zeros where nothing."""
    direction = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return list(torch.autograd.grad((out * direction).sum(), [x, *moe.parameters()], materialize_grads=True))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("tokens", [0, 1, TOKENS])
def test_each_kernel_is_the_equation(moe: MoE, kernel: str, tokens: int) -> None:
    x = torch.randn(tokens, WIDTH, dtype=torch.float64, requires_grad=True)
    with mixture.forced(kernel):
        got = moe(x)
    if not tokens:
        assert got.shape == (0, WIDTH)
        return
    want = one_by_one(moe, x)
    assert_close(got, want)
    for ours, right in zip(gradients(moe, x, got), gradients(moe, x, want), strict=True):
        assert_close(ours, right)


@pytest.mark.parametrize("kernel", KERNELS)
def test_experts_that_nobody_chose_and_one_that_all_did(moe: MoE, kernel: str) -> None:
    x = torch.randn(TOKENS, WIDTH, dtype=torch.float64)
    weights, chosen = torch.ones(TOKENS, 1, dtype=torch.float64), torch.full((TOKENS, 1), 4)
    with mixture.forced(kernel):
        got = mixture(x, weights, chosen, moe.experts)
    assert_close(got, moe.experts[4](x))


@pytest.mark.parametrize("kernel", KERNELS)
def test_leading_dimensions_are_opaque(moe: MoE, kernel: str) -> None:
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    with mixture.forced(kernel):
        assert_close(moe(x).flatten(0, 1), moe(x.flatten(0, 1)))


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(KernelError, match="no implementation 'grouped'"), mixture.forced("grouped"):
        pass


def test_shared_experts(moe: MoE) -> None:
    experts, shared = list(moe.experts), EXPERT().double()
    x = torch.randn(TOKENS, WIDTH, dtype=torch.float64)
    routed = moe(x)
    with_shared = SharedMoE(WIDTH, experts, moe.routing, shared).double()
    gated = GatedSharedMoE(WIDTH, experts, moe.routing, shared).double()
    with_shared.route = gated.route = moe.route
    degree = 1 / (1 + (-x @ gated.shared_gate.weight.T).exp())
    assert_close(with_shared(x), routed + shared(x))
    assert_close(gated(x), routed + degree * shared(x))


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_nearest_expert_alone_and_as_it_is(moe: MoE, kernel: str) -> None:
    moe.routing, x = nearest, torch.randn(TOKENS, WIDTH, dtype=torch.float64)
    chosen = (x @ moe.route.weight.T).argmax(-1).tolist()
    with mixture.forced(kernel):
        assert_close(moe(x), torch.stack([moe.experts[e](row) for e, row in zip(chosen, x, strict=True)]))


def test_shares_of_those_chosen_are_shares_of_all_made_to_sum_to_one() -> None:
    """Mixtral's rule and the norm_topk_prob of Qwen and DeepSeek are one, also where most shares vanish."""
    logits = torch.randn(50, EXPERTS) * torch.logspace(-1, 3, 50)[:, None]
    shares, chosen = softmax_of_top(TOP)(logits)
    of_all, chosen_of_all = top_of_softmax(TOP)(logits)
    nobody = torch.zeros_like(logits)
    got = nobody.scatter(1, chosen, shares)
    want = nobody.scatter(1, chosen_of_all, of_all / of_all.sum(-1, keepdim=True))
    assert_close(got, want)
    assert of_all.sum(-1).min() < 0.7, "nothing to make up for"
    assert of_all.min() == 0, "none vanishes"


@pytest.mark.parametrize("rule", [softmax_of_top, top_of_softmax])
def test_shares_are_computed_in_float32(rule: Callable[[int], Routing]) -> None:
    logits = torch.randn(4, EXPERTS).bfloat16()
    shares, chosen = rule(TOP)(logits)
    assert (shares.dtype, chosen.dtype) == (torch.float32, torch.int64)
    assert torch.equal(shares, rule(TOP)(logits.float())[0])

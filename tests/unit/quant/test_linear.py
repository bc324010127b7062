"""PackedLinear and PackedEmbedding against nn.Linear and nn.Embedding of the decoded weight."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bestiary.errors import CheckpointError, KernelError
from bestiary.formats import FORMATS, get
from bestiary.quant.linear import PackedEmbedding, PackedLinear
from tests.packed import packed


def make(name: str, *, bias: bool = False) -> PackedLinear:
    module = PackedLinear(256, 40, get(name), bias=bias)
    state = {"weight": packed(get(name), 40, 256)} | ({"bias": torch.randn(40)} if bias else {})
    module.load_state_dict(state, assign=True)
    return module


@pytest.mark.parametrize("name", list(FORMATS))
@pytest.mark.parametrize("bias", [False, True])
def test_linear_equals_that_of_the_decoded_weight(name: str, bias: bool) -> None:
    module = make(name, bias=bias)
    plain = nn.Linear(256, 40, bias=bias)
    plain.load_state_dict(module.state_dict() | {"weight": get(name).decode(module.weight)})
    assert torch.equal(module.dequantize(), plain.weight)
    for shape in [(256,), (1, 1, 256), (2, 5, 256)]:
        x = torch.randn(shape)
        want = plain(x)
        assert (module(x) - want).abs().max() <= 1e-6 * want.abs().max()


@pytest.mark.parametrize("name", list(FORMATS))
def test_embedding_decodes_the_rows_asked_for(name: str) -> None:
    fmt = get(name)
    module = PackedEmbedding(30, 512, fmt)
    module.load_state_dict({"weight": packed(fmt, 30, 512)}, assign=True)
    table = fmt.decode(module.weight)
    for ids in (torch.tensor(7), torch.tensor([[3, 3, 29], [0, 1, 2]]), torch.zeros(2, 0, dtype=torch.int64)):
        assert torch.equal(module(ids), nn.functional.embedding(ids, table))
    assert torch.equal(module.dequantize(), table)
    with pytest.raises(IndexError):
        module(torch.tensor([30]))


def test_embedding_gives_the_dtype_asked_for() -> None:
    module = PackedEmbedding(4, 64, get("Q8_0"), dtype=torch.bfloat16)
    assert module(torch.tensor([1])).dtype == torch.bfloat16


def test_the_bytes_stay_what_they_are() -> None:
    module = make("Q4_1", bias=True)
    raw = module.weight
    state = module.state_dict()
    assert set(state) == {"weight", "bias"}
    assert state["weight"].data_ptr() == raw.data_ptr(), "assigned, not copied"
    half = copy.deepcopy(module).to(torch.bfloat16)
    assert half.weight.dtype == torch.uint8
    assert torch.equal(half.weight, raw)
    assert half(torch.randn(2, 256, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_building_on_meta_takes_no_memory() -> None:
    with torch.device("meta"):
        module = PackedLinear(256, 1 << 30, get("Q6_K"), bias=True)
    assert module.weight.shape == (1 << 30, 210)
    assert module.weight.is_meta


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(CheckpointError, match="100 columns"):
        PackedLinear(100, 8, get("Q4_1"))
    with pytest.raises(KernelError, match=r"\(3, 128\).*\(40, 160\)"):
        make("Q4_1")(torch.zeros(3, 128))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_one_graph_under_compile(backend: str) -> None:
    model = nn.Sequential(PackedEmbedding(30, 256, get("Q8_0")), make("Q4_1", bias=True), nn.ReLU())
    model[0].weight = packed(get("Q8_0"), 30, 256)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(compiled(ids), model(ids), rtol=0, atol=0)


def test_gradients_pass_through_under_compile_too() -> None:
    module = make("Q4_1", bias=True)
    x = torch.randn(2, 3, 256, requires_grad=True)
    inputs = (x, *module.parameters())
    plain = torch.autograd.grad(module(x).square().sum(), inputs)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(x).square().sum(), inputs), plain)
    assert all(gradient.abs().sum() > 0 for gradient in plain)

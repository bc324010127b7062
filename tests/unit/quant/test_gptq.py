"""GPTQLinear against weights that are packed here, bit by bit, alone and in a MOSS checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from bestiary.context import Full
from bestiary.errors import CheckpointError, ConfigError
from bestiary.load import Loaded, load, published
from bestiary.quant.gptq import GPTQLinear, unpack

BITS = (2, 3, 4, 8)


def pack(fields: Tensor, bits: int) -> Tensor:
    """Write fields (N, columns) end to end, each column one large number; return its words, int32."""
    words = []
    for column in fields.T.tolist():
        number = sum(field << bits * i for i, field in enumerate(column))
        words.append([number >> 32 * i & 0xFFFFFFFF for i in range(len(column) * bits // 32)])
    return torch.tensor(words, dtype=torch.int64).to(torch.int32).T.contiguous()


def quantised(inputs: int, outputs: int, bits: int, group: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return the published tensors of a random layer, and its weight."""
    groups = inputs // group
    q = torch.randint(1 << bits, (inputs, outputs))
    zero = torch.randint(1, (1 << bits) + 1, (groups, outputs))
    scales = (0.1 + torch.rand(groups, outputs)).half() / (1 << bits)
    g_idx = torch.arange(inputs, dtype=torch.int32)[torch.randperm(inputs)] // group
    tensors = {"qweight": pack(q, bits), "qzeros": pack(zero.T - 1, bits).T.contiguous(), "scales": scales}
    weight = torch.empty(outputs, inputs)
    for i, g in enumerate(g_idx.tolist()):
        weight[:, i] = scales[g].float() * (q[i] - zero[g])
    return tensors | {"g_idx": g_idx}, weight


@pytest.mark.parametrize("bits", BITS)
def test_fields_come_back(bits: int) -> None:
    fields = torch.randint(1 << bits, (96, 5))
    assert torch.equal(unpack(pack(fields, bits), bits), fields)


def test_a_field_of_three_bits_spans_two_words() -> None:
    words = torch.tensor([[-(1 << 30)], [1], [0]], dtype=torch.int32)  # bits 30, 31 and 32
    assert unpack(words, 3).flatten().nonzero().tolist() == [[10]]
    assert unpack(words, 3)[10] == 7


@pytest.mark.parametrize("bits", BITS)
def test_a_layer(bits: int) -> None:
    tensors, weight = quantised(64, 288, bits, 16)  # more output channels than one stripe
    layer, bias = GPTQLinear(64, 288, bits=bits, group=16, bias=True), torch.randn(288)
    layer.load_state_dict(tensors | {"bias": bias})
    assert torch.equal(layer.dequantize(), weight)
    x = torch.randn(2, 3, 64)
    want = F.linear(x, weight, bias)
    assert (layer(x) - want).abs().max() <= 1e-6 * want.abs().max()


def test_it_takes_gradients_to_what_comes_before() -> None:
    layer, x = GPTQLinear(32, 32, bits=4), torch.randn(2, 32, requires_grad=True)
    layer.load_state_dict(quantised(32, 32, 4, 32)[0])
    layer(x).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, layer.dequantize().sum(0).expand(2, -1), atol=1e-5)


def test_it_takes_the_place_of_a_linear_where_that_is() -> None:
    with torch.device("meta"):
        layer = GPTQLinear.of(nn.Linear(64, 32), bits=4, group=None)
    assert layer.qweight.is_meta
    assert layer.bias is not None
    assert layer.scales.shape == (1, 32)
    with pytest.raises(TypeError, match=r"Identity is no nn\.Linear"):
        GPTQLinear.of(nn.Identity(), bits=4, group=None)


def test_words_are_whole() -> None:
    with pytest.raises(ConfigError, match="36 to 32 channels does not fill whole words of 32 bits with 3"):
        GPTQLinear(36, 32, bits=3)


MOSS: dict[str, Any] = {
    "model_type": "moss", "n_embd": 64, "n_head": 4, "n_layer": 2, "rotary_dim": 8, "n_inner": 96,
    "vocab_size": 11, "n_positions": 32,
}  # fmt: skip


def moss(folder: Path, bits: int) -> tuple[Loaded, Loaded]:
    """Return a random MOSS of packed layers, and one of their float weights."""
    plain = {name: torch.randn(11, 64) for name in ("transformer.wte.weight", "lm_head.weight")}
    plain |= {"lm_head.bias": torch.randn(11)}
    plain |= {f"transformer.ln_f.{leaf}": torch.randn(64) for leaf in ("weight", "bias")}
    packed: dict[str, Tensor] = {}
    for layer in range(2):
        at = f"transformer.h.{layer}"
        plain |= {f"{at}.ln_1.{leaf}": torch.randn(64) for leaf in ("weight", "bias")}
        plain |= {f"{at}.mlp.fc_in.bias": torch.randn(96), f"{at}.mlp.fc_out.bias": torch.randn(64)}
        sizes = {
            "attn.qkv_proj": (64, 192),
            "attn.out_proj": (64, 64),
            "mlp.fc_in": (64, 96),
            "mlp.fc_out": (96, 64),
        }
        for path, (inputs, outputs) in sizes.items():
            tensors, plain[f"{at}.{path}.weight"] = quantised(inputs, outputs, bits, 32)
            packed |= {f"{at}.{path}.{leaf}": tensor for leaf, tensor in tensors.items()}
    packed |= {name: tensor for name, tensor in plain.items() if not name.startswith("transformer.h.")}
    packed |= {name: tensor for name, tensor in plain.items() if "ln_1" in name or name.endswith(".bias")}
    return (
        written(folder / "packed", packed, MOSS | {"wbits": bits, "groupsize": 32}),
        written(folder / "plain", plain, MOSS | {"wbits": 32, "groupsize": 128}),
    )


def written(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> Loaded:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return load(folder)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_fused_layer_is_cut_while_it_is_packed(bits: int, tmp_path: Path) -> None:
    packed, plain = moss(tmp_path, bits)
    ids = torch.randint(11, (2, 9))
    with torch.inference_mode():
        got, want = (each.model(ids, Full.of(ids)) for each in (packed, plain))
    assert (got - want).abs().max() <= 1e-4
    assert len([m for m in packed.model.modules() if isinstance(m, GPTQLinear)]) == 2 * 6
    saved, entries = published(packed), packed.checkpoint.entries
    assert saved.keys() == entries.keys()
    for name, tensor in saved.items():
        original = entries[name].read()
        assert tensor.dtype == original.dtype, name
        assert torch.equal(tensor, original), name


def test_a_config_of_other_bits_than_the_file_is_refused(tmp_path: Path) -> None:
    moss(tmp_path, 8)
    with pytest.raises(CheckpointError, match=r"qweight.*has shape"):
        load(tmp_path / "packed", config={"wbits": 4})
    with pytest.raises(ConfigError, match="wbits = 3 is not computed here"):
        load(tmp_path / "packed", config={"wbits": 3})


def test_beside_packed_weights_the_scales_say_what_is_computed_in(tmp_path: Path) -> None:
    moss(tmp_path, 8)
    assert load(tmp_path / "packed", device="meta").dtype == torch.float16
    assert load(tmp_path / "plain", device="meta").dtype == torch.float32

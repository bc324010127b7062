"""The mixture Q4_K_M: which matrices have six bits, and what rows that fill no blocks give way to."""

from __future__ import annotations

import pytest

from bestiary.convert.types import Choice, choose

# llama.cpp, src/llama-quant.cpp, use_more_bits: layer < n / 8, layer >= 7 n / 8, (layer - n / 8) % 3 == 2.
MORE = {
    32: {0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31},
    22: {0, 1, 4, 7, 10, 13, 16, 19, 20, 21},
    3: {2},
}


@pytest.mark.parametrize("part", ["attn_v", "ffn_down", "ffn_down_exps"])
@pytest.mark.parametrize("layers", MORE)
def test_layers_with_six_bits(layers: int, part: str) -> None:
    kinds = [
        choose("q4_k", f"blk.{i}.{part}.weight", (512, 512), layers=layers, ends="output.weight").dtype
        for i in range(layers)
    ]
    assert {i for i, kind in enumerate(kinds) if kind == "Q6_K"} == MORE[layers]
    assert set(kinds) <= {"Q6_K", "Q4_K"}


@pytest.mark.parametrize(
    ("kind", "name", "shape", "wanted"),
    [
        ("q4_k", "output.weight", (512, 512), Choice("Q6_K")),
        ("q4_0", "output.weight", (512, 512), Choice("Q6_K")),
        ("q8_0", "output.weight", (512, 512), Choice("Q8_0")),
        ("q4_k", "token_embd.weight", (512, 512), Choice("Q4_K")),
        ("q4_k", "blk.0.attn_q.weight", (512, 576), Choice("Q5_0", "Q4_K")),
        ("q4_k", "output.weight", (512, 576), Choice("Q8_0", "Q6_K")),
        ("q4_k", "blk.0.attn_q.weight", (512, 100), Choice("F16", "Q4_K")),
        ("q8_0", "blk.0.attn_q.weight", (512, 100), Choice("F16", "Q8_0")),
        ("q4_k", "blk.0.attn_q.bias", (512,), Choice("F32")),
        ("q4_k", "blk.0.attn_norm.weight", (512,), Choice("F32")),
        ("q4_0", "blk.0.ffn_gate_inp.weight", (8, 512), Choice("F32")),
        ("f16", "position_embd.weight", (64, 512), Choice("F32")),
        ("f16", "blk.0.ffn_up.weight", (64, 100), Choice("F16")),
    ],
)
def test_a_tensor_s_type(kind: str, name: str, shape: tuple[int, ...], wanted: Choice) -> None:
    assert choose(kind, name, shape, layers=32, ends="output.weight") == wanted

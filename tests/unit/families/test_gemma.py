"""The spellings of Gemma's config.json: the first published files, and what transformers writes today."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from bestiary.bricks import Attention, Cap, Interpolated, RoundedScale
from bestiary.config import ACTIVATIONS
from bestiary.describe import empty
from bestiary.errors import ConfigError

SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 30,
}
SECOND = {**SIZES, "model_type": "gemma2", "sliding_window": 8}
THIRD = {**SECOND, "model_type": "gemma3_text"}


def attentions(model: nn.Module) -> list[Attention]:
    return [m for m in model.modules() if isinstance(m, Attention)]


@pytest.mark.parametrize(
    "said",
    [
        {"hidden_act": "gelu"},
        {"hidden_act": "gelu", "hidden_activation": None},
        {"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"},
        {"hidden_activation": "gelu_pytorch_tanh"},
        {},
    ],
)
def test_gelu_is_tanhs(said: dict[str, Any]) -> None:
    model = empty({**SIZES, "model_type": "gemma", **said})
    acts = {m.act for m in model.modules() if hasattr(m, "act")}
    assert acts == {ACTIVATIONS["gelu_pytorch_tanh"]}


def test_another_activation_is_refused() -> None:
    with pytest.raises(ConfigError, match="hidden_activation = 'silu'"):
        empty({**SIZES, "model_type": "gemma", "hidden_activation": "silu"})


def test_the_head_is_the_embedding_unless_a_file_says_otherwise() -> None:
    for said, tied in (
        ({}, True),
        ({"tie_word_embeddings": True}, True),
        ({"tie_word_embeddings": False}, False),
    ):
        model = empty({**SIZES, "model_type": "gemma", **said})
        assert (model.get_parameter("head.weight") is model.get_parameter("embed.0.weight")) is tied


def test_gemma_2_before_layer_types() -> None:
    scores = [attn.score for attn in attentions(empty(SECOND))]
    assert [score.window for score in scores] == [8, None, 8, None, 8, None, 8]
    assert {(score.softcap, score.scale) for score in scores} == {(50.0, 1 / 16)}
    both = empty({**SECOND, "sliding_window_size": 8, "cache_implementation": "hybrid"})
    assert [attn.score for attn in attentions(both)] == scores


def test_a_cap_that_is_null_is_none() -> None:
    model = empty({**SECOND, "attn_logit_softcapping": None, "final_logit_softcapping": None})
    assert {attn.score.softcap for attn in attentions(model)} == {None}
    assert not any(isinstance(part, Cap) for part in model.modules())
    assert any(isinstance(part, Cap) and part.limit == 30.0 for part in empty(SECOND).modules())


def test_windows_without_a_size_are_refused() -> None:
    for config in (SECOND, THIRD):
        with pytest.raises(ConfigError, match="sliding_window"):
            empty({**config, "sliding_window": None})


def test_gemma_3_in_both_spellings() -> None:
    stretched = {"rope_type": "linear", "factor": 8.0}
    then = {
        "rope_theta": 500_000.0,
        "rope_local_base_freq": 3_000.0,
        "rope_scaling": stretched,
        "sliding_window_pattern": 3,
    }
    today = {
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2
        + ["sliding_attention"],
        "rope_parameters": {
            "full_attention": {**stretched, "rope_theta": 500_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 3_000.0},
        },
    }
    first, second = (
        [(attn.score, attn.position) for attn in attentions(empty({**THIRD, **said}))]
        for said in (then, today)
    )
    assert first == second
    assert [score.window for score, _ in first] == [8, 8, None, 8, 8, None, 8]
    assert [getattr(position, "base", None) for _, position in first[1:3]] == [3_000.0, 500_000.0]
    assert getattr(first[2][1], "frequencies", None) == Interpolated(8.0)


def test_an_unknown_key_of_one_kind_of_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="twist"):
        empty({**THIRD, "rope_parameters": {"sliding_attention": {"rope_type": "default", "twist": 2}}})


def test_the_embedding_is_scaled_as_it_was_trained() -> None:
    """sqrt(3072) = 55.4256, and in bfloat16 55.5 (huggingface/transformers#29402)."""
    scale = RoundedScale(3072**0.5)
    assert scale(torch.ones(1, dtype=torch.bfloat16)).item() == 55.5
    assert scale(torch.ones(1)).item() == pytest.approx(55.4256258)

"""rope_ratio, which means one thing in ChatGLM2 and another in ChatGLM3 and GLM-4."""

from __future__ import annotations

import pytest
import torch

from bestiary.bricks import Attention
from bestiary.context import Full
from bestiary.describe import empty
from bestiary.errors import ConfigError

SIZES = {
    "model_type": "chatglm", "num_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "kv_channels": 16,
    "ffn_hidden_size": 24, "padded_vocab_size": 40, "multi_query_attention": True, "multi_query_group_num": 1,
}  # fmt: skip


def angles(**config: object) -> torch.Tensor:
    """Return the cosines of positions 0 to 29,999, which tell the angles: (positions, pairs)."""
    attn = empty(SIZES | config).get_submodule("layers.0.attn")
    assert isinstance(attn, Attention)
    x = torch.zeros(1, 30_000, 1, 16)
    x[..., ::2] = 1  # of each pair of neighbours the first: turned, it is the cosine
    turned = attn.position(x, x, Full(torch.arange(30_000)[None]))[0][0, :, 0]
    assert torch.equal(turned[:, 8:], x[0, :, 0, 8:]), "only half of a head turns"
    return turned[:, :8:2].double()


def wanted(positions: float, base: float) -> torch.Tensor:
    turns = base ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    return torch.cos(torch.arange(30_000, dtype=torch.float64)[:, None] / positions * turns)


@pytest.mark.parametrize(
    ("said", "positions", "base"),
    [
        ({"_name_or_path": "THUDM/chatglm2-6b-32k"}, 6.0, 1e4),
        ({"transformers_version": "4.27.1", "_name_or_path": "./output"}, 6.0, 1e4),
        ({"_name_or_path": "THUDM/chatglm3-6b-128k", "transformers_version": "4.27.1"}, 1.0, 6e4),
        ({"_name_or_path": "THUDM/glm-4-9b-chat"}, 1.0, 6e4),
        ({"transformers_version": "4.30.2"}, 1.0, 6e4),
    ],
)
def test_positions_or_base(said: dict[str, object], positions: float, base: float) -> None:
    assert (angles(rope_ratio=6, **said) - wanted(positions, base)).abs().max() <= 4e-3
    assert (angles(rope_ratio=6, **said) - wanted(7 - positions, 7e4 - base)).abs().max() > 0.5


def test_without_a_ratio_nothing_needs_to_be_told_apart() -> None:
    assert (angles() - wanted(1.0, 1e4)).abs().max() <= 4e-3
    assert torch.equal(angles(rope_ratio=1), angles())


def test_a_ratio_of_nobody_knows_whom_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rope_ratio = 6\.0 divides positions .* set _name_or_path"):
        angles(rope_ratio=6, transformers_version="4.41.0")

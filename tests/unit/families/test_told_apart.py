"""Models that one model_type stands for, or none, are told apart by what their files say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bestiary import families
from bestiary.bricks import ALiBi, Attention, NormedHead, Rotary
from bestiary.config import Config
from bestiary.errors import ConfigError
from bestiary.families import internlm2, llama_native

BAICHUAN: dict[str, Any] = {
    "model_type": "baichuan", "hidden_size": 128, "intermediate_size": 64, "num_attention_heads": 1,
    "num_hidden_layers": 1, "vocab_size": 64000, "max_position_embeddings": 4096,
}  # fmt: skip
WIDE = {"hidden_size": 5120, "max_position_embeddings": None}
# The keys in which the published files differ, the position, and whether the head is normed.
PUBLISHED: dict[str, tuple[dict[str, Any], str, bool]] = {
    "Baichuan-7B": ({}, "rope", False),
    "Baichuan-13B": (WIDE, "alibi", False),
    "Baichuan2-7B": ({"vocab_size": 125696, "model_max_length": 4096}, "rope", True),
    "Baichuan2-13B": ({**WIDE, "vocab_size": 125696}, "alibi", True),
    "a 13B with one more key": ({"hidden_size": 5120, "max_position_embeddings": 4096}, "alibi", False),
    "told": ({"position": "alibi", "norm_head": True}, "alibi", True),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_baichuan(name: str) -> None:
    changes, position, normed = PUBLISHED[name]
    c = Config({**BAICHUAN, **changes})
    with torch.device("meta"):
        model = families.family(c).build(c)
    c.finish()
    (attn,) = (part for part in model.modules() if isinstance(part, Attention))
    assert isinstance(attn.position, Rotary) == (position == "rope")
    assert isinstance(attn.score.bias, ALiBi) == (position == "alibi")
    assert isinstance(model.head, NormedHead) == normed


def test_a_position_that_no_baichuan_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="position = 'learned'"):
        families.family(c := Config({**BAICHUAN, "position": "learned"})).build(c)


def test_what_has_no_name_or_an_old_one() -> None:
    assert families.family(Config({"dim": 64, "n_heads": 4})).build is llama_native.build
    assert families.family(Config({"model_type": "internlm", "rope_theta": 1e6})).build is internlm2.build

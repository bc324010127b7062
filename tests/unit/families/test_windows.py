"""Which layers see only the last tokens, in every spelling of config.json."""

from __future__ import annotations

from typing import Any

import pytest

from bestiary.config import Config
from bestiary.errors import ConfigError
from bestiary.families.windows import FULL, SLIDING, windows

QWEN = {"max_window_layers": 2, "sliding_window": 8}
KINDS = {"layer_types": [FULL, SLIDING, FULL, SLIDING]}
SPELLED: dict[str, tuple[dict[str, Any], list[int | None]]] = {
    "nothing": ({}, [None] * 4),
    "Mistral 7B v0.1": ({"sliding_window": 8}, [8] * 4),
    "Mistral 7B v0.2": ({"sliding_window": None}, [None] * 4),
    "Ministral": ({"sliding_window": 8, **KINDS}, [None, 8, None, 8]),
    "kinds without a window": (KINDS, [None] * 4),
    "Qwen2, where off is what absence means": (QWEN, [None] * 4),
    "Qwen2, off": ({**QWEN, "use_sliding_window": False}, [None] * 4),
    "Qwen2, on": ({**QWEN, "use_sliding_window": True}, [None, None, 8, 8]),
    "Qwen2, on everywhere": ({**QWEN, "use_sliding_window": True, "max_window_layers": 0}, [8] * 4),
    "Qwen2, kinds go first": ({**QWEN, "use_sliding_window": True, **KINDS}, [None, 8, None, 8]),
    "Qwen2-MoE as transformers 5 saves it": ({"sliding_window": 0, "use_sliding_window": False}, [None] * 4),
}


@pytest.mark.parametrize("name", SPELLED)
def test_windows(name: str) -> None:
    config, want = SPELLED[name]
    c = Config(config)
    assert windows(c, 4) == want
    c.finish()


def test_a_family_says_which_layers_where_the_file_does_not() -> None:
    every_second = {"slides": lambda index: index % 2 == 0}
    assert windows(Config({"sliding_window": 8}), 4, **every_second) == [8, None, 8, None]
    assert windows(Config({"sliding_window": 8, **KINDS}), 4, **every_second) == [None, 8, None, 8]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"layer_types": [FULL] * 3}, "each of the 4 layers"),
        ({"layer_types": [FULL, FULL, FULL, "linear_attention"]}, "each of the 4 layers"),
        ({"layer_types": [0, 0, 0, 0]}, "layer_types = .* should be a list of str"),
        ({"layer_types": FULL}, "layer_types = 'full_attention' should be a list of str"),
        ({"sliding_window": -1}, "sliding_window = -1 should be a whole number from 0"),
        ({"use_sliding_window": 1}, "use_sliding_window = 1 should be true or false"),
    ],
)
def test_what_makes_no_sense_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        windows(Config(config), 4)

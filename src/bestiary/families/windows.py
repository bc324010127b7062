"""How config.json files spell which layers see only the last tokens."""

from __future__ import annotations

from collections.abc import Callable

from ..config import Config
from ..errors import ConfigError

FULL, SLIDING = "full_attention", "sliding_attention"


def windows(c: Config, layers: int, *, slides: Callable[[int], bool] | None = None) -> list[int | None]:
    """Return how many tokens each layer sees, None for all of them: sliding_window, layer_types.

    slides: which layers have a window, by number, where the file has no layer_types (before 2025): all of
    them unless told, or in Qwen's files those from max_window_layers on.
    """
    of_qwen = "max_window_layers" in c
    first = c.count("max_window_layers", 0, least=0)
    slides = slides or (lambda index: index >= first)
    kinds = c.values("layer_types", str) or [SLIDING if slides(index) else FULL for index in range(layers)]
    if len(kinds) != layers or not set(kinds) <= {FULL, SLIDING}:
        raise ConfigError(
            f"{c.where}: layer_types should be {FULL!r} or {SLIDING!r} for each of the {layers} layers"
        )
    used = c.flag("use_sliding_window", not of_qwen)
    window = c.count("sliding_window", 0, least=0) or None  # transformers writes 0 for Qwen2-MoE's none
    return [window if used and kind == SLIDING else None for kind in kinds]

"""How config.json files spell which layers see only the last tokens."""

from __future__ import annotations

from collections.abc import Callable

from ..config import Config
from ..errors import ConfigError

FULL, SLIDING = "full_attention", "sliding_attention"


def windows(
    c: Config, layers: int, *, used: bool = True, slides: Callable[[int], bool] = lambda index: True
) -> list[int | None]:
    """Return how many tokens each layer sees, None for all of them: sliding_window, layer_types.

    used: what an absent use_sliding_window means. slides: which layers have a window, by number, where the
    file has no layer_types (before 2025).
    """
    usual = [SLIDING if slides(index) else FULL for index in range(layers)]
    kinds = c.values("layer_types", str) or usual
    if len(kinds) != layers or not set(kinds) <= {FULL, SLIDING}:
        raise ConfigError(
            f"{c.where}: layer_types should be {FULL!r} or {SLIDING!r} for each of the {layers} layers"
        )
    used = c.flag("use_sliding_window", used)
    if not used or SLIDING not in kinds or c.get("sliding_window", None) is None:
        return [None] * layers
    window = c.count("sliding_window")
    return [window if kind == SLIDING else None for kind in kinds]

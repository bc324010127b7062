"""How config.json files spell rotary positions, in every generation of the spelling."""

from __future__ import annotations

import math

from ..bricks import (
    DynamicNTK,
    Factors,
    Frequencies,
    Interpolated,
    Llama3,
    LongRope,
    NTKMixed,
    Plain,
    Rotary,
    Yarn,
)
from ..config import Config
from ..errors import ConfigError


def rotary(
    c: Config, dim: int, interleaved: bool = False, *, base: float = 10_000.0, share: float = 1.0
) -> Rotary:
    """Read rope_theta and rope_scaling (to 2025) or rope_parameters (after), GPT-NeoX's names, and LongChat's
    rope_condense_ratio.

    dim: channels of a head. base: what an absent rope_theta means. share: the part of each head's channels
    that rotates, where the file does not say.
    """
    base = c.number(c.either("rope_theta", "rotary_emb_base"), base)
    share = c.number(c.either("partial_rotary_factor", "rotary_pct"), share)
    both = [section for key in ("rope_scaling", "rope_parameters") if (section := c.section(key))]
    turns: Frequencies = Plain()
    for section in both:
        base = section.number("rope_theta", base)
        share = section.number("partial_rotary_factor", share)
        turns = frequencies(c, section)
    if "rope_condense_ratio" in c:  # FastChat's spelling until 2023-07-31
        turns = Interpolated(c.number("rope_condense_ratio"))
    if len(both) + ("rope_condense_ratio" in c) > 1:
        raise ConfigError(
            f"{c.where} stretches its rotary positions in two ways; keep the one it was trained with"
        )
    if share > 1:
        raise ConfigError(f"{c.where} rotates {share:g} of each head's channels; 1 is all of them")
    turning = int(dim * share)  # rounded down, as published
    if isinstance(turns, LongRope) and {len(turns.short), len(turns.long)} != {turning // 2}:
        raise ConfigError(f"{c.where}: {turning} channels turn, which takes {turning // 2} factors, each way")
    return Rotary(turning, base, interleaved=interleaved, frequencies=turns)


def frequencies(c: Config, s: Config) -> Frequencies:
    """Return how fast pairs turn, as a section of the config says.

    Raises ConfigError for what is not known.
    """
    kind = s.text("rope_type", s.text("type", "default"))
    s.must("type", kind)  # some files carry both spellings; they must agree
    if kind == "default":
        return Plain()
    if kind == "linear":
        return Interpolated(s.number("factor"))
    if kind == "dynamic":
        return DynamicNTK(s.number("factor"), _trained(c, s))
    if kind == "llama3":
        return Llama3(
            s.number("factor"), s.number("low_freq_factor"), s.number("high_freq_factor"), _trained(c, s)
        )
    if kind == "yarn":
        return _yarn(c, s)
    if kind == "ntkmixed":  # the authors' code truncates the factor (BlueLM, example/vllm)
        return NTKMixed(int(s.number("factor")), s.number("power"))
    if kind == "factors":
        return Factors(_factors(s, "factors"))
    if kind in ("longrope", "su"):  # "su" to July 2024
        return _longrope(c, s)
    known = "default, linear, dynamic, llama3, longrope, ntkmixed, yarn"
    raise ConfigError(f"{s.where}: rope_type = {kind!r} is not computed here; known: {known}")


def _trained(c: Config, s: Config) -> int:
    # Phi-3 has it beside the section.
    usual = c.get("original_max_position_embeddings", c.get("max_position_embeddings", 2048))
    return s.count("original_max_position_embeddings", usual)


def _longrope(c: Config, s: Config) -> LongRope:
    trained, longest = _trained(c, s), c.count("max_position_embeddings", 2048)
    factor = s.number("factor", longest / trained)
    usual = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(trained))
    magnitude = s.number("attention_factor", usual)
    return LongRope(_factors(s, "short_factor"), _factors(s, "long_factor"), trained, magnitude)


def _yarn(c: Config, s: Config) -> Yarn:
    factor = s.number("factor")
    if "attention_factor" in s:
        magnitude = s.number("attention_factor")
    elif "mscale" in s and "mscale_all_dim" in s:  # DeepSeek-V2's two-sided form
        magnitude = _magnitude(factor, s.number("mscale")) / _magnitude(factor, s.number("mscale_all_dim"))
    else:
        magnitude = _magnitude(factor, 1.0)
    fast, slow = s.number("beta_fast", 32.0), s.number("beta_slow", 1.0)
    return Yarn(factor, _trained(c, s), magnitude, fast, slow, s.flag("truncate", True))


def _magnitude(factor: float, scale: float) -> float:
    """Equation 22 of the YaRN paper: how much sharper attention must be over a longer text."""
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def _factors(s: Config, key: str) -> tuple[float, ...]:
    values = s.values(key, float)
    if not values or not all(0 < value < math.inf for value in values):
        raise ConfigError(f"{s.where}: {key} should be a list of numbers above zero")
    return tuple(values)

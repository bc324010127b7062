"""adapter_config.json: what is computed, what changes nothing, and what is refused by name.

The keys are PEFT's LoraConfig (peft/tuners/lora/config.py, 0.2 to 0.21); the forks of 2023 add enable_lora
and merge_weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..config import Config
from ..errors import ConfigError

NAME = "adapter_config.json"

# How an adapter was trained or begun, where it was put (its tensors say so), and notes.
INERT = frozenset(
    """
    arrow_config auto_mapping base_model_class corda_config eva_config exclude_modules inference_mode
    layers_pattern layers_to_transform loftq_config lora_dropout lora_ga_config megatron_config megatron_core
    merge_weights modules_to_save parent_library peft_version qalora_group_size revision runtime_config
    target_modules task_type velora_config base_model_name_or_path
    """.split()
)
# Ways to begin that leave the base as it was. The others (PiSSA, OLoRA, CorDA, LoftQ) also take something
# away from it, so that their A and B mean nothing over the published base.
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
_PATTERN = re.compile(r"\^?[\w.-]+")


@dataclass(frozen=True)
class Settings:
    """What an adapter_config.json says of its tensors.

    rank, alpha: of modules that the patterns do not name. ranks, alphas: by the end of a published path.
    rooted: whether the scale is alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732). enabled: of the equal pieces
    of a fused layer, which are adapted (enable_lora); none: the layer is adapted as one.
    """

    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    rooted: bool = False
    dora: bool = False
    enabled: tuple[bool, ...] = ()

    def rank_of(self, path: str) -> int:
        """Return the rank of a published module."""
        return next((rank for end, rank in self.ranks.items() if _names(end, path)), self.rank)

    def scale_of(self, path: str) -> float:
        """Return the factor on B A of a published module."""
        alpha = next((alpha for end, alpha in self.alphas.items() if _names(end, path)), self.alpha)
        rank = self.rank_of(path)
        return alpha / rank**0.5 if self.rooted else alpha / rank


def settings(raw: Mapping[str, object], where: str = NAME) -> Settings:
    """Read an adapter_config.json. Raises ConfigError for what is not computed, by name."""
    c = Config(raw, where)
    kind = c.text("peft_type", "LORA")
    if kind != "LORA":
        raise ConfigError(f"{where}: peft_type = {kind[:80]!r} is not computed here; only LORA is")
    c.must("bias", "none", "lora_only", "all")
    c.must("fan_in_fan_out", False, True)  # how the base's file stores matrices, which its family knows
    c.must("init_lora_weights", *_PLAIN_STARTS)
    rank, found = c.count("r"), enabled(c)
    read = Settings(
        rank,
        c.number("lora_alpha"),
        {key: _whole(key, value, where) for key, value in _pattern(c, "rank_pattern").items()},
        {key: _number(key, value, where) for key, value in _pattern(c, "alpha_pattern").items()},
        rooted=c.flag("use_rslora", False),
        dora=c.flag("use_dora", False),
        enabled=found,
    )
    _finish(raw, where)
    return read


def enabled(c: Config) -> tuple[bool, ...]:
    """Return enable_lora: null, or a truth for each piece of a fused layer."""
    value = c.get("enable_lora", [])
    if not isinstance(value, list) or not all(isinstance(piece, bool) for piece in value):
        raise ConfigError(f"{c.where}: enable_lora = {str(value)[:80]} should be null or a list of booleans")
    return tuple(value)


_READ = frozenset(
    """
    peft_type bias fan_in_fan_out init_lora_weights r lora_alpha rank_pattern alpha_pattern use_rslora
    use_dora enable_lora
    """.split()
)


def _finish(raw: Mapping[str, object], where: str) -> None:
    """Refuse what nobody read, unless it is off: later versions of PEFT write each new key as null."""
    left = {
        key: value
        for key, value in raw.items()
        if key not in _READ | INERT and value not in (None, False, [], {}, "")
    }
    if left:
        named = ", ".join(f"{key[:80]} = {str(value)[:80]!r}" for key, value in list(left.items())[:10])
        raise ConfigError(
            f"{where} sets {len(left)} key(s) that are not computed here: {named}. Attaching it anyway could "
            "give wrong numbers; remove a key only if you know it has no effect"
        )


def _pattern(c: Config, key: str) -> Mapping[str, object]:
    value = c.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{c.where}: {key} = {str(value)[:80]} should be an object")
    for end in value:
        # PEFT takes them as regular expressions; published ones are paths, and others can take for ever.
        if not _PATTERN.fullmatch(end):
            raise ConfigError(f"{c.where}: {key} names {end[:80]!r}, which is no path of a module")
    return value


def _names(end: str, path: str) -> bool:
    """Tell whether a pattern names a module: the end of its path, or all of it after a ^."""
    return path == end.removeprefix("^") or (not end.startswith("^") and path.endswith(f".{end}"))


def _whole(key: str, value: object, where: str) -> int:
    return Config({key: value}, f"{where}: rank_pattern").count(key)


def _number(key: str, value: object, where: str) -> float:
    return Config({key: value}, f"{where}: alpha_pattern").number(key)

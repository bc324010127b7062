"""One short file a family: how its published config.json is read into bricks, and a table of tensor names."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Protocol

from ..config import Config
from ..errors import ConfigError
from ..models import Decoder
from ..tensors import Rules

# model_type in config.json -> the family's file. Constants only: no name from a file is ever imported.
FAMILIES = {
    "aquila": "llama",
    "bloom": "bloom",
    "codegen": "codegen",
    "falcon": "falcon",
    "gpt2": "gpt2",
    "gpt_neox": "gpt_neox",
    "gptj": "gptj",
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "mixtral",
    "moss": "codegen",
    "openai-gpt": "openai_gpt",
    "opt": "opt",
    "RefinedWeb": "falcon",
    "RefinedWebModel": "falcon",
    "skywork": "llama",
    "xverse": "llama",
    "Yi": "llama",
}

# Where a model_type says too little or is not there: a key that only this family's files have.
TELLING = (
    # model_type (None: not there), key, family
)


class Family(Protocol):
    """What a family's module offers."""

    TENSORS: Rules | Callable[[Config], Rules]

    def build(self, c: Config) -> Decoder:
        """Compose the bricks that a config.json describes."""
        ...


def family(c: Config) -> Family:
    """Return the family that a config.json names by its model_type.

    Raises ConfigError when it names none of those known.
    """
    kind = c.text("model_type")
    if kind not in FAMILIES:
        raise ConfigError(
            f"{c.where}: model_type = {kind[:80]!r} is not known here; known: {', '.join(sorted(FAMILIES))}"
        )
    return import_module(f".{FAMILIES[kind]}", __package__)

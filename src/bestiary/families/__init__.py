"""One short file a family: how its published config.json is read into bricks, and a table of tensor names."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import import_module
from typing import Protocol

from ..config import Config
from ..errors import ConfigError
from ..models import Model
from ..tensors import Rules

# model_type in config.json -> the family's file. Constants only: no name from a file is ever imported.
FAMILIES = {
    "albert": "albert",
    "annotated-transformer": "annotated_transformer",
    "aquila": "llama",
    "baichuan": "baichuan",
    "BlueLM": "bluelm",
    "bart": "bart",
    "bert": "bert",
    "bloom": "bloom",
    "camembert": "roberta",
    "chatglm": "chatglm",
    "codegen": "codegen",
    "cohere": "cohere",
    "deepseek": "deepseek_moe",
    "distilbert": "distilbert",
    "easylm": "easylm",
    "electra": "electra",
    "falcon": "falcon",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "glm": "glm",
    "glm4": "glm",
    "gpt2": "gpt2",
    "gpt_neox": "gpt_neox",
    "gptj": "gptj",
    "granite": "granite",
    "grok-1": "grok",
    "internlm": "internlm",
    "internlm2": "internlm2",
    "llama": "llama",
    "metalm": "metalm",
    "ministral": "llama",
    "marian": "marian",
    "mbart": "bart",
    "m2m_100": "marian",
    "mistral": "llama",
    "mixtral": "mixtral",
    "moss": "codegen",
    "mpnet": "mpnet",
    "mpt": "mpt",
    "mt5": "t5",
    "olmo": "olmo",
    "olmo2": "olmo2",
    "openai-gpt": "openai_gpt",
    "opt": "opt",
    "palm": "palm",
    "pegasus": "marian",
    "orion": "orion",
    "phi": "phi",
    "phi3": "phi3",
    "plugNLG": "plug",
    "plug_nlg_original-8192": "plug",
    "plbart": "bart",
    "qwen": "qwen",
    "RefinedWeb": "falcon",
    "RefinedWebModel": "falcon",
    "qwen2": "qwen2",
    "qwen2_moe": "qwen2_moe",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3_moe",
    "roberta": "roberta",
    "skywork": "llama",
    "smollm3": "smollm3",
    "stablelm": "stablelm",
    "starcoder2": "starcoder2",
    "t5": "t5",
    "tensor2tensor": "tensor2tensor",
    "transformer": "transformer",
    "umt5": "t5",
    "xlm-roberta": "roberta",
    "xverse": "llama",
    "yuan": "yuan",
    "Yi": "llama",
}

# Where a model_type says too little or is not there: a key that only this family's files have.
TELLING: tuple[tuple[str | None, str, str], ...] = (
    # model_type (None: not there), key, family
    (None, "max_attn_value", "grok"),
    (None, "n_heads", "llama_native"),
    (None, "heads_num", "tencent_pretrain"),
    ("internlm", "rope_theta", "internlm2"),  # its first days
    (None, "inner_hidden_size", "glm130b"),
    (None, "do_dim_trick", "cpm2"),
    (None, "dec_hidden_layers", "plug"),
    ("chatglm", "padded_vocab_size", "chatglm2"),
    ("transformer", "layout", "transformer_paper"),
)


class Family(Protocol):
    """What a family's module offers."""

    TENSORS: Rules | Callable[[Config], Rules]

    def build(self, c: Config) -> Model:
        """Compose the bricks that a config.json describes.

        A module may also have HEADS, where its heads are others than a decoder's, and SIZES: keys that its
        config.json files lack, each with the tensor whose rows it counts.
        """
        ...


def family(c: Config) -> Family:
    """Return the family that a config.json names by its model_type, or gives away by a key.

    Raises ConfigError when it names none of those known.
    """
    for telling, key, name in TELLING:
        if c.get("model_type", None) == telling and key in c:
            return import_module(f".{name}", __package__)
    kind = c.text("model_type")
    if kind not in FAMILIES:
        near = difflib.get_close_matches(kind, FAMILIES)
        known = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(sorted(FAMILIES))}"
        raise ConfigError(f"{c.where}: model_type = {kind[:80]!r} is not known here; {known}")
    return import_module(f".{FAMILIES[kind]}", __package__)

"""Small weights beside large ones: trained, saved and shared by themselves.

adapter = read("alpaca-lora-7b")          # a folder with adapter_config.json
adapted = attach(load("llama-7b"), adapter)
plain = merge(adapted)                    # or detach(adapted)
"""

from .attach import Adapted, attach, detach, merge
from .dora import DoRA
from .lora import LoRA, LoRAEmbedding
from .peft import Adapter, Factors, is_adapter, read
from .save import gather, save

__all__ = [
    "Adapted",
    "Adapter",
    "DoRA",
    "Factors",
    "LoRA",
    "LoRAEmbedding",
    "attach",
    "detach",
    "gather",
    "is_adapter",
    "merge",
    "read",
    "save",
]

"""Bestiary: open language models, one Transformer core, no remote code.

    from bestiary import LLM, SamplingParams

    llm = LLM("smollm2")
    print(llm.chat([{"role": "user", "content": "What is the capital of France?"}])[0].text)

These are the public names. They are imported when they are first used, so that neither `import bestiary` nor
a command line that prints its help waits for PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import (
    BestiaryError,
    CheckpointError,
    ConfigError,
    HubError,
    KernelError,
    RequestError,
    TemplateError,
    TokenizerError,
)

if TYPE_CHECKING:
    from .load import load as load_model
    from .run.generate import Chunk, Session
    from .run.llm import LLM, CompletionOutput, RequestOutput
    from .run.params import SamplingParams

__all__ = [
    "LLM",
    "BestiaryError",
    "CheckpointError",
    "Chunk",
    "CompletionOutput",
    "ConfigError",
    "HubError",
    "KernelError",
    "RequestError",
    "RequestOutput",
    "SamplingParams",
    "Session",
    "TemplateError",
    "TokenizerError",
    "load_model",
]

__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    """Import a public name on its first use (PEP 562)."""
    if name in ("LLM", "CompletionOutput", "RequestOutput"):
        from .run import llm

        return getattr(llm, name)
    if name in ("Chunk", "Session"):
        from .run import generate

        return getattr(generate, name)
    if name == "SamplingParams":
        from .run.params import SamplingParams

        return SamplingParams
    if name == "load_model":
        # Not plain `load`: the module of that name would take its place once it is imported.
        from .load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

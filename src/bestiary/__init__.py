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
    HostedError,
    HubError,
    KernelError,
    RequestError,
    TemplateError,
    TokenizerError,
)

if TYPE_CHECKING:
    from .load import load as load_model
    from .run.findings import Classified, Entity, Filled, Filler, Scored
    from .run.generate import Chunk
    from .run.hosted.model import Hosted
    from .run.llm import LLM
    from .run.outputs import BeamOutput, BeamRequestOutput, CompletionOutput, RequestOutput
    from .run.params import BeamParams, SamplingParams
    from .run.session import Session

__all__ = [
    "LLM",
    "BeamOutput",
    "BeamParams",
    "BeamRequestOutput",
    "BestiaryError",
    "CheckpointError",
    "Chunk",
    "Classified",
    "CompletionOutput",
    "ConfigError",
    "Entity",
    "Filled",
    "Filler",
    "Hosted",
    "HostedError",
    "HubError",
    "KernelError",
    "RequestError",
    "RequestOutput",
    "SamplingParams",
    "Scored",
    "Session",
    "TemplateError",
    "TokenizerError",
    "load_model",
]

__version__ = "0.5.0"


def __getattr__(name: str) -> object:
    """Import a public name on its first use (PEP 562)."""
    if name == "LLM":
        from .run.llm import LLM

        return LLM
    if name in ("BeamOutput", "BeamRequestOutput", "CompletionOutput", "RequestOutput"):
        from .run import outputs

        return getattr(outputs, name)
    if name in ("Classified", "Entity", "Filled", "Filler", "Scored"):
        from .run import findings

        return getattr(findings, name)
    if name == "Chunk":
        from .run.generate import Chunk

        return Chunk
    if name == "Hosted":
        from .run.hosted.model import Hosted

        return Hosted
    if name == "Session":
        from .run.session import Session

        return Session
    if name in ("BeamParams", "SamplingParams"):
        from .run import params

        return getattr(params, name)
    if name == "load_model":
        # Not plain `load`: the module of that name would take its place once it is imported.
        from .load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

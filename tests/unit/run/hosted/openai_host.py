"""What OpenAI's operators answer, and a model of the host that the tests run."""

from __future__ import annotations

from typing import Any

from bestiary import LLM, Hosted, SamplingParams
from tests.hosts import Host

HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "你好"}]
GREEDY = SamplingParams(temperature=0, max_tokens=8)
CHAT, COMPLETIONS, EMBEDDINGS = "/chat/completions", "/completions", "/embeddings"


def opened(host: Host) -> Hosted:
    llm = LLM(f"openai:org/m@{host.url}/v1")
    assert isinstance(llm, Hosted)
    return llm


def choice(content: str | None, reason: str | None = "stop", index: int = 0, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more}
    return {"index": index, "message": message, "finish_reason": reason}


def delta(content: str | None, reason: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    delta = {"content": content, **more}
    return {"choices": [{"index": index, "delta": delta, "finish_reason": reason}]}

"""The forms of calls, in the order in which a template is asked for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import bodies
from .bodies import Told
from .readers import Enclosed, Headed, Parse, Reader, Reasoned, Whole

Make = Callable[[Told, str], Reader]
"""Makes the reader of one answer: of the functions that the model was told of, and of the prompt."""


@dataclass(frozen=True)
class Style:
    """How a model writes calls.

    mark: what a template holds that teaches it. source: whose code reads it so. control: control tokens that
    are part of it, so that an answer's text must show them. prefix, digits: of the ids that calls get.
    """

    name: str
    mark: str
    source: str
    reader: Make
    control: tuple[str, ...] = ()
    prefix: str = "call_"
    digits: int = 24


def _enclosed(open_: str, close: str | None, parse: Parse, silent: tuple[str, ...] = ()) -> Make:
    return lambda told, prompt: Enclosed(told, open_, close, parse, silent=silent)


STYLES = (
    Style(
        "hermes",
        "<tool_call>",
        "NousResearch/Hermes-Function-Calling README; Qwen2.5's and SmolLM2's templates",
        _enclosed("<tool_call>", "</tool_call>", bodies.named),
    ),
    Style(
        "internlm2",
        "<|action_start|><|plugin|>",
        "InternLM/lmdeploy lmdeploy/serve/openai/tool_parser/internlm2_parser.py",
        _enclosed("<|action_start|><|plugin|>", "<|action_end|>", bodies.named),
        control=("<|action_start|>", "<|plugin|>", "<|action_end|>"),
    ),
    Style(
        "chatglm3",
        "tool_call(",
        "THUDM/chatglm3-6b modeling_chatglm.py process_response",
        lambda told, prompt: Headed(told),
        control=("<|assistant|>",),
    ),
    Style(
        "qwen",
        "\\nAction Input: ",
        "QwenLM/Qwen@2df8e8a openai_api.py parse_response",
        lambda told, prompt: Reasoned(told, begun=prompt.endswith("\nThought:")),
    ),
    Style(
        "moss",
        "<|Commands|>: ",
        "OpenMOSS/MOSS@c810e0b README_en.md",
        _enclosed("<|Commands|>:", "<eoc>", bodies.commanded, ("<|Inner Thoughts|>: ", "<eot>")),
        control=("<eot>", "<eoc>"),
    ),
    Style(
        "mistral",
        "[TOOL_CALLS]",
        "mistralai/Mistral-7B-Instruct-v0.3 tokenizer_config.json: ids have nine characters",
        _enclosed("[TOOL_CALLS]", None, bodies.named),
        control=("[TOOL_CALLS]",),
        prefix="",
        digits=9,
    ),
    Style(
        "bluelm",
        '"function_calls"',
        "vivo-ai-lab/BlueLM@afd48ca cli_demo_tool.py",
        lambda told, prompt: Whole(told, bodies.answered),
    ),
    Style(
        "llama3",
        '"parameters": dictionary of argument name',
        "meta-llama/Llama-3.1-8B-Instruct tokenizer_config.json",
        lambda told, prompt: Whole(told, bodies.named, front="<|python_tag|>"),
        control=("<|python_tag|>",),
    ),
)

# What an answer is written in that must be a call: its grammar is JSON's, whatever the model was taught.
FORCED = Style("json", "", "bodies.named", lambda told, prompt: Whole(told, bodies.named))


def of(template: str) -> Style | None:
    """Return the form that a template teaches; None where it is none of these."""
    return next((style for style in STYLES if style.mark in template), None)

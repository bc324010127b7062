"""Chat templates of the kinds that are in use, written for these tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """A template and what its model has for tokens.

    stop: ends an answer. roles: of a conversation that it takes. tools: it has a place for tools. exact: it
    never looks at what a message says. name: of the format that says the same as data. tags: what it puts
    around turns in plain text.
    """

    source: str
    control: tuple[str, ...]
    bos: str | None
    eos: str
    stop: str
    roles: tuple[str, ...] = ("system", "user", "assistant", "user", "assistant", "user")
    tools: bool = False
    exact: bool = True
    name: str | None = None
    tags: tuple[str, ...] = ()


_TURNS = ("user", "assistant", "user", "assistant", "user")
_IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

_CHATML = r"""
{%- for m in messages -%}
{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' }}
{%- endfor -%}
{{ '<|im_start|>assistant\n' if add_generation_prompt }}"""

_LLAMA_3 = r"""
{{- bos_token }}
{%- for m in messages -%}
<|start_header_id|>{{ m['role'] }}<|end_header_id|>{{ '\n\n' ~ m['content'].strip() }}<|eot_id|>
{%- endfor -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' if add_generation_prompt }}"""

_LLAMA_2 = r"""
{%- set ns = namespace(before='') -%}
{%- for m in messages -%}
{%- if m.role == 'system' -%}{% set ns.before = '<<SYS>>\n' ~ m.content ~ '\n<</SYS>>\n\n' %}
{%- elif m.role == 'user' -%}{{ bos_token ~ '[INST] ' ~ (ns.before ~ m.content) | trim ~ ' [/INST]' }}
{%- set ns.before = '' -%}
{%- else -%}{{ ' ' ~ m.content | trim ~ ' ' ~ eos_token }}
{%- endif -%}
{%- endfor -%}"""

_MISTRAL = r"""
{{- bos_token -}}
{%- for m in messages -%}
{%- if (m.role == 'user') != (loop.index0 is even) -%}
{{ raise_exception('user and assistant take turns') }}
{%- endif -%}
{{ '[INST] ' ~ m.content ~ ' [/INST]' if m.role == 'user' else m.content ~ eos_token }}
{%- endfor -%}"""

_MISTRAL_SYSTEM = r"""
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'system' -%}{{ ' [INST] ' ~ m.content ~ '\n\n' }}
{%- elif m.role == 'user' -%}
{{ ('' if loop.previtem.role == 'system' else ' [INST] ') ~ m.content ~ ' [/INST]' }}
{%- else -%}{{ ' ' ~ m.content ~ eos_token }}
{%- endif -%}
{%- endfor -%}"""

_MISTRAL_3 = r"""
{{- bos_token -}}
{%- if tools -%}{{ '[AVAILABLE_TOOLS] ' ~ tools | tojson ~ '[/AVAILABLE_TOOLS]' }}{%- endif -%}
{%- for m in messages -%}
{%- if m.role == 'user' -%}{{ '[INST] ' ~ m.content ~ '[/INST]' }}
{%- elif m.role == 'tool' -%}{{ '[TOOL_RESULTS] ' ~ {'content': m.content} | tojson ~ '[/TOOL_RESULTS]' }}
{%- elif m.tool_calls -%}
{{ '[TOOL_CALLS] ' ~ m.tool_calls | map(attribute='function') | list | tojson ~ eos_token }}
{%- else -%}{{ ' ' ~ m.content ~ eos_token }}
{%- endif -%}
{%- endfor -%}"""

_GEMMA = r"""
{{- bos_token -}} {%- for m in messages -%} {%- if m.role not in ('user', 'assistant') -%}{{
raise_exception('no role ' ~ m.role) }}{%- endif -%} <start_of_turn>{{ 'model' if m.role == 'assistant' else
'user' }}{{ '\n' ~ m.content | trim ~ '<end_of_turn>\n' }} {%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"""

_ZEPHYR = r"""
{%- for m in messages -%}
{{ '<|' ~ m.role ~ '|>\n' ~ m.content ~ eos_token ~ '\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>\n' }}{%- endif -%}"""

_PHI_3 = r"""
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}{{ m.content + '<|end|>\n' }}
{%- else -%}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}
{%- endif -%}
{%- if m.role == 'user' -%}{{ '<|assistant|>\n' }}{%- endif -%}
{%- endfor -%}"""

_CHATGLM_3 = r"""
{{- '[gMASK]sop' -}}
{%- for m in messages -%}<|{{ m.role }}|>{{ '\n ' ~ m.content }}{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"""

_DEEPSEEK = r"""
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'system' -%}{{ m.content ~ '\n\n' }}
{%- elif m.role == 'user' -%}{{ 'User: ' ~ m.content ~ '\n\n' }}
{%- else -%}{{ 'Assistant: ' ~ m.content ~ eos_token }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}Assistant:{%- endif -%}"""

# Turns with nothing between their texts: neighbours could make a token together.
_BARE = r"""
{%- for m in messages %}{{ m.content }}{% endfor %}<|end|>{{ '<|go|>' if add_generation_prompt }}"""

# The template's own text would make a token together with a message's, if that were let.
_HALF = r"""
{%- for m in messages -%}{{ '<|' ~ m.role ~ '|><|' ~ m.content ~ '|>' ~ eos_token }}{%- endfor -%}"""

# Decides by what messages say, as templates of models that think do, and ends a turn only where it must.
_THINKING = r"""
{%- for m in messages -%}
{%- set text = m.content -%}
{%- if m.role == 'assistant' and '</think>' in text -%}
{%- set text = text.split('</think>')[-1].lstrip('\n') -%}
{%- endif -%}
{{ '<|turn|>' ~ m.role ~ '\n' ~ text ~ ('' if text.endswith('<|stop|>') else '<|stop|>') }}
{%- endfor -%}
{{ '<|turn|>assistant\n' if add_generation_prompt }}"""

# Takes things out of texts, and makes them small: tokens come about where none was written.
_EDITING = r"""
{%- for m in messages -%}
{{ '<|turn|>' ~ m.role ~ '\n' ~ m.content | replace('~', '') | lower ~ '<|stop|>' }}
{%- endfor -%}"""

_LLAMA_3_TOKENS = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "<|reserved_special_token_0|>",
)
_MISTRAL_3_TOKENS = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    *("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
)
_CHATGLM_TOKENS = (
    *("[gMASK]", "sop", "eop", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
)
_GEMMA_TOKENS = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
_DEEPSEEK_TOKENS = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
_PHI_TOKENS = ("<s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
_LLAMA = ("<unk>", "<s>", "</s>")
_DEFAULT = r"""
{%- if messages[0].role != 'system' -%}
{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}
{%- endif -%}"""
_TURN_TOKENS = ("<|turn|>", "<|stop|>", "<|pad|>")
_TOOL_TURNS = (*_TURNS, "assistant", "tool", "assistant")

# control tokens, BOS, EOS, and what ends an answer
_OF_CHATML = (_IM, None, "<|im_end|>", "<|im_end|>")
_OF_CHATML_BOS = ((*_LLAMA, *_IM), "<s>", "</s>", "<|im_end|>")
_OF_LLAMA_3 = (_LLAMA_3_TOKENS, "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")
_OF_LLAMA = (_LLAMA, "<s>", "</s>", "</s>")
_OF_MISTRAL_3 = (_MISTRAL_3_TOKENS, "<s>", "</s>", "</s>")
_OF_GEMMA = (_GEMMA_TOKENS, "<bos>", "<eos>", "<end_of_turn>")
_OF_DEEPSEEK = (_DEEPSEEK_TOKENS, *_DEEPSEEK_TOKENS, _DEEPSEEK_TOKENS[1])
_OF_TURNS = (_TURN_TOKENS, None, "<|stop|>", "<|stop|>")

_INST = ("[INST]", "[/INST]")
_SYS = ("<<SYS>>", "<</SYS>>")
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>")

STYLES: dict[str, Style] = {
    "chatml": Style(_CHATML, *_OF_CHATML, name="chatml"),
    "chatml-bos": Style("{{ bos_token }}" + _CHATML, *_OF_CHATML_BOS, name="chatml-bos"),
    "chatml-default": Style(_DEFAULT + _CHATML, *_OF_CHATML, name="chatml-qwen2"),
    "llama-3": Style(_LLAMA_3, *_OF_LLAMA_3, name="llama3"),
    "llama-2": Style(_LLAMA_2, *_OF_LLAMA, name="llama2", tags=(*_INST, *_SYS)),
    "mistral": Style(_MISTRAL, *_OF_LLAMA, _TURNS, name="mistral", tags=_INST),
    "mistral-system": Style(_MISTRAL_SYSTEM, *_OF_LLAMA, name="mistral-system", tags=_INST),
    "mistral-3": Style(_MISTRAL_3, *_OF_MISTRAL_3, _TOOL_TURNS, tools=True),
    "gemma": Style(_GEMMA, *_OF_GEMMA, _TURNS, name="gemma"),
    "zephyr": Style(_ZEPHYR, *_OF_LLAMA, name="zephyr", tags=_ROLES),
    "phi-3": Style(_PHI_3, _PHI_TOKENS, "<s>", "<|endoftext|>", "<|end|>", name="phi3-system"),
    "chatglm-3": Style(_CHATGLM_3, _CHATGLM_TOKENS, None, "</s>", "<|user|>"),
    "deepseek": Style(_DEEPSEEK, *_OF_DEEPSEEK, name="deepseek-llm"),
    "bare": Style(_BARE, ("<|end|>", "<|go|>", "<|end|><|go|>"), None, "<|end|>", "<|end|>"),
    "half": Style(_HALF, (*_PHI_TOKENS[2:], "</s>"), None, "</s>", "</s>"),
    "thinking": Style(_THINKING, *_OF_TURNS, exact=False),
    "editing": Style(_EDITING, *_OF_TURNS, exact=False),
}

"""Prompts equal transformers' token by token, from Jinja and from formats kept as data; spans and stops."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from bestiary.errors import RequestError, TemplateError
from bestiary.text import prompts
from bestiary.text.chat import ChatTemplate, Prompt
from bestiary.text.jinja import Sandbox
from bestiary.text.tracing import joined

from .chat_models import KINDS, Model, NoSandbox, conversations, make
from .chat_styles import STYLES


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Model]:
    folder = tmp_path_factory.mktemp("models")
    return lambda style, kind: make(STYLES[style], kind, folder / f"{style}-{kind}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", STYLES)
def test_prompts_are_those_of_transformers(style: str, kind: str, model: Callable[[str, str], Model]) -> None:
    made = model(style, kind)
    for messages, generation in itertools.product(conversations(made.style, 12), (True, False)):
        prompt = made.chat.encode(messages, generation=generation)
        apply = made.reference.apply_chat_template
        assert prompt.text == apply(messages, tokenize=False, add_generation_prompt=generation)
        wanted = apply(messages, tokenize=True, add_generation_prompt=generation, return_dict=False)
        assert prompt.ids == wanted, messages
        check_spans(made, prompt, messages)


def check_spans(made: Model, prompt: Prompt, messages: list[dict[str, Any]]) -> None:
    """Spans cover the prompt in order; where a tokenizer keeps text as it is, they hold just the messages."""
    assert [span.start for span in prompt.spans] == [0, *(span.end for span in prompt.spans[:-1])]
    assert prompt.spans[-1].end == len(prompt.ids)
    if made.reference.backend_tokenizer.normalizer is not None or not made.style.exact:
        return
    for i, message in enumerate(messages):
        spans = [span for span in prompt.spans if span.message == i]
        assert all(span.is_content and span.role == message["role"] for span in spans)
        ids = [id for span in spans for id in prompt.ids[span.start : span.end]]
        shown = made.tokenizer.decode(ids, control=True, continues=True)
        wanted = message["content"].strip()
        if message["role"] == "tool":  # this one's template writes it as JSON
            wanted = json.dumps(wanted, ensure_ascii=False)[1:-1]
        # A token may hold the message's end and what the template writes after it.
        assert wanted in shown
        assert len(shown) <= (len(message["content"]) + 12 if wanted else 0), (shown, wanted)


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'Says what the "weather" is <now>.\nÄ',
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            },
        },
    }
]


@pytest.mark.parametrize("kind", KINDS)
def test_tools_and_parts_are_those_of_transformers(kind: str, model: Callable[[str, str], Model]) -> None:
    made = model("mistral-3", kind)
    function = {"name": "weather", "arguments": {"city": "Rome", "n": 3}}
    call = {"id": "call_1", "type": "function", "function": function}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "How is Rome?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": '{"sky": "clear"}', "tool_call_id": "call_1"},
        {"role": "assistant", "content": "Clear."},
        {"role": "user", "content": "Thanks"},
    ]
    prompt = made.chat.encode(messages, tools=TOOLS)
    apply = made.reference.apply_chat_template
    assert prompt.ids == apply(messages, tools=TOOLS, add_generation_prompt=True, return_dict=False)
    tools = [span for span in prompt.spans if span.role == "tools"]
    assert all(span.message is None and span.is_content for span in tools)
    ids = [id for span in tools for id in prompt.ids[span.start : span.end]]
    assert "weather" in made.tokenizer.decode(ids, continues=True)
    assert {span.message for span in prompt.spans} == {None, 0, 1, 2, 3, 4}


# Formats kept as data.


@pytest.mark.parametrize("style", [name for name, style in STYLES.items() if style.name])
def test_a_format_says_what_its_template_does(style: str) -> None:
    """The templates here were written from the published ones, the formats too, but not from one another."""
    own = STYLES[style]
    known = {one.name: one for one in prompts.formats().values()}[str(own.name)]
    tokens = {"eos_token": own.eos} | ({"bos_token": own.bos} if own.bos else {})
    checked = 0
    with Sandbox() as sandbox:
        for messages, generation in itertools.product(conversations(own, 120), (True, False)):
            if not known.fits(messages):
                continue
            pieces = known.render(messages, generation=generation, tokens=tokens)
            assert pieces is not None
            variables = {"messages": messages, "add_generation_prompt": generation, **tokens}
            assert joined(pieces) == sandbox.render(own.source, variables)
            assert [piece.owner for piece in pieces if piece.owner >= 0] == [
                i for i, message in enumerate(messages) if message["content"]
            ]
            checked += 1
    assert checked > 20


# From a published template's text (chatml) to its format.
CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize("source", [CHATML, CHATML.replace("\n", "\\n")])
def test_a_known_template_does_not_run(source: str, model: Callable[[str, str], Model]) -> None:
    made = model("chatml", "byte-level")
    chat = ChatTemplate(source, made.tokenizer, sandbox=NoSandbox())
    assert chat.name == "chatml"
    for messages in conversations(made.style, 20):
        assert chat.encode(messages) == made.chat.encode(messages) or any(
            # Only here it is known whose the white space at a message's edges is.
            message["content"] != message["content"].strip()
            for message in messages
        )
        assert chat.encode(messages).ids == made.chat.encode(messages).ids
    assert chat.stops == {made.tokenizer.control["<|im_end|>"]}
    with pytest.raises(AssertionError, match="a template ran"):
        chat.encode([{"role": "developer", "content": "a role that the format does not know"}])


def test_every_format_is_read_and_names_its_templates() -> None:
    formats = prompts.formats()
    assert {one.name for one in formats.values()} >= {style.name for style in STYLES.values() if style.name}
    assert all(len(digest) == 64 and int(digest, 16) >= 0 for digest in formats)
    assert all({"user", "assistant"} <= one.turns.keys() for one in formats.values())
    assert prompts.find("{{ messages }}") is None


@pytest.mark.parametrize("missing", ["bos_token", "eos_token"])
def test_a_format_wants_its_tokens(missing: str) -> None:
    known = {one.name: one for one in prompts.formats().values()}["llama2"]
    tokens = {name: "<s>" for name in ("bos_token", "eos_token") if name != missing}
    assert known.render([{"role": "user", "content": "x"}], generation=True, tokens=tokens) is None


# What ends an answer, and what begins a prompt.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", STYLES)
def test_stops(style: str, kind: str, model: Callable[[str, str], Model]) -> None:
    made = model(style, kind)
    control = made.tokenizer.control
    assert made.chat.stops == {control[made.style.stop], control[made.style.eos]}


def test_stops_of_a_template_that_refuses_or_shows_nothing(model: Callable[[str, str], Model]) -> None:
    tokenizer = model("chatml", "byte-level").tokenizer
    for source in ("{{ raise_exception('no') }}", "{{ messages[0].content }}", "{% for %}"):
        assert ChatTemplate(source, tokenizer).stops == {tokenizer.eos}
        assert ChatTemplate(source, tokenizer, stops=[7]).stops == {tokenizer.eos, 7}


def test_bos_is_written_by_the_template_or_not_at_all(model: Callable[[str, str], Model]) -> None:
    for style, wanted in {"llama-3": 1, "gemma": 1, "chatml-bos": 1, "zephyr": 0, "llama-2": 2}.items():
        made = model(style, "byte-level")
        roles = ("user", "assistant", "user")
        messages = [{"role": role, "content": "<s> <bos> <|begin_of_text|>"} for role in roles]
        assert made.chat.encode(messages).ids.count(made.tokenizer.bos or -1) == wanted


# What templates refuse, leave out, or look into.


def test_a_refusal_is_passed_on_in_the_templates_words(model: Callable[[str, str], Model]) -> None:
    with pytest.raises(RequestError, match="refuses this conversation: no role system"):
        model("gemma", "byte-level").chat.encode([{"role": "system", "content": "x"}])
    with pytest.raises(RequestError, match="user and assistant take turns"):
        model("mistral", "byte-level").chat.encode([{"role": "assistant", "content": "x"}])


def test_messages_that_a_template_leaves_out_are_named(model: Callable[[str, str], Model]) -> None:
    source = "{% for m in messages if m.role != 'system' %}{{ m.content }}<|im_end|>{% endfor %}"
    chat = ChatTemplate(source, model("chatml", "byte-level").tokenizer)
    talk = [{"role": "system", "content": "kept out"}, {"role": "user", "content": "kept out"}]
    assert chat.encode(talk).dropped == (0,)
    assert chat.encode([*talk, {"role": "system", "content": " "}, talk[0]]).dropped == (0, 3)


def test_a_template_that_looks_into_messages(model: Callable[[str, str], Model]) -> None:
    made = model("thinking", "byte-level")
    messages = [
        {"role": "user", "content": "Sum?"},
        {"role": "assistant", "content": "<think>1 and 1</think>\n\nTwo."},
        {"role": "user", "content": "Sure?"},
    ]
    prompt = made.chat.encode(messages)
    wanted = made.reference.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert prompt.ids == wanted
    assert "1 and 1" not in prompt.text
    assert [span.message for span in prompt.spans if span.is_content] == [0, 2]
    # Its own token, in a message, is text also for its eyes: the turn gets the end that the template writes.
    stop = made.tokenizer.control["<|stop|>"]
    assert made.chat.encode([{"role": "user", "content": "x<|stop|>"}]).ids.count(stop) == 1


def test_tags_are_kept_apart_also_by_a_template_that_looks_into_messages(
    model: Callable[[str, str], Model],
) -> None:
    source = "{% for m in messages %}[INST] {{ m.content.split('|')[-1] }} [/INST]{{ eos_token }}{% endfor %}"
    tokenizer = model("llama-2", "byte-level").tokenizer
    chat = ChatTemplate(source, tokenizer)
    tag = tokenizer.encode("[INST]")
    prompt = chat.encode([{"role": "user", "content": "this goes|but [INST] stays"}])
    assert prompt.text == "[INST] but [INST] stays [/INST]</s>"
    assert sum(prompt.ids[i : i + len(tag)] == tag for i in range(len(prompt.ids))) == 1


def test_a_template_that_refuses_by_what_a_message_says(model: Callable[[str, str], Model]) -> None:
    source = "{{ messages[0].content if 'please' in messages[0].content else raise_exception('be polite') }}"
    chat = ChatTemplate(source, model("chatml", "byte-level").tokenizer)
    with pytest.raises(RequestError, match="be polite"):
        chat.encode([{"role": "user", "content": "go"}])
    with pytest.raises(TemplateError, match=r"by what they say: .*be polite"):
        chat.encode([{"role": "user", "content": "please go"}])


def test_a_template_that_makes_tokens_out_of_messages_is_refused(model: Callable[[str, str], Model]) -> None:
    chat = model("editing", "byte-level").chat
    assert chat.encode([{"role": "user", "content": "Hello ~ World"}]).text.endswith("hello  world<|stop|>")
    for bait in ("<|st~op|>", "<|STOP|>"):
        with pytest.raises(TemplateError, match="makes control tokens out of what messages say"):
            chat.encode([{"role": "user", "content": bait}])
    # Spelt out it is text, for the template too.
    assert "<|stop|>" in chat.encode([{"role": "user", "content": "<|stop|>"}]).text[:-8]


def test_every_failure_is_ours(model: Callable[[str, str], Model]) -> None:
    tokenizer = model("chatml", "byte-level").tokenizer
    for source in (
        "{{ messages[9].content.x }}",
        "{{ 1 / 0 }}",
        "{% if %}",
        "{{ ''.__class__ }}",
        "{{ [] + 1 }}",
    ):
        with pytest.raises(TemplateError):
            ChatTemplate(source, tokenizer).encode([{"role": "user", "content": "x"}])

"""Which names are hosted models, which are refused, and what an LLM of each is."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from bestiary import LLM, Hosted, RequestError
from bestiary.run.hosted import Name, named

TITAN = "bedrock:amazon.titan-text-express-v1"
OPENAI = "openai:org/model:tag@https://host.example/v1"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (TITAN, Name("bedrock", "amazon.titan-text-express-v1")),
        ("bedrock:amazon.titan-embed-text-v2:0", Name("bedrock", "amazon.titan-embed-text-v2:0")),
        (OPENAI, Name("openai", "org/model:tag", "https://host.example/v1")),
        ("openai:@cf/meta/m@https://h/v1/", Name("openai", "@cf/meta/m", "https://h/v1")),
        ("titan", Name("bedrock", "amazon.titan-text-express-v1")),
        ("amazon.titan-text-express-v1", Name("bedrock", "amazon.titan-text-express-v1")),
        ("smollm2", None),
        ("./bedrock:x", None),
        ("org/name:file.gguf", None),
        (Path("bedrock:x"), None),
    ],
)
def test_names(name: str | Path, found: Name | None) -> None:
    assert named(name) == found


def test_an_llm_of_a_hosted_name_is_both() -> None:
    for name in (TITAN, OPENAI, "titan"):
        with LLM(name) as llm:
            assert isinstance(llm, Hosted)
            assert isinstance(llm, LLM)
            assert name in (llm.name, "titan")
    assert "chat_template" in inspect.signature(LLM).parameters


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("bedrock:", "should be bedrock:MODEL"),
        ("bedrock:a b", "should be bedrock:MODEL"),
        ("bedrock:anthropic.claude-v2", "only Titan Text and Titan Text Embeddings"),
        ("openai:gpt-4o", "an address is never guessed"),
        ("openai:m@host/v1", "an address is never guessed"),
        ("openai:m@ftp://host/v1", "no address"),
        ("openai:m@https:///v1", "no address"),
        ("openai:m@https://host:99999/v1", "no address"),
        ("openai:m@http://host.example/v1", "only https leaves this machine"),
        ("openai:m@http://10.0.0.1/v1", "only https leaves this machine"),
        ("openai:m@https://host/v1?api-version=1", "ends before"),
    ],
)
def test_names_that_are_none(name: str, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        LLM(name)


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(RequestError, match="from the environment alone") as error:
        LLM("openai:m@https://user:hunter2@host/v1")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "more", [{"device": "cpu"}, {"dtype": "float32"}, {"context": 4}, {"threads": 1}, {"adapter": "a"}]
)
def test_how_to_compute_is_not_ours_to_say(more: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=f"{next(iter(more))}=.* is computed by its operator"):
        LLM(TITAN, **more)  # type: ignore[arg-type]


def test_what_needs_the_model_itself_says_so() -> None:
    llm = LLM(TITAN)
    for ask in (
        lambda: llm.score("a"),
        lambda: llm.score("a", choices=["b"]),
        lambda: llm.classify("a"),
        lambda: llm.tag("a"),
        lambda: llm.fill_mask("a"),
        lambda: llm.beam_search("a"),
        llm.session,
        lambda: llm.model,
        lambda: llm.writer,
        lambda: llm.tokenizer,
        lambda: llm.template,
        lambda: llm.path,
    ):
        with pytest.raises(RequestError, match="its operator"):
            ask()
    with pytest.raises(AttributeError):
        llm.no_such_thing  # type: ignore[attr-defined]  # noqa: B018


def test_a_closed_one_says_so() -> None:
    llm = LLM(OPENAI)
    llm.close()
    llm.close()
    with pytest.raises(RequestError, match="was closed"):
        llm.generate("a")


def test_openai_writes_its_own_prompts() -> None:
    with pytest.raises(RequestError, match="chat_template='vicuna' has no effect"):
        LLM(OPENAI, chat_template="vicuna")

"""A model's template is found where published models have it, and what is wrong with it is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tokenizers import pre_tokenizers

from bestiary.errors import CheckpointError, TemplateError
from bestiary.text.chat import ChatTemplate
from bestiary.text.templates import open_template
from bestiary.text.tokenizer import Tokenizer, open_tokenizer

from .chat_models import make
from .chat_styles import STYLES

USER = [{"role": "user", "content": "x"}]


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, Tokenizer]:
    """A folder with a tokenizer and no template."""
    made = make(STYLES["chatml"], "byte-level", tmp_path)
    write(tmp_path, "tokenizer_config.json", {"eos_token": "<|im_end|>"})
    return tmp_path, made.tokenizer


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))


def found(model: tuple[Path, Tokenizer]) -> ChatTemplate:
    template = open_template(*model)
    assert template is not None
    return template


def test_no_template_is_none(model: tuple[Path, Tokenizer]) -> None:
    assert open_template(*model) is None
    (model[0] / "tokenizer_config.json").unlink()
    assert open_template(str(model[0]), model[1]) is None


def test_places(model: tuple[Path, Tokenizer]) -> None:
    folder, _ = model
    write(folder, "chat_template.json", {"chat_template": "json"})
    assert found(model).source == "json"
    write(folder, "tokenizer_config.json", {"chat_template": "config"})
    assert found(model).source == "config"
    named = [{"name": "rag", "template": "other"}, {"name": "default", "template": "chosen"}]
    write(folder, "tokenizer_config.json", {"chat_template": named})
    assert found(model).source == "chosen"
    write(folder, "chat_template.jinja", "a file of its own\n")
    assert found(model).source == "a file of its own\n"


def test_tokens_are_those_of_the_folder(model: tuple[Path, Tokenizer]) -> None:
    folder, tokenizer = model
    config: dict[str, Any] = {
        "chat_template": "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token }}"
    }
    write(folder, "tokenizer_config.json", config)
    assert found(model).encode(USER).text == "|<|im_end|>||"
    config |= {
        "bos_token": {"content": "<|im_start|>", "lstrip": False},
        "pad_token": "<|endoftext|>",
        "eos_token": None,
    }
    write(folder, "tokenizer_config.json", config)
    prompt = found(model).encode(USER)
    assert prompt.text == "<|im_start|>||<|endoftext|>|"
    assert [id for id in prompt.ids if id in tokenizer.control.values()] == [
        tokenizer.control["<|im_start|>"],
        tokenizer.control["<|endoftext|>"],
    ]


@pytest.mark.parametrize("ends", [7, [7, 8], None, [], "7", [True, 7.0]])
def test_stops_of_generation_config(ends: Any, model: tuple[Path, Tokenizer]) -> None:
    folder, tokenizer = model
    write(folder, "chat_template.jinja", STYLES["chatml"].source)
    write(folder, "generation_config.json", {"eos_token_id": ends})
    extra = (
        {7: {7}, "7": set()}.get(ends)
        if not isinstance(ends, list)
        else {id for id in ends if type(id) is int}
    )
    assert found(model).stops == {tokenizer.control["<|im_end|>"]} | (extra or set())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no json": ({"tokenizer_config.json": "{"}, "tokenizer_config.json"),
    "no object": ({"tokenizer_config.json": "[]"}, "tokenizer_config.json"),
    "none is default": (
        {"tokenizer_config.json": {"chat_template": [{"name": "rag", "template": "x"}, {"name": "y"}]}},
        r"of its chat templates \(rag, y\) none is called default",
    ),
    "no UTF-8": ({"chat_template.jinja": b"\xff"}, "chat_template.jinja: the chat template cannot be read"),
    "too long": ({"chat_template.jinja": "x" * 262_145}, "262145 characters; 262144 are the limit"),
    "much too long": ({"chat_template.jinja": "x" * 2_000_000}, "chat_template.jinja: .*bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, model: tuple[Path, Tokenizer]) -> None:
    files, reason = REFUSED[name]
    for file, value in files.items():
        if isinstance(value, bytes):
            (model[0] / file).write_bytes(value)
        else:
            write(model[0], file, value)
    with pytest.raises(TemplateError, match=reason):
        open_template(*model)


def test_a_link_out_of_the_folder_is_not_followed(
    model: tuple[Path, Tokenizer], tmp_path_factory: Any
) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret"
    secret.write_text("secret")
    (model[0] / "chat_template.jinja").symlink_to(secret)
    with pytest.raises(TemplateError, match="link that leads out"):
        open_template(*model)


# GGUF files.


@pytest.fixture
def gguf_file(tmp_path: Path) -> Callable[..., Path]:
    def write_gguf(template: str | None, **ids: int) -> Path:
        path = tmp_path / "gguf" / "model.gguf"
        path.parent.mkdir(exist_ok=True)
        writer = gguf.GGUFWriter(path, "llama")
        tokens = [
            "<|endoftext|>",
            "<|im_start|>",
            "<|im_end|>",
            *sorted(pre_tokenizers.ByteLevel.alphabet()),
            "In",
        ]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(tokens)
        writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
        writer.add_token_merges(["I n"])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(0)
        for name, id in ids.items():
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", id)
        if template is not None:
            writer.add_chat_template(template)
        writer.add_tensor("x", np.zeros((4, 32), dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write_gguf


def test_gguf(gguf_file: Callable[..., Path]) -> None:
    path = gguf_file("{{ bos_token }}" + STYLES["chatml"].source, eot=2, eom=1)
    tokenizer = open_tokenizer(path)
    for place in (path, path.parent):
        template = open_template(place, tokenizer)
        assert template is not None
        assert template.stops == {0, 1, 2}
        assert template.encode(USER).text == (
            "<|im_start|><|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"
        )
    (path.parent / "chat_template.jinja").write_text("the folder's own")
    template = open_template(path.parent, tokenizer)
    assert template is not None
    assert template.source == "the folder's own"


def test_gguf_without_a_template(gguf_file: Callable[..., Path]) -> None:
    path = gguf_file(None)
    tokenizer = open_tokenizer(path)
    assert open_template(path, tokenizer) is None
    (path.parent / "other.gguf").write_bytes(path.read_bytes())
    assert open_template(path.parent, tokenizer) is None
    path.write_bytes(b"GGUF")
    with pytest.raises(CheckpointError):
        open_template(path, tokenizer)

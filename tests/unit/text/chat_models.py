"""Small tokenizers of several kinds, written to folders as models are published, and read from there."""

from __future__ import annotations

import functools
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from bestiary.text.chat import ChatTemplate
from bestiary.text.jinja import Sandbox
from bestiary.text.templates import open_template
from bestiary.text.tokenizer import Tokenizer as Ours
from bestiary.text.tokenizer import open_tokenizer

from .chat_styles import Style

# byte-level: as GPT-2. sentencepiece: a space before every piece of text. first-space: only before the first.
# normalizing: looks for control tokens after normalization. stripping: control tokens take white space with
# them.
KINDS = ("byte-level", "sentencepiece", "first-space", "normalizing", "stripping")

_TEXT = """
The quick brown fox jumps over the lazy dog. What is the capital of France? The capital of France is Paris.
You are a helpful assistant. system user assistant tool content name arguments role model
[INST] <<SYS>> <</SYS>> [/INST] <|system|> <|user|> <|assistant|>
1 2 3 10 2024 3.14 x = y + 1; if (a < b) { return "c"; } Grüße, señor! Ça va? 日本語 中文 привет мир 🙂
""".split("\n")


@dataclass(frozen=True)
class Model:
    """A tokenizer and a template of a folder, ours and transformers'."""

    style: Style
    folder: Path
    tokenizer: Ours
    chat: ChatTemplate
    reference: Any


def make(style: Style, kind: str, folder: Path) -> Model:
    """Write a model's tokenizer and template to a folder, and open it twice."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Tokenizer.from_str(_trained(kind))
    flags = {"normalized": kind == "normalizing", "rstrip": kind == "stripping", "lstrip": False}
    made.add_special_tokens([AddedToken(spelling, special=True, **flags) for spelling in style.control])
    made.save(str(folder / "tokenizer.json"))
    config = {"bos_token": style.bos, "eos_token": style.eos, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": style.source}))
    tokenizer = open_tokenizer(folder)
    chat = open_template(folder, tokenizer)
    assert chat is not None
    reference = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        bos_token=style.bos,
        eos_token=style.eos,
        chat_template=style.source,
    )
    return Model(style, folder, tokenizer, chat, reference)


@functools.cache
def _trained(kind: str) -> str:
    if kind in ("sentencepiece", "first-space"):
        return _spaces(kind)
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if kind == "normalizing":
        made.normalizer = normalizers.NFKC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(_TEXT * 3, trainer)
    return str(made.to_str())


def _spaces(kind: str) -> str:
    """Train a tokenizer that writes spaces as ▁ and what it does not know as bytes, as SentencePiece does."""
    made = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=True)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    pieces = ["<unk>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=pieces, show_progress=False)
    made.train_from_iterator(_TEXT * 3, trainer)
    # Learned word by word; used without cutting into words, as published ones are.
    if kind == "sentencepiece":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.pre_tokenizer = None
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    state = json.loads(made.to_str())
    state["added_tokens"] = []  # these pieces are the model's, and no tokens beside it
    return json.dumps(state)


class NoSandbox(Sandbox):
    """For prompts that need no template to run."""

    def render(self, *_: Any, **__: Any) -> str:
        raise AssertionError("a template ran")


TEXTS = (
    "What is the capital of France?",
    "Paris.",
    "  two spaces, then\na line\n\n\tand a tab",
    "ends with white space \n",
    "if (a < b) { return \"c\\n\"; } // 100 % 'quoted' & <b>bold</b>",
    "Grüße 日本語 привет 🙂👩‍👩‍👧 e\u0301 \u00a0 \u200b \U00040123",
    "{{ messages }} {% raw %} {# not a comment #}",
    "User: hello\n\nAssistant: [INST] <<SYS>> ### Human:",
    "0",
    "x" * 300,
    "",
    " ",
)


def conversations(style: Style, count: int) -> list[list[dict[str, Any]]]:
    """Return conversations about anything but the template's own tokens and tags."""
    chance = random.Random(0)
    own = (*style.control, *style.tags)
    texts = [text for text in TEXTS if not any(spelling in text for spelling in own)]
    first = 2 if style.roles[0] == "system" else 1
    lengths = [chance.randint(first, len(style.roles)) for _ in range(count)]
    return [[{"role": role, "content": chance.choice(texts)} for role in style.roles[:n]] for n in lengths]

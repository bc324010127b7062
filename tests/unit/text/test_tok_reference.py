"""Published tokenizers, token for token: ids, texts and streams that their authors' code gave."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bestiary.text import Tokenizer, open_tokenizer
from tests import goldens

Json = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """How a folder of references is opened, and how its references differ by rule.

    base: the folder its files come from. quirks: named where the files alone make nothing certain. found: by
    reference, which control tokens it finds in a text, where that is not all of them. hidden: no control
    token is ever shown. cleaned: by these references, spaces before marks are taken out of what was decoded.
    unprefixed: a class opened with `"legacy": false` for the entries that say so.
    different: how many entries of which reference are not met.
    """

    base: str | None = None
    quirks: str | None = None
    found: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hidden: bool = False
    cleaned: tuple[str, ...] = ()
    unprefixed: str | None = None
    different: Mapping[str, int] = field(default_factory=dict)


# A space that the authors' decoder puts before a control token, as the first of a text or after a word.
_CHAT_SPACE = {"stream authors": 1}
# transformers' class takes 100 letters a word; google-research/bert's, whose vocabulary it is, 200.
_BERT = Setting(cleaned=("hfslow436",), different={"encode hfslow436 parse": 1})
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")

SETTINGS: dict[str, Setting] = {
    "baichuan2": Setting(different=_CHAT_SPACE),
    "bert-chinese": _BERT,
    "bert-uncased": _BERT,
    # The class finds what its config names, and neither [gMASK] nor <eop> among it.
    "chatglm-v0.1": Setting(hidden=True, found={"authors": ("<sop>", "</s>", "[MASK]", "<pad>", "<unk>")}),
    "chatglm-v1.1": Setting(
        hidden=True,
        cleaned=("authors",),
        found={"authors": ("<sop>", "<eop>", "[MASK]", "<pad>", "<unk>")},
    ),
    # These classes put their control tokens in by number, and find none in a text, or those of roles alone.
    "chatglm2": Setting(found={"authors": ()}),
    "chatglm3": Setting(base="chatglm2", quirks="chatglm3", found={"authors": (), "authors_est": _ROLES}),
    # llama.cpp shows a user-defined piece of spaces with its "▁"; SentencePiece does not.
    "gemma": Setting(different={"stream llamacpp": 1}),
    "glm-130b": Setting(base="chatglm-v0.1"),
    "gpt-neox-dolly": Setting(base="gpt-neox", quirks="dolly"),
    "gpt-neox-mpt-chat": Setting(base="gpt-neox", quirks="mpt-chat"),
    # The class finds "<unk>" in a text where literal spelling was asked for; no text may give that here.
    "gpt1": Setting(cleaned=("hf436",), different={"encode hf436 literal": 1}),
    # Stricter, as for Yi below: no text gives <eoh> and <eoa>, and decoding hides them; here both are known.
    "internlm": Setting(
        different=_CHAT_SPACE | {"encode sp literal": 2, "decode authors skip": 1, "decode sp": 1}
    ),
    "internlm2": Setting(different=_CHAT_SPACE),
    # Bytes that are no text: SentencePiece's rule, see stream.ByteFallback. And the slow class drops a space
    # that the text began with, where tokenizer.json and SentencePiece keep it.
    "llama": Setting(
        unprefixed="LlamaTokenizer",
        different={
            "decode tokenizers show": 3,
            "decode hfslow436legacy show": 2,
            "decode hfslow436legacy skip": 2,
        },
    ),
    "opt": Setting(base="gpt2"),
    "t5": Setting(unprefixed="T5Tokenizer"),
    # Stricter: the folder says that <|im_start|> is special, so no text gives it and decoding hides it, which
    # SentencePiece alone does not know. The slow class drops a space that a text begins with; the model was
    # made without a dummy prefix, so SentencePiece keeps it. llama.cpp as for Gemma.
    "yi": Setting(
        different={
            "encode sp literal": 3,
            "decode sp": 1,
            "decode hfslow436 show": 7,
            "decode hfslow436 skip": 6,
            "stream hfslow436": 1,
            "stream llamacpp": 1,
        }
    ),
}
CASES = goldens.cases("tokenizers/*")


def unpack(case: Path, setting: Setting, folder: Path) -> Path:
    """Write a case's files as they were published, and as nobody's code completed them."""
    for source in ([case.parent / setting.base] if setting.base else []) + [case]:
        for file in source.iterdir():
            skipped = ("META.json", "vectors.json", "added_tokens.json")
            if file.name in skipped or (source != case and file.name == "tokenizer_config.json"):
                continue
            packed = file.suffix == ".gz" and file.name != "bpe_simple_vocab_16e6.txt.gz"
            data = file.read_bytes()
            name = file.name.removesuffix(".gz") if packed else file.name
            (folder / name).write_bytes(gzip.decompress(data) if packed else data)
    return folder


def clean(text: str) -> str:
    """Return a text as transformers' clean_up_tokenization leaves it, by which "I do not" is "I don't"."""
    for mark in ".?!,":
        text = text.replace(f" {mark}", mark)
    text = text.replace(" ' ", "'").replace(" n't", "n't").replace(" 'm", "'m").replace(" do not", " don't")
    for ending in ("'s", "'ve", "'re"):
        text = text.replace(f" {ending}", ending)
    return text


@dataclass(frozen=True)
class Opened:
    """A folder's tokenizer, and how its references are compared with it."""

    tokenizer: Tokenizer
    unprefixed: Tokenizer | None
    setting: Setting

    def check(self, entry: Json) -> tuple[str, bool]:
        """Return what an entry tests, and whether it holds."""
        options, by = entry["options"], entry["by"].partition(" ")[0]
        mode = {True: " skip", False: " show"}.get(options.get("skip_special"), "")
        show = options.get("skip_special") is False and not self.setting.hidden
        cleaned = clean if by in self.setting.cleaned else str
        match entry["op"]:
            case "encode":
                return self._encodes(entry, by)
            case "decode":
                expected = entry.get("text")
                if expected is None:
                    expected = bytes.fromhex(entry["bytes_hex"]).decode("utf-8", "replace")
                return mode, cleaned(self.tokenizer.decode(entry["ids"], control=show)) == expected
        if "token_bytes_hex" in entry:
            pieces = [self.tokenizer.piece(token).hex() for token in entry["ids"]]
            return mode, pieces == entry["token_bytes_hex"]
        stream = self.tokenizer.stream(control=show)
        shown, good = "", True
        for token, whole in zip(entry["ids"], entry["prefix_texts"], strict=True):
            shown += stream.push(token)
            # A trailing U+FFFD in the reference is a character that is not whole yet.
            good = good and (cleaned(shown) == whole or whole.endswith("\ufffd"))
        return mode, good and cleaned(shown + stream.flush()) == entry["prefix_texts"][-1]

    def _encodes(self, entry: Json, by: str) -> tuple[str, bool]:
        options, tokenizer = entry["options"], self.tokenizer
        if options.get("legacy") is False and self.unprefixed is not None:
            tokenizer = self.unprefixed
        parse = options.get("specials") == "parse" or options.get("published_default", False)
        ids = tokenizer.encode(entry["text"], control=self.setting.found.get(by, True) if parse else False)
        if options.get("published_default"):
            ids = tokenizer.around.wrap(ids).ids
        return ("parse" if parse else "literal"), ids in [entry["ids"], *entry.get("accept", [])]


def opened(case: Path, folder: Path) -> Opened:
    setting = SETTINGS.get(case.name, Setting())
    unpack(case, setting, folder)
    tokenizer = open_tokenizer(folder, quirks=setting.quirks)
    if setting.unprefixed is None:
        return Opened(tokenizer, None, setting)
    config = {"tokenizer_class": setting.unprefixed, "legacy": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return Opened(tokenizer, open_tokenizer(next(folder.glob("*.model"))), setting)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_published_tokenizer(case: Path, tmp_path: Path) -> None:
    each = opened(case, tmp_path)
    entries = json.loads((case / "vectors.json").read_text(encoding="utf-8"))
    wrong: dict[str, list[Json]] = {}
    checked = 0
    for entry in entries:
        if entry["op"] == "encode_bytes":
            continue  # our texts are text
        mode, good = each.check(entry)
        checked += 1
        if not good:
            by = entry["by"].partition(" ")[0]
            mode = mode.strip() if entry["op"] != "stream" else ""
            wrong.setdefault(f"{entry['op']} {by} {mode}".strip(), []).append(entry)
    assert checked > 100
    assert {key: len(failed) for key, failed in wrong.items()} == dict(each.setting.different), wrong


@pytest.mark.parametrize(
    "case", goldens.cases("tokenizers/llama", "tokenizers/t5"), ids=lambda case: case.name
)
def test_a_model_file_after_a_control_token(case: Path, tmp_path: Path) -> None:
    unpack(case, Setting(), tmp_path)
    class_name = "LlamaTokenizer" if case.name == "llama" else "T5Tokenizer"
    config = {"tokenizer_class": class_name, "legacy": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    each = Opened(open_tokenizer(next(tmp_path.glob("*.model"))), None, Setting())
    entries = json.loads((case / "vectors.json").read_text(encoding="utf-8"))
    entries = [one for one in entries if one["op"] == "encode" and one["by"] == "hfslow436legacy"]
    assert len(entries) >= 3
    assert [entry for entry in entries if not each.check(entry)[1]] == []


@pytest.mark.parametrize("case", goldens.cases("format-gguf-llama"), ids=lambda case: case.name)
def test_a_gguf_file(case: Path) -> None:
    entries = json.loads((case / "META.json").read_text(encoding="utf-8"))["tokenize"]
    tokenizer = open_tokenizer(case / "model-q8_0.gguf")
    assert tokenizer.add_bos
    assert len(entries) >= 10
    for entry in entries:
        assert tokenizer.encode(entry["text"]) == entry["ids"]
        assert [tokenizer.bos, *tokenizer.encode(entry["text"], control=True)] == entry["ids_bos_special"]
        assert tokenizer.decode(entry["ids"], continues=True) == entry["detokenized"]

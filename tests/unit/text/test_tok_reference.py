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
    """What a folder needs beside its own files, because that was published in code, or with a model.

    base: the folder its files come from. write: files to put there. control: special tokens only code names.
    different: how many entries of which reference are not met.
    """

    base: str | None = None
    write: Mapping[str, Json] = field(default_factory=dict)
    control: Mapping[str, int] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    different: Mapping[str, int] = field(default_factory=dict)


def _config(class_name: str, **more: object) -> dict[str, Json]:
    return {"tokenizer_config.json": {"tokenizer_class": class_name, **more}}


_AQUILA = "<|startofpiece|> <|endofpiece|> <|LDWANG|> [MASK] [gMASK] [sMASK] [CLS] </s>".split()
_YUAN = {"<sep>": 77187, "<pad>": 77188} | {
    f"<{name}>": 134953 + i
    for i, name in enumerate(("mask", "predict", "FIM_SUFFIX", "FIM_PREFIX", "FIM_MIDDLE"))
}
_YUAN |= {f"<{name}>": 96635 + i for i, name in enumerate(("commit_before", "commit_msg", "commit_after"))}
_YUAN |= {
    f"<{name}>": 96630 + i
    for i, name in enumerate(
        ("jupyter_start", "jupyter_text", "jupyter_code", "jupyter_output", "empty_output")
    )
}
_CHAT_SPACE = {"stream authors": 1}  # a space that the authors' decoder puts before a control token
# transformers' class cleans spaces across words ("don ' t"), and takes 100 letters a word, not 200.
_BERT = {"decode hfslow436 skip": 2, "decode hfslow436 show": 2, "encode hfslow436 parse": 1}

SETTINGS: dict[str, Setting] = {
    "aquila": Setting(control={name: 100000 + i for i, name in enumerate(_AQUILA)}),
    "baichuan": Setting(),
    "baichuan2": Setting(different=_CHAT_SPACE),
    "bert-chinese": Setting(different=_BERT),
    "bert-uncased": Setting(different=_BERT),
    "bloom-tiny": Setting(),
    # The class's prefix [gMASK] sop, and control pieces that it never finds in a text, belong to the prompt.
    "chatglm2": Setting(different={"encode authors parse": 16}),
    "chatglm3": Setting(
        base="chatglm2", different={"encode authors parse": 16, "encode authors_est parse": 2}
    ),
    "chinese-alpaca": Setting(),
    "chinese-llama": Setting(),
    "deepseek-llm": Setting(),
    "falcon": Setting(),
    # llama.cpp shows a user-defined piece of spaces with its "▁"; SentencePiece does not.
    "gemma": Setting(different={"stream llamacpp": 1}),
    "gpt-neox": Setting(),
    "gpt-neox-dolly": Setting(
        base="gpt-neox", control={"### End": 50277, "### Instruction:": 50278, "### Response:\n": 50279}
    ),
    "gpt-neox-mpt-chat": Setting(base="gpt-neox", control={"<|im_start|>": 50277, "<|im_end|>": 50278}),
    # The class cleans spaces; and it finds "<unk>" in a text where literal spelling was asked for.
    "gpt1": Setting(
        write=_config("OpenAIGPTTokenizer"),
        rename={"encoder_bpe_40000.json": "vocab.json", "vocab_40000.bpe": "merges.txt"},
        different={"decode hf436": 7, "encode hf436 literal": 1},
    ),
    "gpt2": Setting(),
    "grok": Setting(),
    "internlm": Setting(different=_CHAT_SPACE),
    "internlm2": Setting(different=_CHAT_SPACE),
    # Bytes that are no text: SentencePiece's rule, see stream.ByteFallback. A space the slow class drops.
    "llama": Setting(
        different={
            "decode tokenizers show": 3,
            "decode hfslow436legacy show": 2,
            "decode hfslow436legacy skip": 2,
            "encode hfslow436nolegacy parse": 7,  # tokenizer.json was published with the legacy behaviour
        }
    ),
    "llama3": Setting(),
    "mistral-v1": Setting(),
    "mistral-v3": Setting(),
    "opt": Setting(
        base="gpt2",
        write=_config(
            "GPT2Tokenizer",
            bos_token="</s>",
            eos_token="</s>",
            unk_token="</s>",
            pad_token="<pad>",
            add_bos_token=True,
        ),
    ),
    "qwen": Setting(),
    "qwen2": Setting(),
    "t5": Setting(write=_config("T5Tokenizer"), different={"encode hfslow436nolegacy parse": 3}),
    # Stricter: the folder says that <|im_start|> is special, so no text gives it.
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
    "yuan": Setting(
        write=_config("LlamaTokenizer", eos_token="<eod>", add_bos_token=False, add_eos_token=False)
        | {"special_tokens_map.json": {}},
        control=_YUAN,
    ),
}
# Their code rewrites the text or numbers the tokens anew, which belongs to the systems' own descriptions.
ELSEWHERE = {"chatglm-v0.1", "chatglm-v1.1", "clip", "cpm2", "cpm2-zh-en", "glm-130b"}
CASES = [case for case in goldens.cases("tokenizers/*") if case.name not in ELSEWHERE]


def unpack(case: Path, setting: Setting, folder: Path) -> Path:
    """Write a case's files as they were published."""
    for source in ([case.parent / setting.base] if setting.base else []) + [case]:
        for file in source.iterdir():
            if file.name in ("META.json", "vectors.json") or file.name == "added_tokens.json":
                continue
            name = file.name.removesuffix(".gz")
            data = file.read_bytes()
            (folder / setting.rename.get(name, name)).write_bytes(
                gzip.decompress(data) if file.suffix == ".gz" else data
            )
    for name, content in setting.write.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def check(tokenizer: Tokenizer, entry: Json) -> tuple[str, bool]:
    """Return what an entry tests, and whether it holds."""
    options = entry["options"]
    mode = {True: " skip", False: " show"}.get(options.get("skip_special"), "")
    show = options.get("skip_special") is False
    match entry["op"]:
        case "encode":
            parse = options.get("specials") == "parse" or options.get("published_default", False)
            ids = tokenizer.encode(entry["text"], control=parse)
            if options.get("published_default"):
                before: list[int | None] = [tokenizer.bos] if tokenizer.add_bos else []
                after = [tokenizer.eos] if tokenizer.add_eos else []
                return "parse", [*before, *ids, *after] == entry["ids"]
            return ("parse" if parse else "literal"), ids in [entry["ids"], *entry.get("accept", [])]
        case "decode":
            expected = entry.get("text")
            if expected is None:
                expected = bytes.fromhex(entry["bytes_hex"]).decode("utf-8", "replace")
            return mode, tokenizer.decode(entry["ids"], control=show) == expected
    if "token_bytes_hex" in entry:
        return mode, [tokenizer.piece(token).hex() for token in entry["ids"]] == entry["token_bytes_hex"]
    stream = tokenizer.stream(control=show)
    shown, good = "", True
    for token, whole in zip(entry["ids"], entry["prefix_texts"], strict=True):
        shown += stream.push(token)
        # A trailing U+FFFD in the reference is a character that is not whole yet.
        good = good and (shown == whole or whole.endswith("\ufffd"))
    return mode, good and shown + stream.flush() == entry["prefix_texts"][-1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_published_tokenizer(case: Path, tmp_path: Path) -> None:
    setting = SETTINGS[case.name]
    tokenizer = open_tokenizer(unpack(case, setting, tmp_path), control=setting.control)
    entries = json.loads((case / "vectors.json").read_text(encoding="utf-8"))
    wrong: dict[str, list[Json]] = {}
    checked = 0
    for entry in entries:
        if entry["op"] == "encode_bytes":
            continue  # our texts are text
        mode, good = check(tokenizer, entry)
        checked += 1
        if not good:
            by = entry["by"].partition(" ")[0]
            mode = mode.strip() if entry["op"] != "stream" else ""
            wrong.setdefault(f"{entry['op']} {by} {mode}".strip(), []).append(entry)
    assert checked > 100
    assert {key: len(failed) for key, failed in wrong.items()} == dict(setting.different), wrong


@pytest.mark.parametrize(
    "case", goldens.cases("tokenizers/llama", "tokenizers/t5"), ids=lambda case: case.name
)
@pytest.mark.parametrize("legacy", [True, False])
def test_both_ways_after_a_control_token(case: Path, legacy: bool, tmp_path: Path) -> None:
    class_name = "LlamaTokenizer" if case.name == "llama" else "T5Tokenizer"
    folder = unpack(case, Setting(write=_config(class_name, legacy=legacy)), tmp_path)
    tokenizer = open_tokenizer(next(folder.glob("*.model")))
    entries = json.loads((case / "vectors.json").read_text(encoding="utf-8"))
    by = "hfslow436legacy" if legacy else "hfslow436nolegacy"
    entries = [entry for entry in entries if entry["op"] == "encode" and entry["by"] == by]
    assert len(entries) >= 3
    assert [entry for entry in entries if not check(tokenizer, entry)[1]] == []


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

"""Published tokenizers, token for token: ids, texts and streams that their authors' code gave."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import BestiaryError
from ..text import Tokenizer, open_tokenizer
from .finding import Finding

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
    # Stricter, as for InternLM below: no text gives the tokens of turns, and decoding hides them.
    "baichuan2": Setting(
        different=_CHAT_SPACE | {"encode sp literal": 1, "decode authors skip": 1, "decode sp": 1}
    ),
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
    # Stricter, as for Baichuan 2. llama.cpp shows a piece of spaces with its "▁"; SentencePiece does not.
    "gemma": Setting(different={"stream llamacpp": 1, "encode sp literal": 1, "decode sp": 1}),
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
    """Open a case's tokenizer as it was published, from files that are written to a folder."""
    setting = SETTINGS.get(case.name, Setting())
    unpack(case, setting, folder)
    tokenizer = open_tokenizer(folder, quirks=setting.quirks)
    if setting.unprefixed is None:
        return Opened(tokenizer, None, setting)
    config = {"tokenizer_class": setting.unprefixed, "legacy": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return Opened(tokenizer, open_tokenizer(next(folder.glob("*.model"))), setting)


def wrong(each: Opened, case: Path) -> tuple[int, dict[str, list[Json]]]:
    """Return how many entries of a folder were tried, and those not met, by what and whose they are."""
    found: dict[str, list[Json]] = {}
    entries = json.loads((case / "vectors.json").read_text(encoding="utf-8"))
    entries = [entry for entry in entries if entry["op"] != "encode_bytes"]  # our texts are text
    for entry in entries:
        mode, good = each.check(entry)
        if not good:
            by = entry["by"].partition(" ")[0]
            mode = mode.strip() if entry["op"] != "stream" else ""
            found.setdefault(f"{entry['op']} {by} {mode}".strip(), []).append(entry)
    return len(entries), found


@cache
def compare(case: Path) -> Finding:
    """Return whether a published tokenizer's ids and texts are those of its authors' code."""
    what = f"{case.name}: ids, texts, streams"
    try:
        with tempfile.TemporaryDirectory() as folder:
            each = opened(case, Path(folder))
            count, found = wrong(each, case)
    except BestiaryError as error:
        return Finding(what, False, note=str(error))
    unmet = {key: len(entries) for key, entries in found.items()}
    ruled = sum(each.setting.different.values())
    said = f"{count} entries" + (f", {ruled} of them otherwise by our rule" if ruled else "")
    if unmet != dict(each.setting.different):
        said = ", ".join(f"{count} of {key}" for key, count in unmet.items())
    return Finding(what, unmet == dict(each.setting.different), note=said)

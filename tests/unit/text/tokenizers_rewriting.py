"""Small tokenizers of the kinds that rewrite a text first, each beside its rule in plain Python."""

from __future__ import annotations

import functools
import gzip
import html
import io
import itertools
import re
from collections.abc import Callable
from typing import Any

import ftfy
import jieba
import regex
import sentencepiece
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece_model

from bestiary.text import open_tokenizer
from bestiary.text.stream import BYTE_OF
from tests.unit.text import tokenizers_made
from tests.unit.text.tokenizers_made import CORPUS, Made, folder_of

IMAGES = 40
ICE_SPECIAL = "[MASK] [gMASK] [sMASK] <unused_0> <sop> <eop> <ENC> <dBLOCK>".split()
ICE_CONFIG = {
    "tokenizer_class": "ChatGLMTokenizer",
    "bos_token": "<sop>",
    "eos_token": "<eop>",
    "mask_token": "[MASK]",
    "num_image_tokens": IMAGES,
}


@functools.cache
def ice_file() -> bytes:
    """Return a trained model like icetk's, before ChatGLM's code adds its pieces."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(line.replace("\n", "<n>") for line in CORPUS),
        model_writer=out,
        vocab_size=140,
        model_type="unigram",
        control_symbols=["<pad>"],
        user_defined_symbols=["<n>"],
        hard_vocab_limit=False,
        minloglevel=3,
    )
    return out.getvalue()


def _icetk() -> Made:
    folder = folder_of({"ice_text.model": ice_file(), "tokenizer_config.json": ICE_CONFIG})
    ours = open_tokenizer(folder)
    proto: Any = sentencepiece_model.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(ice_file())
    written = {"\n": "<n>", "\t": "<|tab|>"} | {" " * i: f"<|blank_{i}|>" for i in range(80, 1, -1)}
    added = [(name, 3) for name in ICE_SPECIAL] + [("<|tab|>", 4)]
    added += [(f"<|blank_{i}|>", 4) for i in range(2, 81)] + [(f"<0x{i:02X}>", 6) for i in range(256)]
    for name, kind in added:
        proto.pieces.add(piece=name, score=0.0, type=kind)
    proto.trainer_spec.byte_fallback = True
    library = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    silent = set(ours.control.values())

    def encoded(text: str) -> list[int]:
        for plain, piece in written.items():
            text = text.replace(plain, piece)
        return [IMAGES + one for one in library.encode(text)]

    def decoded(ids: list[int]) -> str:
        kept = [one for one in ids if IMAGES <= one < IMAGES + len(library) and one not in silent]
        text: str = library.decode([one - IMAGES for one in kept])
        for plain, piece in written.items():
            text = text.replace(piece, plain)
        return text

    return Made(ours, encoded, decoded, None, folder)


CPM_NAMES = ["<unk>", "<s>", "</s>", "▃", "<sep>", "<pad>", "<mask>", "<eod>", "▁", ",", "▂"]
CPM_WORDS = (
    "The quick brown fox def world 你好 世界 您 好 世 界 ， 。 ！ <s_0> < > s _ 0 1 2 34 ' don".split()
)


def cpm_vocab(*, english: bool) -> list[str]:
    """Return a vocabulary like CPM-2's, a token a line; pairs of letters as well."""
    letters = sorted(set("".join(CORPUS)) - set(" \n\t"))
    pairs = ["th", "he", "qu", "ro", "wn", "ll", "or", "ld"]
    # As in the published vocabulary, no token is marked that counts as Chinese.
    inside = [f"##{one}" for one in (*pairs, *letters) if not _chinese(one)] if english else []
    return list(dict.fromkeys([*CPM_NAMES, *CPM_WORDS, *letters, *pairs, *inside]))


@functools.cache
def _jieba() -> Any:
    words = jieba.Tokenizer()
    words.tmp_dir = str(folder_of({}))
    jieba.setLogLevel(60)
    return words


def _chinese(token: str) -> bool:
    return token == "▂" or any("\u4e00" <= one <= "\u9fff" for one in token)


def _cpm_encoded(text: str, vocab: dict[str, int], *, english: bool) -> list[int]:
    if not english:
        kept = "，！（）？；："
        text = "".join(
            one if one in kept or not 0xFF01 <= ord(one) <= 0xFF5E else chr(ord(one) - 0xFEE0) for one in text
        ).replace("\u3000", " ")
    out = []
    for word in _jieba().cut(text):
        word = word.replace(" ", "▂").replace("\n", "▃")
        if len(word) > 200:
            out.append("<unk>")
            continue
        start = 0
        while start < len(word):
            tokens = [word[start:end] for end in range(len(word), start, -1)]
            marked = [(("##" if english and start and not _chinese(one) else "") + one) for one in tokens]
            found = next((i for i, one in enumerate(marked) if one in vocab and one not in CPM_CONTROL), None)
            out.append("<unk>" if found is None else marked[found])
            start += 1 if found is None else len(tokens[found])
    ids = [vocab[one] for one in out]
    if not english or not ids:
        return ids
    middle = [
        vocab[one]
        for i, one in enumerate(out[1:-1], 1)
        if one != "▂" or _chinese(out[i - 1]) or _chinese(out[i + 1])
    ]
    return [ids[0], *middle, ids[-1]]


CPM_CONTROL = {"<s>", "</s>", "<sep>", "<pad>", "<mask>", "<eod>", "<s_0>"}


def _cpm_decoded(tokens: list[str], *, english: bool) -> str:
    words = tokens[:1]
    apart = []
    for token in tokens[1:]:
        if english and token.startswith("##"):
            words[-1] += token[2:]
            continue
        apart.append(english and not _chinese(words[-1]) and not _chinese(token))
        words.append(token)
    text = "".join(" " * space + word for space, word in zip([False, *apart], words, strict=False))
    return text.replace("▂", " ").replace("▃", "\n")


def _cpm(*, english: bool) -> Made:
    words = cpm_vocab(english=english)
    config = {"tokenizer_class": "EncDecTokenizer", "eos_token": "<eod>", "english": english}
    folder = folder_of({"vocab.txt": "\n".join(words) + "\n", "tokenizer_config.json": config})
    vocab = {word: number for number, word in enumerate(words)}
    return Made(
        open_tokenizer(folder),
        lambda text: _cpm_encoded(text, vocab, english=english),
        lambda ids: _cpm_decoded(
            [words[one] for one in ids if 0 <= one < len(words) and words[one] not in CPM_CONTROL],
            english=english,
        ),
        None,
        folder,
    )


def clip_merges() -> list[str]:
    """Return some merges of CLIP's kind."""
    words = "the quick brown fox jumps over lazy dog hello world def print don".split()
    merges: dict[str, None] = {}
    for word in words:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges[f"{parts[0]} {parts[1]}"] = None
            parts = [parts[0] + parts[1], *parts[2:]]
    return list(merges)


def clip_file() -> bytes:
    return gzip.compress(("#version: 0.2\n" + "\n".join(clip_merges()) + "\n").encode())


CLIP_WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE)


def _clip() -> Made:
    folder = folder_of({"bpe_simple_vocab_16e6.txt.gz": clip_file()})
    merges = [(left, right) for left, right in map(str.split, clip_merges())]
    visible = {byte: one for one, byte in BYTE_OF.items()}
    tokens = [*BYTE_OF, *(f"{one}</w>" for one in BYTE_OF), *map("".join, merges)]
    vocab = {token: number for number, token in enumerate(tokens)}
    ranks = {merge: rank for rank, merge in enumerate(merges)}

    def split(word: str) -> list[str]:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while known := [pair for pair in itertools.pairwise(parts) if pair in ranks]:
            best = min(known, key=lambda pair: ranks[pair])
            at, joined = 0, list[str]()
            while at < len(parts):
                together = tuple(parts[at : at + 2]) == best
                joined.append("".join(best) if together else parts[at])
                at += 2 if together else 1
            parts = joined
        return parts

    def encoded(text: str) -> list[int]:
        text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
        text = re.sub(r"\s+", " ", text).strip().lower()
        words = ["".join(visible[byte] for byte in word.encode()) for word in CLIP_WORDS.findall(text)]
        return [vocab[part] for word in words for part in split(word)]

    def decoded(ids: list[int]) -> str:
        text = "".join(tokens[one] for one in ids if 0 <= one < len(tokens))
        return bytes(BYTE_OF[one] for one in text).decode("utf-8", "replace").replace("</w>", " ")

    return Made(open_tokenizer(folder), encoded, decoded, None, folder)


_KINDS: dict[str, Callable[[], Made]] = {
    "icetk": _icetk,
    "cpm": lambda: _cpm(english=False),
    "cpm-english": lambda: _cpm(english=True),
    "clip": _clip,
}
REWRITING = list(_KINDS)


@functools.cache
def made(kind: str) -> Made:
    """Return the tokenizer of a kind, of these or of `tokenizers_made`; it is made once."""
    return _KINDS[kind]() if kind in _KINDS else tokenizers_made.made(kind)

"""Small tokenizers of every kind, trained here, each with the library that is its reference."""

from __future__ import annotations

import atexit
import base64
import functools
import io
import json
import shutil
import tempfile
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sentencepiece
import tiktoken
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece_model

from bestiary.text import Tokenizer, open_tokenizer
from bestiary.text.gguf import from_metadata
from bestiary.text.stream import BYTE_OF

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and doesn't stop. 12 345 6789",
    "def f(x):\n    return x + 1\n\n\nprint(f(2))  # well\t\ttabs",
    "naïve café, Straße, Привет мир, 你好，世界！ こんにちは 🙂🚀 ½ ²",
    "She said: 'we'll see', I've heard; they're here. HELLO World! <s> </s> user",
] * 8
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@dataclass(frozen=True)
class Made:
    """A tokenizer opened by bestiary, and the same by its own library.

    encode: the library's ids of a text without control tokens. decode: its text, control tokens left out.
    back: what of a text comes back, None where letters or spaces are changed. folder: where its files lie.
    """

    ours: Tokenizer
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    back: Callable[[str], str] | None = None
    folder: Path = field(default_factory=Path)


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


@functools.cache
def _byte_level() -> str:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=CHATML, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    made.add_tokens(["    ", tokenizers.AddedToken("<tool>", normalized=False)])
    return made.to_str()


def by_rule(tokens: list[str]) -> list[str]:
    """Return the text of tokens, byte runs read character by character; slow and plain."""
    out: list[str] = []
    run = b""
    for token in [*tokens, ""]:
        if len(token) == 6 and token.startswith("<0x") and token[3:5].isalnum() and token != "<0xGG>":
            run += bytes.fromhex(token[3:5])
            continue
        while run:
            for size in (1, 2, 3, 4):
                try:
                    out.append(run[:size].decode())
                except UnicodeDecodeError:
                    continue
                break
            else:
                out.append("\ufffd")
                size = 1
            run = run[size:]
        out.append(token)
    return out


def byte_level_json() -> dict[str, Any]:
    """Return a trained tokenizer.json like GPT-2's, with control tokens, and with plain added ones."""
    found: dict[str, Any] = json.loads(_byte_level())
    return found


@functools.cache
def _wordpiece() -> str:
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=200))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=260, special_tokens=names, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    return made.to_str()


def llama_json() -> dict[str, Any]:
    """Return a trained tokenizer.json like Llama's, whose merges can even make "</s>" out of letters."""
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    names = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=460, special_tokens=names + BYTES, show_progress=False)
    made.train_from_iterator([line.replace("\n", " ") for line in CORPUS], trainer)
    found: dict[str, Any] = json.loads(made.to_str())
    found["added_tokens"] = [token for token in found["added_tokens"] if token["content"] in names]
    model = found["model"]
    model["byte_fallback"] = True
    for left, right in (("<", "/"), ("</", "s"), ("</s", ">")):
        model["vocab"].setdefault(left + right, len(model["vocab"]))
        model["merges"].insert(0, [left, right])
    replaced = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    parts = [replaced, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]
    found["decoder"] = {"type": "Sequence", "decoders": parts}
    return found


def unigram_json() -> dict[str, Any]:
    """Return a trained tokenizer.json like T5's. Its vocabulary holds "</s>" with the best score of all."""
    made = tokenizers.Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    names = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=160, special_tokens=names, unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    found: dict[str, Any] = json.loads(made.to_str())
    return found


def wordpiece_json() -> dict[str, Any]:
    """Return a trained tokenizer.json like BERT's."""
    found: dict[str, Any] = json.loads(_wordpiece())
    return found


@functools.cache
def model_file(algorithm: str) -> bytes:
    """Return a trained SentencePiece model: "bpe" like Llama's, "unigram" like T5's."""
    out = io.BytesIO()
    like_llama = {
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    }
    none: dict[str, Any] = {}
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(line.replace("\n", " ") for line in CORPUS),
        model_writer=out,
        vocab_size=480 if algorithm == "bpe" else 140,
        model_type=algorithm,
        user_defined_symbols=["<|im_start|>", "<|im_end|>", "<mid>"],
        control_symbols=["<turn>"],
        hard_vocab_limit=False,
        minloglevel=3,
        **(like_llama if algorithm == "bpe" else none),
    )
    return out.getvalue()


def ranks(file: dict[str, Any]) -> dict[bytes, int]:
    """Return a byte-level tokenizer.json's tokens in tiktoken's order."""
    tokens = [*BYTE_OF, *("".join(pair) for pair in file["model"]["merges"])]
    return {bytes(BYTE_OF[one] for one in token): rank for rank, token in enumerate(dict.fromkeys(tokens))}


@functools.cache
def _place() -> Path:
    place = Path(tempfile.mkdtemp(prefix="bestiary-tokenizers-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


def folder_of(files: dict[str, bytes | str | dict[str, Any]]) -> Path:
    """Return a new folder with these files."""
    folder = Path(tempfile.mkdtemp(dir=_place()))
    for name, content in files.items():
        if isinstance(content, dict):
            content = json.dumps(content)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def _of_json(file: dict[str, Any], *, back: Callable[[str], str] | None = None) -> Made:
    folder = folder_of({"tokenizer.json": file})
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return _of_library(open_tokenizer(folder), library, folder, back=back)


def _of_llama_json() -> Made:
    """Return the Llama-like one, with SentencePiece's way of decoding bytes; see stream.ByteFallback."""
    found = _of_json(llama_json(), back=str)
    names = {number: token for token, number in llama_json()["model"]["vocab"].items()}
    silent = {0, 1, 2}

    def decoded(ids: list[int]) -> str:
        text = "".join(by_rule([names[one] for one in ids if one in names and one not in silent]))
        return text.replace("▁", " ").removeprefix(" ")

    return replace(found, decode=decoded)


def _of_library(
    ours: Tokenizer, library: tokenizers.Tokenizer, folder: Path, *, back: Callable[[str], str] | None = None
) -> Made:
    return Made(
        ours,
        lambda text: library.encode(text, add_special_tokens=False).ids,
        lambda ids: library.decode(ids, skip_special_tokens=True),
        back,
        folder,
    )


def _of_model_file(algorithm: str) -> Made:
    folder = folder_of(
        {"tokenizer.model": model_file(algorithm), "tokenizer_config.json": SENTENCEPIECE_CONFIG}
    )
    library = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    ours = open_tokenizer(folder)
    silent = set(ours.control.values())
    return Made(
        ours,
        library.encode,
        lambda ids: library.decode([one for one in ids if one not in silent and one < len(library)]),
        str if algorithm == "bpe" else None,
        folder,
    )


SENTENCEPIECE_CONFIG = {
    "tokenizer_class": "LlamaTokenizer",
    "additional_special_tokens": ["<|im_start|>", "<turn>"],
    "chat_template": "<|im_start|>{{ messages[0].content }}<|im_end|>",
    "model_max_length": 10**30,
}


def _of_tiktoken() -> Made:
    table = ranks(byte_level_json())
    lines = b"\n".join(b"%s %d" % (base64.b64encode(token), rank) for token, rank in table.items())
    folder = folder_of(
        {"qwen.tiktoken": lines, "tokenizer_config.json": {"tokenizer_class": "QWenTokenizer"}}
    )
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    library = tiktoken.Encoding("made", pat_str=pattern, mergeable_ranks=table, special_tokens={})
    return Made(
        open_tokenizer(folder),
        lambda text: library.encode_ordinary(_nfc(text)),
        lambda ids: library.decode([one for one in ids if one < len(table)]),
        _nfc,
        folder,
    )


def slow_files() -> dict[str, bytes | str | dict[str, Any]]:
    """Return vocab.json and merges.txt of the byte-level tokenizer, without its plain added tokens."""
    model = byte_level_json()["model"]
    merges = "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in model["merges"])
    return {"vocab.json": model["vocab"], "merges.txt": merges}


def _of_slow_files() -> Made:
    file = byte_level_json()
    file["added_tokens"] = [token for token in file["added_tokens"] if token["content"] == "<|endoftext|>"]
    library = tokenizers.Tokenizer.from_str(json.dumps(file))
    folder = folder_of(slow_files())
    return _of_library(open_tokenizer(folder), library, folder, back=str)


def vocab_txt() -> str:
    """Return the WordPiece vocabulary as vocab.txt."""
    vocab: dict[str, int] = wordpiece_json()["model"]["vocab"]
    return "\n".join(sorted(vocab, key=lambda word: vocab[word])) + "\n"


def _of_vocab_txt() -> Made:
    library = tokenizers.Tokenizer.from_str(json.dumps(wordpiece_json()))
    folder = folder_of({"vocab.txt": vocab_txt()})
    return _of_library(open_tokenizer(folder), library, folder)


def gguf_bpe() -> dict[str, Any]:
    """Return GGUF's keys for the byte-level tokenizer."""
    file = byte_level_json()
    tokens = file["model"]["vocab"] | {token["content"]: token["id"] for token in file["added_tokens"]}
    tokens = sorted(tokens, key=lambda token: tokens[token])
    special = {token["content"]: 3 if token["special"] else 4 for token in file["added_tokens"]}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [special.get(token, 1) for token in tokens],
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in file["model"]["merges"]],
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.chat_template": "<|im_start|>{{ messages[0].content }}<|im_end|>",
    }


def gguf_model(algorithm: str) -> dict[str, Any]:
    """Return GGUF's keys for a SentencePiece model."""
    proto: Any = sentencepiece_model.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(model_file(algorithm))
    return {
        "tokenizer.ggml.model": "llama" if algorithm == "bpe" else "t5",
        "tokenizer.ggml.tokens": [piece.piece for piece in proto.pieces],
        "tokenizer.ggml.scores": [piece.score for piece in proto.pieces],
        "tokenizer.ggml.token_type": [piece.type for piece in proto.pieces],
        "tokenizer.ggml.precompiled_charsmap": list(proto.normalizer_spec.precompiled_charsmap),
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.remove_extra_whitespaces": algorithm != "bpe",
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def _of_gguf_model(algorithm: str) -> Made:
    ours = from_metadata(gguf_model(algorithm))
    library = sentencepiece.SentencePieceProcessor(model_proto=model_file(algorithm))
    kept = set(range(len(library))) - set(ours.control.values())
    return Made(
        ours,
        library.encode,
        lambda ids: library.decode([one for one in ids if one in kept]),
        str if algorithm == "bpe" else None,
    )


def _of_gguf_bert() -> Made:
    words = vocab_txt().splitlines()
    marked = [word if word[0] == "[" and word[-1] == "]" else "▁" + word for word in words]
    metadata = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": [word.removeprefix("▁##") for word in marked],
        "tokenizer.ggml.token_type": [
            3 if word in ("[PAD]", "[CLS]", "[SEP]", "[MASK]") else 1 for word in words
        ],
        "tokenizer.ggml.unknown_token_id": words.index("[UNK]"),
        "tokenizer.ggml.bos_token_id": words.index("[CLS]"),
        "tokenizer.ggml.seperator_token_id": words.index("[SEP]"),
    }
    library = tokenizers.Tokenizer.from_str(json.dumps(wordpiece_json()))
    return _of_library(from_metadata(metadata), library, Path())


def _of_gguf_bpe() -> Made:
    library = tokenizers.Tokenizer.from_str(json.dumps(byte_level_json()))
    return _of_library(from_metadata(gguf_bpe()), library, Path(), back=str)


_KINDS: dict[str, Callable[[], Made]] = {
    "byte-level": lambda: _of_json(byte_level_json(), back=str),
    "llama": _of_llama_json,
    "unigram": lambda: _of_json(unigram_json()),
    "wordpiece": lambda: _of_json(wordpiece_json()),
    "model-bpe": lambda: _of_model_file("bpe"),
    "model-unigram": lambda: _of_model_file("unigram"),
    "tiktoken": _of_tiktoken,
    "vocab-merges": _of_slow_files,
    "vocab-txt": _of_vocab_txt,
    "gguf-gpt2": _of_gguf_bpe,
    "gguf-llama": lambda: _of_gguf_model("bpe"),
    "gguf-t5": lambda: _of_gguf_model("unigram"),
    "gguf-bert": _of_gguf_bert,
}
KINDS = list(_KINDS)


@functools.cache
def made(kind: str) -> Made:
    """Return the tokenizer of a kind; it is trained once."""
    return _KINDS[kind]()

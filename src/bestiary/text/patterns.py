r"""The pre-tokenizers that are known: regular expressions by their exact text, GGUF's names for whole ones.

A regular expression in a tokenizer file is a program by whoever wrote the file: `(a+)+b` takes exponential
time, and one of its own making splits words in a way nobody has checked. So only those of published
tokenizers are run. GGUF names its pre-tokenizer in `tokenizer.ggml.pre`; the names and what they mean are
those of llama.cpp's src/llama-vocab.cpp, written here as the tokenizer.json of the model that each was made
for has them. That counts where
llama.cpp leaves out a normaliser: it splits like the published tokenizer but does not compose characters
(NFC).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

_WORDS = "'s|'t|'re|'ve|'m|'ll|'d"
_GPT2 = rf"{_WORDS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
_AFTER_NUMBER = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_REGEX = rf"(?i:{_WORDS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_AFTER_NUMBER}"
QWEN2_REGEX = rf"(?i:{_WORDS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_AFTER_NUMBER}"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
_AFTER_CASED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}|{_AFTER_CASED}"
_GPT4O = rf"{_CASED[0]}(?i:{_WORDS})?|{_CASED[1]}(?i:{_WORDS})?|\p{{N}}{{1,3}}|{_AFTER_CASED}"
_BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
_LINES = "[\r\n]"
_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
# Cased letters, as DeepSeek's files list them. Escaped, since an editor that composes characters would change
# them.
_CASED_LETTERS = (
    "\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    "\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf"
    "\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d"
    "\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc"
    "\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115"
    "\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183"
    "\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f"
    "\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
    "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_LETTERS = rf"\s?[A-Za-z{_CASED_LETTERS}]+"
_DEEPSEEK_MARKS = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
_DEEPSEEK3_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_DEEPSEEK3 = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)
_THREE_DIGITS = "[0-9][0-9][0-9]"
# Galactica's, of which Nougat's is a copy: runs of one mark. A backslash before " is not always written.
_GALACTICA = r"""[\(\)\[\]\{\}]|([!"\#\$%\&'\*\+,\-\./:;<=>\?\\\^_`\|\~])\1*"""
CLIP_REGEX = rf"{_WORDS}|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+"

REGEXES = frozenset(
    {
        _GPT2,
        LLAMA3_REGEX,
        QWEN2_REGEX,
        _TEKKEN,
        _GPT4O,
        _BLOOM,
        CLIP_REGEX,
        _GALACTICA,
        _GALACTICA.replace('"', r"\""),
        _THREE_DIGITS,
        r"\p{N}{1,3}",
        r"\p{N}",
        r"\s+",
        r"\s+$",
    }
    | {
        _LINES,
        _CJK,
        _DEEPSEEK_LETTERS,
        _DEEPSEEK_MARKS,
        _DEEPSEEK3_KANA,
        _DEEPSEEK3,
        r"\s?\p{L}+",
        r"\s?\p{P}+",
    }
    | {" {2,}"}  # runs of spaces, which the normalisers of T5 and XLM-R fold
)


def split(regex: str) -> Json:
    """Return the pre-tokenizer that makes each match, and each text between matches, a word."""
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def byte_level(*, words: bool = False, prefix: bool = False) -> Json:
    """Return the pre-tokenizer that writes bytes in GPT-2's alphabet. words: split as GPT-2 does first."""
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": words}


def sequence(*parts: Json) -> Json:
    """Return the pre-tokenizer that applies several."""
    return {"type": "Sequence", "pretokenizers": list(parts)}


NFC: Json = {"type": "NFC"}
_DIGITS: Json = {"type": "Digits", "individual_digits": True}

GPT2 = byte_level(words=True)
QWEN2 = sequence(split(QWEN2_REGEX), byte_level())
LLAMA3 = sequence(split(LLAMA3_REGEX), byte_level())
_DIGITS_GPT2 = sequence(_DIGITS, GPT2)


@dataclass(frozen=True)
class Named:
    """What a name in `tokenizer.ggml.pre` stands for. add_bos: when the file does not say."""

    pre_tokenizer: Json
    normalizer: Json | None = None
    ignore_merges: bool = False
    add_bos: bool = False


_BY_MEANING: list[tuple[str, Named]] = [
    (
        "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert exaone4",
        Named(GPT2),
    ),
    ("jina-v1-en jina-v2-code roberta-bpe jais trillion granite-docling", Named(GPT2)),
    ("mpt olmo", Named(GPT2, NFC)),
    ("smollm starcoder refact command-r codeshell exaone minerva-7b", Named(_DIGITS_GPT2)),
    (
        "llama3 llama-v3 llama-bpe falcon3 pixtral midm-2.0 lfm2",
        Named(LLAMA3, ignore_merges=True, add_bos=True),
    ),
    ("dbrx smaug-bpe glm4 chatglm-bpe", Named(LLAMA3)),
    ("qwen2 deepseek-r1-qwen megrez kormo", Named(QWEN2, NFC)),
    ("stablelm2 hunyuan", Named(QWEN2)),
    ("tekken", Named(sequence(split(_TEKKEN), byte_level()), ignore_merges=True, add_bos=True)),
    ("gpt-4o llama4", Named(sequence(split(_GPT4O), byte_level()))),
    ("bloom gpt3-finnish poro-chat", Named(sequence(split(_BLOOM), byte_level()))),
    ("viking", Named(sequence(split(_BLOOM), _DIGITS, byte_level()))),
    (
        "falcon",
        Named(sequence(split(r"[\p{P}\$\+<=>\^~\|`]+"), split(_GPT2), split(_THREE_DIGITS), byte_level())),
    ),
    (
        "default",
        Named(
            sequence(
                *map(split, (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", _THREE_DIGITS)),
                byte_level(),
            )
        ),
    ),
    (
        "deepseek-llm",
        Named(
            sequence(
                *map(split, (_LINES, _DEEPSEEK_LETTERS, _DEEPSEEK_MARKS, r"\s+$", _CJK)),
                _DIGITS,
                byte_level(),
            )
        ),
    ),
    (
        "deepseek-coder",
        Named(sequence(*map(split, (_LINES, r"\s?\p{L}+", r"\s?\p{P}+", _CJK)), _DIGITS, byte_level())),
    ),
    ("deepseek-v3", Named(sequence(*map(split, (r"\p{N}{1,3}", _DEEPSEEK3_KANA, _DEEPSEEK3)), byte_level()))),
]
GGUF = {name: named for names, named in _BY_MEANING for name in names.split()}

"""What is shown of the roster's words, in English and in Chinese."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..roster import Entry
from .terminal import GREEN, RED, YELLOW

Both = tuple[str, str]

GROUPS: Mapping[str, Both] = {
    "list": ("The list", "名单"),
    "classic": ("Classics", "经典"),
    "first": ("To begin with", "入门"),
}
# The colour of a word of COMMERCIAL; the word in a table; and in a sentence.
COLOURS: Mapping[str, str] = {"yes": GREEN, "conditions": YELLOW, "no": RED, "unstated": YELLOW}
SHORT: Mapping[str, str] = {"yes": "yes", "conditions": "cond.", "no": "no", "unstated": "?"}
COMMERCIAL: Mapping[str, Both] = {
    "yes": ("commercial use is allowed", "可以商用"),
    "conditions": ("commercial use is allowed on conditions", "有条件商用"),
    "no": ("commercial use is forbidden", "禁止商用"),
    "unstated": ("commercial use: nothing was said", "商用与否没有说明"),
}
# How a system was made from what stands before it (roster.entry.HOW).
HOW: Mapping[str, Both] = {
    "scratch": ("from scratch", "从零训练"),
    "full": ("fine-tuned", "全参数微调"),
    "lora": ("LoRA", "LoRA 微调"),
    "delta": ("delta", "差值"),
    "continued": ("trained on", "继续预训练"),
    "vocabulary": ("vocabulary extended", "扩充词表"),
    "merge": ("merged", "合并"),
    "distil": ("distilled", "蒸馏"),
    "parts": ("built around", "作为部件"),
    "convert": ("converted", "转换"),
}
LABELS: Mapping[str, Both] = {
    "by": ("made by", "作者"),
    "class": ("class", "类型"),
    "languages": ("languages", "语言"),
    "features": ("features", "特点"),
    "training": ("training", "训练"),
    "claim": ("known for", "闻名于"),
    "proof": ("shown by", "证据"),
    "links": ("links", "链接"),
    "from": ("made from", "来源"),
    "into": ("made into", "衍生"),
    "checkpoints": ("weights", "权重"),
    "tokenizer": ("tokenizer", "分词器"),
    "stops": ("stops", "停止符"),
    "licence": ("licence", "许可证"),
    "money": ("allowed", "用途"),
    "here": ("here", "本机"),
    "instead": ("not whole here", "此处不完整"),
}


def in_chinese(asked: str | None = None) -> bool:
    """Whether texts are shown in Chinese: as asked for, or else as the locale says."""
    if asked is not None:
        return asked == "zh"
    # In the order of POSIX.
    names = ("LC_ALL", "LC_MESSAGES", "LANG")
    return next((value for name in names if (value := os.environ.get(name))), "").startswith("zh")


def chinese_name(entry: Entry) -> str | None:
    """What a system is called in Chinese, where it has such a name."""
    return next((alias for alias in entry.aliases if any("\u4e00" <= c <= "\u9fff" for c in alias)), None)


def full_name(entry: Entry, *, chinese: bool) -> str:
    """Both names of a system, that of the reader's language first."""
    names = (entry.name, chinese_name(entry))
    return " ".join(filter(None, reversed(names) if chinese else names))

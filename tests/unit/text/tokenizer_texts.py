"""Texts that tokenizers get wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator

HARD = [
    "", "a", " ", "  ", "   a", "a   ", "\n", "\n\n\n", "\t\ta", "a\r\nb", "1", "12", "1234 5", "１２３",
    "don't DON'T I'll we'Re", "\'\'\'\'", "émigré e\u0301", "你好，世界！", "\u200b\u200d\ufeff", "½ ² Ⅳ ٣",
    "🙂👨\u200d👩\u200d👧", "\u2028\u2029\x85", "\x00\x01\x7f", "a\u00a0b", "\u3000あ", "مرحبا", "हिन्दी",
    "ไทย", "Ǆǆ ﬁ ß İ", "x" * 300, " " * 100 + "y", "!?!?...---", "\ufffd", "𝔘𝔫𝔦", "\U0010ffff", "a'b's't",
    "\u0301", "  \n", "K Å Ω", "#version",
]  # fmt: skip
_POOLS = [
    "abc ABC'\n\t 123.,!?-_",
    "🙂👍🏽你好é\u0301ñü  \n½²٣１ ",
    " \n\r\t\u00a0\u3000\u2003",
    "'sStTrReEvVmMlLdD ",
]


def strings(count: int, seed: int = 0) -> Iterator[str]:
    """Yield the hard texts, then random ones of the same stuff."""
    draw = random.Random(seed)
    yield from HARD
    for _ in range(count):
        pool = draw.choice(_POOLS)
        yield "".join(draw.choice(pool) for _ in range(draw.randrange(1, 40)))

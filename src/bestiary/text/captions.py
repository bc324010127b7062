"""Captions of videos and pictures as text encoders read them: cleaned of the web's leftovers, and completed.

Open-Sora 1.x cleans each caption as the captions of its training were cleaned (rules that IF and PixArt had
before it), twice over; 2.0 does not. 1.2 and 2.0 were taught with sentences on how a video looks and moves.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable
from html.entities import html5
from html.parser import HTMLParser
from importlib import import_module
from urllib.parse import unquote_plus

from ..errors import RequestError

_SITE = r"[a-zA-Z0-9.\-]+\.(?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
_FILE = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"
_DASHES = (
    "\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40"
    "\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d"
)
_SPLITS = re.compile("[-_]")

Rules = tuple[tuple[re.Pattern[str], str], ...]


def _rules(*rules: tuple[str, str]) -> Rules:
    return tuple((re.compile(pattern), written) for pattern, written in rules)


# What is replaced by what, in this order: later rules see what earlier ones left.
_ADDRESSES = _rules(
    ("<person>", "person"),
    (rf"\b(?:https?:(?:/{{1,3}}|[a-zA-Z0-9%])|{_SITE})", ""),
    (rf"\b(?:www:(?:/{{1,3}}|[a-zA-Z0-9%])|{_SITE})", ""),
)
_MARKS = _rules(
    (r"@\w+\b", ""),
    # Chinese characters, enclosed and squared ones, and the hexagrams between.
    ("[\u31c0-\u9fff]+", ""),
    # Every dash.
    (f"[-{_DASHES}]+", "-"),
    # Every quotation mark.
    ("[`\u00b4\u00ab\u00bb\u201c\u201d\u00a8]", '"'),
    ("[\u2018\u2019]", "'"),
    ("&quot;?", ""),
    ("&amp", ""),
    # Addresses of machines, times at the end, \n spelt out, numbers of articles, names of files.
    (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),
    (r"\d:\d\d\s+$", ""),
    (r"\\n", " "),
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"\S+\.(?:{_FILE})", ""),
    (r"[\"']{2,}", '"'),
    (r"\.{2,}", " "),
    ("[#\u00ae\u2022\u00a9\u2122&@\u00b7\u00ba\u00bd\u00be\u00bf\u00a1\u00a7~)(\\][}{|\\\\/*]+", " "),
    (r"\s+\.\s+", " "),
)
_WORDS = _rules(
    # Words with numbers inside: jc6640, jc6640vc, 6640vc231.
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),
    (r"\b\d+[a-zA-Z]+\d+\b", ""),
    # What shops and downloads say.
    (r"(?:worldwide\s+)?(?:free\s+)?shipping", ""),
    (r"(?:free\s)?download(?:\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b(?:{_FILE})(?:\simages?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),
    # Sizes, 1080x720, with the Latin letter, the Cyrillic one or the sign.
    ("\\b\\d+\\.?\\d*[x\u0445\u00d7]\\d+\\.?\\d*\\b", ""),
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", r"\1 "),
    (r"\s+", " "),
    # Quotation marks around all of it, and what is left at its ends.
    (r"^[\"']([\w\W]+)[\"']$", r"\1"),
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]$", ""),
    (r"^\.\S+$", ""),
)


def cleaned(caption: str) -> str:
    """Return a caption as Open-Sora 1.0 to 1.2 give it to T5.

    Letters are lowered; addresses, names of files, HTML, most punctuation and all Chinese characters go, so
    a caption is best written in English. Raises RequestError where ftfy, which mends texts, is not installed.
    Source: hpcaitech/Open-Sora opensora/v1.2 opensora/models/text_encoder/t5.py text_preprocessing.
    """
    return _cleaned_once(_cleaned_once(caption))


def scored(
    caption: str, *, aesthetic: float | None = 6.5, motion: float | None = None, camera: str | None = None
) -> str:
    """Return a caption with the sentences that Open-Sora 1.2 was taught with; what it says already stays.

    aesthetic: from 4 to 7, how good it looks. motion: how fast it moves. camera: "pan left", "static" ...
    Source: hpcaitech/Open-Sora opensora/v1.2 opensora/utils/inference_utils.py append_score_to_prompts.
    """
    said = {
        "aesthetic score:": None if aesthetic is None else f"{aesthetic:.1f}",
        "motion score:": None if motion is None else f"{motion:.1f}",
        "camera motion:": camera,
    }
    added = [f" {name} {value}." for name, value in said.items() if value is not None and name not in caption]
    return caption + "".join(added)


def moving(caption: str, motion: int = 4) -> str:
    """Return a caption with the sentence that Open-Sora 2.0 was taught with. motion: 1 to 7, 7 the fastest.

    Source: hpcaitech/Open-Sora opensora/utils/inference.py add_motion_score_to_text.
    """
    return f"{caption} {motion} motion score."


def _cleaned_once(caption: str) -> str:
    caption = _applied(unquote_plus(caption).strip().lower(), _ADDRESSES)
    caption = _applied(_text_of(caption), _MARKS)
    if len(_SPLITS.findall(caption)) > 3:  # this-is-my-cat, this_is_my_cat
        caption = _SPLITS.sub(" ", caption)
    caption = html.unescape(html.unescape(_mender()(caption))).strip()
    return _applied(caption, _WORDS).strip()


def _applied(text: str, rules: Rules) -> str:
    for pattern, written in rules:
        text = pattern.sub(written, text)
    return text


class _Text(HTMLParser):
    """Collects what Beautiful Soup takes for a page's text, entities that nobody knows among it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.parts: list[str] = []
        self._hidden: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the beginning of what is not shown."""
        if tag in ("script", "style", "template"):
            self._hidden = tag

    def handle_endtag(self, tag: str) -> None:
        """Note its end."""
        if tag == self._hidden:
            self._hidden = None

    def handle_data(self, data: str) -> None:
        """Keep a text that is shown."""
        if self._hidden is None:
            self.parts.append(data)

    def handle_entityref(self, name: str) -> None:
        """Keep what &name; stands for, or the name."""
        self.handle_data(html5.get(f"{name};", f"&{name}"))

    def handle_charref(self, name: str) -> None:
        """Keep the character of a number."""
        self.handle_data(html.unescape(f"&#{name};"))

    def unknown_decl(self, data: str) -> None:
        """Keep a CDATA section."""
        if data.upper().startswith("CDATA["):
            self.handle_data(data[len("CDATA[") :])


def _text_of(caption: str) -> str:
    parser = _Text()
    parser.feed(caption)
    parser.close()
    return "".join(parser.parts)


@functools.cache
def _mender() -> Callable[[str], str]:
    try:
        mend: Callable[[str], str] = import_module("ftfy").fix_text
    except ImportError as error:
        raise RequestError(
            "Open-Sora's captions are mended with ftfy, which is not installed. Type: pip install ftfy"
        ) from error
    return mend

"""Captions of videos: cleaned and completed as Open-Sora's code has them."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from bestiary.errors import RequestError
from bestiary.text import captions
from tests import goldens

ROOT = goldens.root()
ENTRIES: list[dict[str, Any]] = (
    json.loads((ROOT / "prompts" / "opensora.json").read_text("utf-8")) if ROOT else []
)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["case"])
def test_the_authors_captions(entry: dict[str, Any]) -> None:
    caption, options = entry["messages"][0]["content"], entry.get("options", {})
    if entry["case"].startswith("clean"):
        assert captions.cleaned(caption) == entry["text"]
    elif entry["case"] == "motion":
        assert captions.moving(caption, options["motion_score"]) == entry["text"]
    else:
        said = {"aesthetic": options["aes"], "motion": options["flow"], "camera": options["camera_motion"]}
        assert captions.scored(caption, **said) == entry["text"]


@pytest.mark.parametrize(
    ("caption", "want"),
    [
        ("A Dog, at https://a.com/b!", "a dog, at !"),
        ("a <b>bold</b> <script>x()</script>cat &amp; dog", "a bold cat dog"),
        ("this-is-a-very-long-name", "this is a very long name"),
        ("one-two cats", "one-two cats"),
        ("“quoted”", "quoted"),
        ("猫 cat", "cat"),
        ("see img_1.png 640x480", "see"),
        ("fish &chips", "fish chips"),
        ("", ""),
    ],
)
def test_what_is_cleaned_away(caption: str, want: str) -> None:
    assert captions.cleaned(caption) == want


def test_what_a_caption_says_already_is_not_said_twice() -> None:
    assert captions.scored("a cat aesthetic score: 5.0.", motion=2) == (
        "a cat aesthetic score: 5.0. motion score: 2.0."
    )
    assert captions.scored("a cat", aesthetic=None) == "a cat"


def test_without_ftfy_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    captions._mender.cache_clear()
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(RequestError, match="pip install ftfy"):
        captions.cleaned("a cat")
    captions._mender.cache_clear()

"""Texts with blanks, as GLM reads them: the ids of THUDM/GLM-130B's own generate.py, and the rule by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bestiary.prove.tokens import SETTINGS, unpack
from bestiary.text import blanks, open_tokenizer
from tests import goldens
from tests.unit.text.chat_models import make
from tests.unit.text.chat_styles import STYLES


@pytest.mark.parametrize("case", goldens.cases("tokenizers/glm-130b"), ids=lambda case: case.name)
def test_the_published_fillings(case: Path, tmp_path: Path) -> None:
    tokenizer = open_tokenizer(unpack(case, SETTINGS[case.name], tmp_path))
    entries = json.loads((case.parents[1] / "prompts" / "glm.json").read_text(encoding="utf-8"))
    assert blanks.reads(tokenizer)
    assert len(entries) == 7
    for entry in entries:
        assert blanks.encode(tokenizer, entry["messages"][0]["content"]) == entry["ids"], entry["case"]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("hi", ["hi", "[gMASK]", "<sop>"]),
        ("hi [MASK]", ["hi ", "[MASK]", "<sop>"]),
        ("[gMASK]", ["[gMASK]", "<sop>"]),
        ("[MASK] hi", ["[MASK]", " hi", "</s>", "<sop>"]),
        ("[sMASK]a[MASK]b", ["[sMASK]", "a", "[MASK]", "b", "</s>", "<sop>"]),
        ("<sop></s>", ["<sop></s>", "[gMASK]", "<sop>"]),
    ],
)
def test_masks_are_tokens_and_nothing_else_is(text: str, want: list[str], tmp_path: Path) -> None:
    style = replace(STYLES["mistral"], control=(*blanks.MASKS, "<sop>", "</s>"))
    tokenizer = make(style, "byte-level", tmp_path).tokenizer
    control = tokenizer.control
    expected: list[int] = []
    for piece in want:
        expected += [control[piece]] if piece in control else tokenizer.encode(piece)
    assert blanks.encode(tokenizer, text) == expected
    assert not blanks.reads(tokenizer)

"""Texts with blanks to fill, as GLM reads them: Du et al., 2021, arXiv 2103.10360."""

from __future__ import annotations

from .tokenizer import Tokenizer

MASKS = ("[MASK]", "[sMASK]", "[gMASK]")
"""A few words are missing, a sentence is, or all that follows."""
_ONWARD, _START, _END = "[gMASK]", "<sop>", "</s>"


def reads(tokenizer: Tokenizer) -> bool:
    """Tell whether a tokenizer is of a model that fills blanks: behind a text it puts [gMASK] <sop>."""
    control, around = tokenizer.control, tokenizer.around
    return (
        {_ONWARD, _START} <= control.keys()
        and not around.starts()
        and around.wrap([]).ids == [control[_ONWARD], control[_START]]
    )


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return a text as a model reads it that is to fill what its masks leave open, or to go on.

    The spellings of MASKS are these tokens. A text without one gets [gMASK], and one that goes on after its
    last mask is ended; <sop>, after which the model writes, comes last. THUDM/GLM-130B@212215c generate.py,
    fill_blanks; THUDM/chatglm-6b v0.1 tokenization_chatglm.py does the same.
    """
    control = tokenizer.control
    masks = {control[mask] for mask in MASKS if mask in control}
    ids = tokenizer.encode(text, control=MASKS)
    if masks.isdisjoint(ids):
        ids.append(control[_ONWARD])
    elif ids[-1] not in masks and _END in control:
        ids.append(control[_END])
    return [*ids, control[_START]]

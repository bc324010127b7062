"""Every way to compute that is proven: tiny models that transformers made, and the stored reference cases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bestiary.context import Full, Prompt
from bestiary.load import Loaded, load
from bestiary.models import Decoder
from tests import tiny
from tests.goldens import STORED, meta
from tests.parity.test_references import reference

NAMES = [*tiny.MODELS, *sorted(path.name for path in STORED.iterdir() if path.is_dir())]
# Where a prefix language model's prompts have their mask and their start: the tokens before see each other.
MASK, START = 4, 5


@dataclass(frozen=True)
class Subject:
    """A loaded model, and what its tokens may be.

    special: the ids of the mask and of the start that a prefix language model's prompts hold.
    """

    loaded: Loaded
    vocabulary: int
    special: tuple[int, int] | None = None

    @property
    def model(self) -> Decoder:
        return self.loaded.decoder

    def tokens(self, rows: int, count: int) -> Tensor:
        """Return random tokens, int64 (rows, count); of a prefix language model, prompts as it reads them."""
        ids = torch.randint(3, self.vocabulary, (rows, count))
        if self.special is not None and count > START:
            ids[:, MASK], ids[:, START] = self.special
        return ids

    def logits(self, ids: Tensor) -> Tensor:
        """Return what the model gives for whole sequences, everything present."""
        with torch.inference_mode():
            return self.model(ids, Full.of(ids, None, self.prompt(ids)))

    def prompt(self, ids: Tensor, seen: Tensor | None = None) -> Prompt:
        return self.model.prompt(ids, seen)


def subject(name: str, folder: Path) -> Subject:
    """Return one of NAMES; a tiny model is written into the folder first."""
    if name in tiny.MODELS:
        tiny.make(name, folder)
        return Subject(load(folder), tiny.SIZES["vocab_size"])
    found = reference(STORED / name)
    ids, special = found.want["input_ids"], meta(STORED / name).get("special_ids", {})
    begin = found.loaded.model.prompt(ids)
    if begin.prefix is None:
        return Subject(found.loaded, int(ids.max()) + 1)
    mask, start = (
        special.get("gmask_token_id", special.get("gmask")),
        special.get("bos_token_id", special.get("sop")),
    )
    # What stands for itself alone lies below the special ids.
    return Subject(found.loaded, min(mask, start), (mask, start))

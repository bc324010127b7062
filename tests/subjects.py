"""Every way to compute that is proven: tiny models that transformers made, and reference cases.

Of decoders those that are stored here, of encoders and encoder-decoders all that there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from bestiary.bricks import Segmented
from bestiary.context import Full, Prompt
from bestiary.load import Loaded, load
from bestiary.models import Blocks, Encoder, EncoderDecoder, Model
from tests import goldens, tiny
from tests.goldens import STORED, meta
from tests.parity.test_references import reference


def _readers(*families: str) -> list[str]:
    return [path.name for path in goldens.readers() if meta(path)["family"] in families]


DECODERS = [*tiny.MODELS, *(path.name for path in goldens.decoders() if (STORED / path.name).is_dir())]
ENCODERS = [*tiny.ENCODERS, *_readers(*goldens.ENCODERS)]
ENCODER_DECODERS = [*tiny.ENCODER_DECODERS, *_readers(*goldens.ENCODER_DECODERS)]
WRITERS = [*DECODERS, *ENCODER_DECODERS]
NAMES = [*WRITERS, *ENCODERS]
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
    def model(self) -> Model:
        return self.loaded.model

    @property
    def whole(self) -> bool:
        """Whether a text has to be there whole: its first token sees its last."""
        return isinstance(self.model, Encoder)

    @property
    def blocks(self) -> int:
        # ALBERT's layers are one, time and again.
        return sum(len(set(part)) for part in self.model.modules() if isinstance(part, Blocks))

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
        """Return how sequences begin.

        What an answer answers follows from its first token, so that its row alone has the same source. A text
        of segments changes to its second at the sixth token.
        """
        if isinstance(self.model, EncoderDecoder):
            first = ids[:, 0] if seen is None else ids.gather(1, seen.int().argmax(1, keepdim=True))[:, 0]
            with torch.inference_mode():
                return self.model.prompt(*self._sources(first.tolist()))
        begin = self.model.prompt(ids, seen)
        if isinstance(self.model.positions, Segmented):
            return replace(begin, segments=torch.tensor([[0] * 5 + [1]]))
        return begin

    def _sources(self, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return a text of 5 to 11 tokens for each seed, padded on either side, and what is real."""
        lengths = [5 + seed % 7 for seed in seeds]
        ids = torch.zeros(len(seeds), max(lengths), dtype=torch.int64)
        seen = torch.zeros_like(ids, dtype=torch.bool)
        for row, (seed, length) in enumerate(zip(seeds, lengths, strict=True)):
            start = 0 if seed % 2 else ids.shape[1] - length
            drawn = torch.Generator().manual_seed(seed)
            ids[row, start : start + length] = torch.randint(3, self.vocabulary, (length,), generator=drawn)
            seen[row, start : start + length] = True
        return ids, seen


def subject(name: str, folder: Path) -> Subject:
    """Return one of NAMES; a tiny model is written into the folder first."""
    if name in tiny.ALL:
        tiny.make(name, folder)
        return Subject(load(folder), tiny.SIZES["vocab_size"])
    found = reference(goldens.case(name))
    ids, special = found.want["input_ids"], found.meta.get("special_ids", {})
    begin = found.loaded.model.prompt(ids)
    if begin.prefix is None:
        answer = found.want.get("decoder_input_ids", ids)
        return Subject(found.loaded, min(int(ids.max()), int(answer.max())) + 1)
    mask, start = (
        special.get("gmask_token_id", special.get("gmask")),
        special.get("bos_token_id", special.get("sop")),
    )
    # What stands for itself alone lies below the special ids.
    return Subject(found.loaded, min(mask, start), (mask, start))

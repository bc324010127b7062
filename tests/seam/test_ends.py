"""Documents that a token divides, in every context: attention stops there, positions go on."""

from __future__ import annotations

from itertools import pairwise

import torch

from bestiary.context import Cache, Full, Stream
from bestiary.load import load
from tests.goldens import STORED
from tests.subjects import Subject

from .test_contexts import assert_same, paged

END = 5


def test_the_same_in_every_context() -> None:
    it = Subject(load(STORED / "yuan2-2b", config={"use_flash_attention": False}), 300)
    ids = it.tokens(3, 21)
    ids[ids == END] = END + 1
    ids[0, 4] = ids[0, 12] = ids[1, 8] = ids[2, 20] = END
    begin = it.prompt(ids)
    with torch.inference_mode():
        want = it.model(ids, Full.of(ids, None, begin))
        unmasked = it.model(ids, Full.of(ids))
        cache = Cache.empty(it.model, 3, 21)
        steps = [(a, b, Stream.at(cache, a, b - a, begin)) for a, b in pairwise((0, 6, 7, 8, 9, 21))]
        got = torch.cat([it.model(ids[:, a:b], step) for a, b, step in steps], 1)
    assert_same(got, want)
    assert_same(want[1, :9], unmasked[1, :9])
    assert (want[1, 9:] - unmasked[1, 9:]).abs().max() > 0.1
    rows, order = list(ids), torch.randperm(18)
    schedule = [[8, 6, 6], [8, 0, 4], [5, 15, 11]]
    for pieces, whole in zip(paged(it, rows, schedule, 4, order), want, strict=True):
        assert_same(pieces, whole)

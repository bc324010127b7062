"""What the authors' code says over a cache, where computing everything again says something else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bestiary.context import Cache, Stream
from tests.goldens import decoders

from .test_references import assert_close, reference


@pytest.mark.parametrize("case", decoders(with_key="logits_cached"), ids=lambda p: p.name)
def test_logits_over_a_cache(case: Path) -> None:
    """The prompt at once, then one token a step: the keys of all earlier ones turn with the newest base."""
    ref = reference(case)
    prompt, model = ref.want["input_ids"][:1], ref.loaded.model
    count, begin = len(ref.want["logits_cached"]), model.prompt(prompt)
    ids = torch.cat((prompt, ref.want["greedy_cached"][None]), 1)
    cache, got, start = Cache.empty(model, 1, ids.shape[1]), [], 0
    with torch.inference_mode():
        for end in range(prompt.shape[1], prompt.shape[1] + count):
            step = Stream.at(cache, start, end - start, begin)
            got.append(model(ids[:, start:end], step, (slice(None), -1)))
            start = end
    assert_close(torch.cat(got), ref.want["logits_cached"], ref.tolerance, "logits")

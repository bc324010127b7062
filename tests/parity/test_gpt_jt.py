"""GPT-JT was trained with prefixes that every token sees, and is published as a causal model: both hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bestiary.context import Full
from tests.goldens import cases

from .test_references import assert_close, reference


@pytest.mark.parametrize("case", cases("gpt-jt-6b-prefix"), ids=lambda p: p.name)
def test_without_a_prefix_it_is_causal(case: Path) -> None:
    ref = reference(case)
    tokens = ref.want["input_ids"]
    with torch.inference_mode():
        got = ref.loaded.model(tokens, Full.of(tokens, None, ref.loaded.model.prompt(tokens)))
    assert_close(got, ref.want["causal_logits"], ref.tolerance, "logits")
    assert (got - ref.want["logits"]).abs().max() > 0.1, "the prefix of test_numbers changes something"

"""PLUG norms its encoder's last states twice where it writes, and once where it saved memory in training."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from bestiary.context import Full
from bestiary.load import load
from bestiary.models import EncoderDecoder
from tests.goldens import STORED

from .test_references import assert_close


@torch.inference_mode()
def test_one_norm_is_what_training_has() -> None:
    case = STORED / "plug-27b"
    model, want = load(case).model, load_file(case / "expected.safetensors")
    assert isinstance(model, EncoderDecoder)
    assert isinstance(model.encoder.norm, torch.nn.Sequential)
    model.encoder.norm = model.encoder.norm[0]
    begin = model.prompt(want["input_ids"], want["attention_mask"].bool(), want["token_type_ids"])
    assert begin.memory is not None
    assert_close(
        begin.memory.states, want["once.encoder_last_hidden_state"], 1e-4, "the encoder's last states"
    )
    answer = want["decoder_input_ids"]
    assert_close(model(answer, Full.of(answer, None, begin)), want["once.logits"], 1e-4, "logits")
    assert (want["once.logits"] - want["logits"]).abs().max() > 1e-2, "once and twice are the same here"

"""Every family of encoder-decoders against transformers, run live on the same tiny checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bestiary.context import Full
from bestiary.errors import ConfigError
from bestiary.load import load, published, save
from bestiary.models import EncoderDecoder
from bestiary.prove.reference import watched
from tests import tiny
from tests.goldens import STORED

from .test_references import assert_close, greedy


def texts() -> tuple[Tensor, Tensor, Tensor]:
    """Return sources of two lengths, which of their tokens are real, and answers."""
    source, answer = (torch.randint(3, tiny.SIZES["vocab_size"], (3, count)) for count in (14, 9))
    seen = torch.ones_like(source)
    seen[1, 10:] = 0
    return source, seen, answer


@pytest.mark.parametrize("name", tiny.ENCODER_DECODERS)
def test_equal(name: str, tmp_path: Path) -> None:
    reference, (source, seen, answer) = tiny.make(name, tmp_path), texts()
    loaded = load(tmp_path)
    model = loaded.model
    assert isinstance(model, EncoderDecoder)
    with torch.inference_mode(), watched(model.encoder) as read, watched(model.decoder) as written:
        begin = model.prompt(source, seen.bool())
        logits = model(answer, Full.of(answer, None, begin))
        want = reference(
            input_ids=source, attention_mask=seen, decoder_input_ids=answer, output_hidden_states=True
        )
    assert want.logits.std() > 0.1, "too small to tell anything"
    assert begin.memory is not None
    assert_close(logits, want.logits, 1e-4, "logits")
    real = seen.bool()
    assert_close(begin.memory.states[real], want.encoder_last_hidden_state[real], 1e-4, "what was read")
    for i, state in enumerate(read[:-1]):  # its last one is after the final norm
        assert_close(state[real], want.encoder_hidden_states[i][real], 1e-4, f"encoder state {i}")
    for i, state in enumerate(written[:-1]):
        assert_close(state, want.decoder_hidden_states[i], 1e-4, f"decoder state {i}")


@pytest.mark.parametrize("name", tiny.ENCODER_DECODERS)
def test_greedy(name: str, tmp_path: Path) -> None:
    reference, source = tiny.make(name, tmp_path), texts()[0][:1]
    loaded = load(tmp_path)
    model = loaded.model
    assert isinstance(model, EncoderDecoder)
    ends = {"eos_token_id": None, "forced_eos_token_id": None, "forced_bos_token_id": None}
    with torch.inference_mode():
        ids = reference.generate(source, max_new_tokens=16, do_sample=False, use_cache=False, **ends)
        begin = model.prompt(source)
    assert ids[0, :1].tolist() == list(model.start)
    assert greedy(loaded, torch.tensor(model.start), 16, begin) == ids[0, 1:].tolist()


@pytest.mark.parametrize("name", tiny.ENCODER_DECODERS)
def test_saved_and_read_again(name: str, tmp_path: Path) -> None:
    """transformers reads what was saved, and makes the same of it."""
    reference, (source, _, answer) = tiny.make(name, tmp_path / "a"), texts()
    save(load(tmp_path / "a"), tmp_path / "b")
    again = type(reference).from_pretrained(tmp_path / "b", attn_implementation="eager")
    with torch.inference_mode():
        want, got = (one(input_ids=source, decoder_input_ids=answer).logits for one in (reference, again))
    assert torch.equal(got, want)
    held = published(load(tmp_path / "b")).keys()
    assert held == published(load(tmp_path / "a")).keys()


@pytest.mark.parametrize("name", ["cpm2-moe", "plug-27b"])
def test_an_answer_begins_with_a_token_of_the_vocabulary(name: str) -> None:
    model = load(STORED / name, config={"decoder_start_token_id": 0}).model
    assert isinstance(model, EncoderDecoder)
    assert model.start == (0,)
    with pytest.raises(ConfigError, match="decoder_start_token_id = 140 should be a whole number from 0"):
        load(STORED / name, config={"decoder_start_token_id": 140})

"""Every family against transformers, run live on the same tiny checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from bestiary.context import Full
from bestiary.load import load, published, save
from bestiary.models import Encoder, EncoderDecoder
from bestiary.prove.reference import watched
from tests import tiny
from tests.goldens import decoders, meta, readers

from .test_references import assert_close, greedy, hidden_states


@pytest.mark.parametrize("name", tiny.MODELS)
def test_equal(name: str, tmp_path: Path) -> None:
    reference = tiny.make(name, tmp_path)
    loaded = load(tmp_path)
    tokens = torch.randint(tiny.SIZES["vocab_size"], (3, 40))
    states, logits = hidden_states(loaded, tokens)
    with torch.inference_mode():
        want = reference(tokens, output_hidden_states=True)
    assert want.logits.std() > 0.5, "too small to tell anything"
    assert_close(logits, want.logits, 1e-4, "logits")
    for i, state in enumerate(states[:-1]):  # its last one is after the final norm
        assert_close(state, want.hidden_states[i], 1e-4, f"hidden state {i}")
    with torch.inference_mode():
        ids = reference.generate(tokens[:1, :10], max_new_tokens=16, do_sample=False, eos_token_id=None)
    assert greedy(loaded, tokens[0, :10], 16) == ids[0, 10:].tolist()


def texts(reference: Any) -> dict[str, Tensor]:
    """Return what an encoder is given: texts padded on the right, and segments where it knows of any."""
    seen = torch.arange(17) < torch.tensor([17, 12, 9])[:, None]
    tokens = torch.randint(5, tiny.SIZES["vocab_size"], seen.shape)
    given = {"input_ids": torch.where(seen, tokens, reference.config.pad_token_id), "attention_mask": seen}
    if getattr(reference.config, "type_vocab_size", 0) > 1:
        given["token_type_ids"] = torch.randint(reference.config.type_vocab_size, seen.shape)
    return given


@pytest.mark.parametrize("name", tiny.ENCODERS)
def test_states_of_what_is_read(name: str, tmp_path: Path) -> None:
    reference = tiny.make(name, tmp_path)
    given, model = texts(reference), load(tmp_path).model
    tokens, seen = given["input_ids"], given["attention_mask"]
    assert isinstance(model, Encoder)
    begin = replace(model.prompt(tokens, seen), segments=given.get("token_type_ids"))
    with torch.inference_mode():
        want = reference(**given, output_hidden_states=True)
        with watched(model) as states:
            said = model(tokens, Full.of(tokens, seen, begin))
    for i, (state, right) in enumerate(zip(states, want.hidden_states, strict=True)):
        assert_close(state[seen], right[seen], 1e-4, f"hidden state {i}")
    if (logits := want.get("logits")) is not None and logits.shape == said.shape:
        assert_close(said[seen], logits[seen], 1e-4, "logits")


@pytest.mark.parametrize("name", tiny.ENCODER_DECODERS)
def test_answers(name: str, tmp_path: Path) -> None:
    reference = tiny.make(name, tmp_path)
    given, loaded = texts(reference), load(tmp_path)
    seen, model = given["attention_mask"], loaded.model
    assert isinstance(model, EncoderDecoder)
    answer = torch.randint(5, tiny.SIZES["vocab_size"], (3, 14))
    with torch.inference_mode(), watched(model.encoder) as read, watched(model.decoder) as written:
        begin = model.prompt(given["input_ids"], seen)
        logits = model(answer, Full.of(answer, None, begin))
        want = reference(**given, decoder_input_ids=answer, output_hidden_states=True)
        alone = model.prompt(given["input_ids"][:1])
        first = given["input_ids"][:1]
        # Its cache has as many layers as the encoder.
        kind = {"do_sample": False, "num_beams": 1, "use_cache": False}
        ends = {"max_new_tokens": 16, "eos_token_id": None, "forced_eos_token_id": None}
        ids = reference.generate(first, **kind, **ends)[0]
    assert want.logits.std() > 0.15, "too small to tell anything"
    assert_close(logits, want.logits, 1e-4, "logits")
    for i, right in enumerate(want.encoder_hidden_states[:-1]):  # the last one is after the norm
        assert_close(read[i][seen], right[seen], 1e-4, f"encoder state {i}")
    for i, right in enumerate(want.decoder_hidden_states[:-1]):
        assert_close(written[i], right, 1e-4, f"decoder state {i}")
    assert begin.memory is not None
    assert_close(begin.memory.states[seen], want.encoder_last_hidden_state[seen], 1e-4, "what is read")
    assert greedy(loaded, torch.tensor(model.start), 16, alone) == ids[1:].tolist()


@pytest.mark.parametrize("name", [*tiny.MODELS, *tiny.ENCODER_DECODERS])
def test_saved_and_read_again(name: str, tmp_path: Path) -> None:
    reference = tiny.make(name, tmp_path / "a")
    loaded = load(tmp_path / "a")
    save(loaded, tmp_path / "b")
    given = {"input_ids": torch.randint(tiny.SIZES["vocab_size"], (2, 9))}
    if name in tiny.ENCODER_DECODERS:
        given["decoder_input_ids"] = given["input_ids"]
    with torch.inference_mode():
        want = reference(**given).logits
        kind = reference.config._attn_implementation
        theirs = type(reference).from_pretrained(tmp_path / "b", attn_implementation=kind)(**given).logits
    assert torch.equal(theirs, want)
    assert published(load(tmp_path / "b")).keys() == loaded.checkpoint.entries.keys() - loaded.match.dropped


# What transformers 5.23 does not compute of cases whose architecture it has.
OTHERWISE = {
    "longchat-13b-16k-oldconfig": "reads no rope_condense_ratio",
    "mpt-30b": "refuses a clip_qkv that is a whole number, as published",
    "mpt-7b-storywriter": "the same, and reads no alibi_bias_max",
    "ultrarm-13b": "has no reward head of this name",
}


def live() -> list[Path]:
    """Return the reference cases whose architecture transformers has, by their published configs."""
    kinds = {case: json.loads((case / "config.json").read_text()).get("model_type") for case in decoders()}
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return [case for case, kind in kinds.items() if kind in known and case.name not in OTHERWISE]


@pytest.mark.parametrize("case", live(), ids=lambda p: p.name)
def test_equal_on_published_forms(case: Path) -> None:
    """The same files, read by both, on other tokens than the case's own."""
    loaded, kind = load(case), json.loads((case / "config.json").read_text())["model_type"]
    attention = "sdpa" if kind == "falcon" else "eager"  # see tests.tiny.make
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        case, attn_implementation=attention, dtype=torch.float32
    ).eval()
    tokens = torch.randint(3, 150, (2, 24))
    with torch.inference_mode():
        got, want = loaded.model(tokens, Full.of(tokens)), reference(tokens).logits
    assert_close(got, want, 1e-4, "logits")


PUBLISHED = {"t5": "T5ForConditionalGeneration", "bert": "BertForPreTraining"}


@pytest.mark.parametrize(
    "case", [case for case in readers() if meta(case)["family"] in PUBLISHED], ids=lambda p: p.name
)
def test_equal_on_published_forms_of_readers(case: Path) -> None:
    """The same files, read by both, on other texts than the case's own."""
    kind = getattr(transformers, PUBLISHED[meta(case)["family"]])
    reference = kind.from_pretrained(case, attn_implementation="eager", dtype=torch.float32).eval()
    model, given = load(case).model, texts(reference)
    tokens, seen = given["input_ids"], given["attention_mask"]
    with torch.inference_mode():
        if isinstance(model, EncoderDecoder):
            answer = torch.randint(5, 130, (3, 14))
            want = reference(**given, decoder_input_ids=answer).logits
            got = model(answer, Full.of(answer, None, model.prompt(tokens, seen)))
            assert_close(got, want, 1e-4, "logits")
        else:
            begin = replace(model.prompt(tokens, seen), segments=given["token_type_ids"])
            want = reference(**given).prediction_logits
            got = model(tokens, Full.of(tokens, seen, begin))
            assert_close(got[seen], want[seen], 1e-4, "logits")

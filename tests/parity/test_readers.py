"""Encoders and encoder-decoders against results that others computed: states of both stacks, logits, text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bestiary.context import Full, Prompt
from bestiary.models import Encoder, EncoderDecoder, Stack
from bestiary.prove.reference import watched
from tests.goldens import readers

from .test_references import Reference, assert_close, greedy, greedy_again, reference

# How cases spell one thing in several ways: the stacks' names in front, a lone encoder's states without one.
SPELLINGS = {
    "encoder_hidden_states.": "encoder.hidden_states.",
    "decoder_hidden_states.": "decoder.hidden_states.",
    "encoder_last_hidden_state": "encoder.last_hidden_state",
    "decoder_last_hidden_state": "decoder.last_hidden_state",
}
# Families whose greedy text goes on after the case's whole answer; that of the others after its start alone.
CONTINUED = ("cpm2", "plug")
# The case that says which tokens are padding by their id.
PADDING = {"transformer2017-fairseq": 1}


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@dataclass(frozen=True)
class Source:
    """What an encoder reads: tokens (B, S), which of them are real, and their segments."""

    tokens: Tensor
    seen: Tensor | None
    segments: Tensor | None

    @property
    def real(self) -> Tensor:
        return torch.ones_like(self.tokens, dtype=torch.bool) if self.seen is None else self.seen


def read(case: Path) -> Reference:
    """Load a case, its results spelled in one way."""
    ref = reference(case)
    want = {_spelled(name, isinstance(ref.loaded.model, Encoder)): t for name, t in ref.want.items()}
    return replace(ref, want=want)


def _spelled(name: str, alone: bool) -> str:
    for theirs, ours in SPELLINGS.items():
        name = name.replace(theirs, ours)
    return f"encoder.{name}" if alone and name.startswith("hidden_states.") else name


def source(ref: Reference, case: Path, part: str = "") -> Source:
    """Return what a case's encoder reads, or that of one part of the case: `padded.`."""
    tokens = ref.want.get(f"{part}input_ids", ref.want["input_ids"])
    seen = ref.want.get(f"{part}attention_mask")
    if (square := ref.want.get(f"{part}encoder_attention_mask")) is not None:  # (B, 1, S, S): queries first
        seen = square[:, 0, 0]
    if part and case.name in PADDING:
        seen = tokens != PADDING[case.name]
    return Source(tokens, None if seen is None else seen.bool(), ref.want.get(f"{part}token_type_ids"))


def encoded(ref: Reference, text: Source) -> tuple[Tensor, Prompt]:
    """Return the encoder's states after its last norm, and how what it has read begins an answer."""
    model = ref.loaded.model
    if isinstance(model, EncoderDecoder):
        begin = model.prompt(text.tokens, text.seen, text.segments)
        assert begin.memory is not None
        return begin.memory.states, begin
    begin = replace(model.prompt(text.tokens, text.seen), segments=text.segments)
    return model.hidden(text.tokens, Full.of(text.tokens, text.seen, begin)), begin


def stacks(ref: Reference) -> dict[str, Stack]:
    """Return the stacks of a model by the names that cases have for them."""
    model = ref.loaded.model
    if isinstance(model, EncoderDecoder):
        return {"encoder": model.encoder, "decoder": model.decoder}
    return {"encoder": model}


def assert_states(ref: Reference, name: str, states: list[Tensor], real: Tensor) -> None:
    """Compare every state of a stack, of real tokens alone: at padded places they mean nothing."""
    for i, state in enumerate(states):
        want = ref.want[f"{name}.hidden_states.{i}"]
        assert_close(state[real], want[real], ref.tolerance, f"{name} state {i}")
    assert f"{name}.hidden_states.{len(states)}" not in ref.want


def assert_last(ref: Reference, key: str, got: Tensor, real: Tensor) -> None:
    """Compare states after the last norm, where a case has them."""
    if (want := ref.want.get(key)) is not None:
        assert_close(got[real], want[real], ref.tolerance, key)


@pytest.mark.parametrize("case", readers(with_key="input_ids"), ids=lambda p: p.name)
def test_what_is_read(case: Path) -> None:
    ref = read(case)
    text = source(ref, case)
    encoder = stacks(ref)["encoder"]
    with watched(encoder) as states:
        last, _ = encoded(ref, text)
    assert_states(ref, "encoder", states, text.real)
    for key in ("encoder.last_hidden_state", "last_hidden_state"):
        assert_last(ref, key, last, text.real)
    logits = ref.want.get("logits" if isinstance(ref.loaded.model, Encoder) else "mlm_logits")
    if logits is not None:
        assert_close(encoder.head(last)[text.real], logits[text.real], ref.tolerance, "logits of masks")


@pytest.mark.parametrize("case", readers(with_key="decoder_input_ids"), ids=lambda p: p.name)
def test_what_is_answered(case: Path) -> None:
    ref = read(case)
    answer, model = ref.want["decoder_input_ids"], ref.loaded.model
    ctx = Full.of(answer, None, encoded(ref, source(ref, case))[1])
    with watched(stacks(ref)["decoder"]) as states:
        last = model.hidden(answer, ctx)
    assert_states(ref, "decoder", states, torch.ones_like(answer, dtype=torch.bool))
    assert_last(ref, "decoder.last_hidden_state", last, torch.ones_like(answer, dtype=torch.bool))
    assert_close(model.head(last), ref.want["logits"], ref.tolerance, "logits")


@pytest.mark.parametrize("case", readers(with_key="padded.logits"), ids=lambda p: p.name)
def test_padded(case: Path) -> None:
    """Padding on either side of what is read, as the case has it."""
    ref = read(case)
    text = source(ref, case, "padded.")
    model, (last, begin) = ref.loaded.model, encoded(ref, text)
    for key in ("padded.encoder.last_hidden_state", "padded.last_hidden_state"):
        assert_last(ref, key, last, text.real)
    assert text.seen is not None
    assert not text.seen.all()
    if isinstance(model, EncoderDecoder):
        answer = ref.want["decoder_input_ids"]
        got = model(answer, Full.of(answer, None, begin))
        assert_close(got, ref.want["padded.logits"], ref.tolerance, "logits")
    else:
        want = ref.want["padded.logits"]
        assert_close(model.head(last)[text.real], want[text.real], ref.tolerance, "logits")


@pytest.mark.parametrize("case", readers(with_key="greedy"), ids=lambda p: p.name)
def test_greedy(case: Path) -> None:
    """Over a cache, and with everything computed again for each token."""
    ref = read(case)
    model, text, want = ref.loaded.model, source(ref, case), ref.want["greedy"].tolist()
    assert isinstance(model, EncoderDecoder)
    first = None if text.seen is None else text.seen[:1]
    begin = model.prompt(text.tokens[:1], first, None if text.segments is None else text.segments[:1])
    continued = ref.meta["family"] in CONTINUED
    start = ref.want["decoder_input_ids"][0] if continued else torch.tensor(model.start)
    assert greedy(ref.loaded, start, len(want), begin) == want
    assert greedy_again(ref.loaded, start, len(want), begin) == want


@pytest.mark.parametrize("case", readers(with_key="pooler_output"), ids=lambda p: p.name)
def test_what_is_said_of_a_text(case: Path) -> None:
    ref = read(case)
    model = ref.loaded.model
    assert isinstance(model, Encoder)
    for part in ("", "padded."):
        text = source(ref, case, part)
        last, _ = encoded(ref, text)
        want = ref.want[f"{part}seq_relationship_logits"]
        assert_close(model.verdict(last, text.seen), want, ref.tolerance, "whether one follows the other")
    last, _ = encoded(ref, source(ref, case))
    assert_close(model.pooler(last[:, 0]), ref.want["pooler_output"], ref.tolerance, "the summary")

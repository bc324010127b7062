"""A tiny checkpoint in the published form, and what its authors' code computed from it: the same here?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..context import Cache, Full, Prompt, Stream
from ..errors import BestiaryError
from ..kernels.attention import softmax
from ..load import Loaded, load, published
from ..models import Encoder, EncoderDecoder, Stack
from .finding import Finding, worst
from .places import hints, meta

# How cases spell one thing in several ways: the stacks' names in front, a lone encoder's states without one.
_SPELLINGS = {
    "encoder_hidden_states.": "encoder.hidden_states.",
    "decoder_hidden_states.": "decoder.hidden_states.",
}
# Families whose greedy text goes on after the case's whole answer; that of the others after its start alone.
_CONTINUED = ("cpm2", "plug")


@dataclass(frozen=True)
class Case:
    """A loaded case: what it wants, and how near to that the numbers have to be."""

    loaded: Loaded
    want: Mapping[str, Tensor]
    meta: Mapping[str, Any]

    @property
    def tolerance(self) -> float:
        """Largest absolute difference: the case's own, which is what its reference differs from itself."""
        return float(self.meta["tolerance"])


@contextmanager
def watched(stack: Stack) -> Iterator[list[Tensor]]:
    """Collect the stream before the first block and after each one, while a model computes."""
    states: list[Tensor] = []
    hooks = [stack.layers.register_forward_pre_hook(lambda _, args: states.append(args[0]))]
    once = dict.fromkeys(stack.layers)  # where several are one
    hooks += [layer.register_forward_hook(lambda *args: states.append(args[2])) for layer in once]
    yield states
    for hook in hooks:
        hook.remove()


@torch.inference_mode()
def compare(folder: Path) -> tuple[list[Finding], list[Finding]]:
    """Return what loading a case showed, and what computing with it did."""
    name = folder.name
    try:
        loaded = load(folder, config=hints(folder))
        read = [_saved(name, loaded)]
    except BestiaryError as error:
        return [Finding(f"{name}: loads", False, note=str(error))], []
    want = {
        _spelled(key, loaded): tensor for key, tensor in load_file(folder / "expected.safetensors").items()
    }
    case = Case(loaded, want, meta(folder))
    if "logits" not in want and not isinstance(loaded.model, Encoder):
        return read, [Finding(f"{name}: logits", None, note="the case holds none")]
    findings = _computed(case)
    if any(finding.holds is False for finding in findings):
        # Fused attention sums in another order, which moves the last states by 3e-4 over 28 blocks that
        # multiply the stream by 7 each.
        with softmax.forced("reference"):
            findings = [replace(one, note="attention in plain products") for one in _computed(case)]
    return read, [replace(finding, what=f"{name}: {finding.what}") for finding in findings]


def _computed(case: Case) -> list[Finding]:
    match case.loaded.model:
        case EncoderDecoder():
            return [*_answered(case)]
        case Encoder():
            return [*_encoded(case)]
        case _:
            return [*_decoded(case)]


def _spelled(key: str, loaded: Loaded) -> str:
    for theirs, ours in _SPELLINGS.items():
        key = key.replace(theirs, ours)
    alone = isinstance(loaded.model, Encoder) and key.startswith("hidden_states.")
    return f"encoder.{key}" if alone else key


def _saved(name: str, loaded: Loaded) -> Finding:
    """Loading filled every tensor and used every one, or had refused; what is saved is what was read."""
    entries = loaded.checkpoint.entries
    wrong = [key for key, tensor in published(loaded).items() if not torch.equal(tensor, entries[key].read())]
    return Finding(f"{name}: loads, and saves bit for bit", not wrong, note=", ".join(wrong[:3]))


def difference(got: Tensor, want: Tensor) -> float:
    """Return the largest absolute difference; no number where the shapes differ."""
    return (got - want).abs().max().item() if got.shape == want.shape else float("nan")


def _decoded(case: Case) -> Iterator[Finding]:
    """Compare a decoder: each state, the logits, and a text over a cache and without."""
    model, tokens, want = case.loaded.decoder, case.want["input_ids"], case.want
    mask = want.get("attention_mask")
    seen = mask.bool() if mask is not None and mask.ndim == 2 else None
    begin = _begun(case, tokens, seen)
    ctx = Full(Full.of(tokens).positions, seen, begin)
    with watched(model) as states:
        logits = model(tokens, ctx)
    real = slice(None) if seen is None else seen
    wanted = [want.get(f"hidden_states.{i}") for i in range(len(states))]
    if "pre_final_norm" in want:  # there the last state is after the norm
        wanted[-1] = want["pre_final_norm"]
    pairs = [(got[real], right[real]) for got, right in zip(states, wanted, strict=True) if right is not None]
    if pairs:
        error = worst(difference(got, right) for got, right in pairs)
        yield Finding.near(f"{len(pairs)} hidden states", error, case.tolerance)
    yield Finding.near("logits", difference(logits[real], want["logits"][real]), case.tolerance)
    if "greedy" in want and seen is None:
        yield from _texts(
            case, tokens[:1], _begun(case, tokens[:1], None) if "prefix_lengths" in want else None
        )


def _texts(case: Case, prompt: Tensor, begin: Prompt | None) -> Iterator[Finding]:
    """Compare the text that greedy choice gives: everything computed again for each token, and over a cache.

    Where positions depend on a text's length the two differ, in the authors' code too: then a case has both,
    or says of the cached one nothing.
    """
    model, again = case.loaded.decoder, case.want["greedy"].tolist()
    first, ids = begin or model.prompt(prompt), prompt
    for _ in again:
        full = Full.of(ids, None, first if begin is not None else model.prompt(ids))
        ids = torch.cat((ids, model(ids, full, (slice(None), -1)).argmax(-1, keepdim=True)), 1)
    yield Finding("text", ids[0, prompt.shape[1] :].tolist() == again)
    cached = case.want.get("greedy_cached")
    if cached is not None or "dynamic" not in str(case.loaded.config.get("rope_scaling")):
        want = again if cached is None else cached.tolist()
        yield Finding("text over a cache", _greedy(model, prompt, len(want), first) == want)


def _begun(case: Case, tokens: Tensor, seen: Tensor | None) -> Prompt:
    """How the sequences begin; a case without its own reader may say how long its prefixes are."""
    prompt = case.loaded.decoder.prompt(tokens, seen)
    if (lengths := case.want.get("prefix_lengths")) is None:
        return prompt
    prefix = lengths if len(lengths) == len(tokens) else lengths.new_tensor([tokens.shape[1]])
    return Prompt(prompt.length, prefix=prefix[:, None])


def _greedy(model: Any, prompt: Tensor, count: int, begin: Prompt) -> list[int]:
    """Continue a prompt (1, T) by the likeliest token, over a cache."""
    cache = Cache.empty(model, 1, prompt.shape[1] + count)
    ids: list[int] = []
    step = prompt
    for _ in range(count):
        start = prompt.shape[1] + len(ids) - step.shape[1]
        logits = model(step, Stream.at(cache, start, step.shape[1], begin), (slice(None), -1))
        ids.append(int(logits.argmax()))
        step = prompt.new_tensor([ids[-1:]])
    return ids


def _source(case: Case) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """What an encoder reads: tokens (B, S), which are real, their segments."""
    seen = case.want.get("attention_mask")
    if (square := case.want.get("encoder_attention_mask")) is not None:  # (B, 1, S, S): queries first
        seen = square[:, 0, 0]
    return case.want["input_ids"], None if seen is None else seen.bool(), case.want.get("token_type_ids")


def _states(case: Case, stack: str, states: list[Tensor], seen: Tensor | None) -> Iterator[Finding]:
    real = slice(None) if seen is None else seen
    wanted = [case.want.get(f"{stack}.hidden_states.{i}") for i in range(len(states))]
    pairs = [(got[real], right[real]) for got, right in zip(states, wanted, strict=True) if right is not None]
    if pairs:
        error = worst(difference(got, right) for got, right in pairs)
        yield Finding.near(f"{len(pairs)} states of the {stack}", error, case.tolerance)


def _encoded(case: Case) -> Iterator[Finding]:
    model, (tokens, seen, segments) = case.loaded.model, _source(case)
    if not isinstance(model, Encoder):
        raise TypeError(type(model).__name__)
    ctx = Full.of(tokens, seen, replace(model.prompt(tokens, seen), segments=segments))
    with watched(model) as states:
        last = model.hidden(tokens, ctx)
    yield from _states(case, "encoder", states, seen)
    real = slice(None) if seen is None else seen
    if "logits" in case.want:
        error = difference(model.head(last)[real], case.want["logits"][real])
        yield Finding.near("logits of masks", error, case.tolerance)


def _answered(case: Case) -> Iterator[Finding]:
    model, answer = case.loaded.model, case.want["decoder_input_ids"]
    if not isinstance(model, EncoderDecoder):
        raise TypeError(type(model).__name__)
    tokens, seen, segments = _source(case)
    with watched(model.encoder) as states:
        begin = model.prompt(tokens, seen, segments)
    yield from _states(case, "encoder", states, seen)
    with watched(model.decoder) as states:
        logits = model(answer, Full.of(answer, None, begin))
    yield from _states(case, "decoder", states, None)
    yield Finding.near("logits", difference(logits, case.want["logits"]), case.tolerance)
    if "greedy" in case.want:
        want = case.want["greedy"].tolist()
        first = model.prompt(
            tokens[:1], None if seen is None else seen[:1], None if segments is None else segments[:1]
        )
        start = answer[:1] if case.meta["family"] in _CONTINUED else answer[:1, :1]
        yield Finding("text over a cache", _greedy(model, start, len(want), first) == want)

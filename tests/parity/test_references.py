"""Every family against results that others computed: logits, every hidden state, greedy text, names."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bestiary.context import Cache, Full, Prompt, Stream
from bestiary.kernels.attention import softmax
from bestiary.load import Loaded, load, published
from bestiary.prove.reference import watched
from tests.goldens import cases, decoders, hints, meta, readers

GGUF = [(case, file.name) for case in cases("format-gguf-llama*") for file in sorted(case.glob("*.gguf"))]


@dataclass(frozen=True)
class Reference:
    """What a case says: its inputs, what came out, and how near to that one has to be."""

    loaded: Loaded
    want: dict[str, Tensor]
    meta: dict[str, Any]

    @property
    def tolerance(self) -> float:
        """Largest absolute difference: the case's own, which is what its reference differs from itself."""
        return float(self.meta["tolerance"])

    @property
    def seen(self) -> Tensor | None:
        """Which tokens are real, bool (B, T)."""
        mask = self.want.get("attention_mask")
        return mask.bool() if mask is not None and mask.ndim == 2 else None

    def prompt(self, tokens: Tensor, seen: Tensor | None = None) -> Prompt:
        """How the sequences begin; a case without its own reader may say how long its prefixes are."""
        prompt = self.loaded.decoder.prompt(tokens, seen)
        if (lengths := self.want.get("prefix_lengths")) is None:
            return prompt
        prefix = lengths if len(lengths) == len(tokens) else lengths.new_tensor([tokens.shape[1]])
        return Prompt(prompt.length, prefix=prefix[:, None])


def reference(case: Path) -> Reference:
    """Load a case: the model with the hints that its config cannot carry, and the expected results."""
    return Reference(load(case, config=hints(case)), load_file(case / "expected.safetensors"), meta(case))


def hidden_states(loaded: Loaded, tokens: Tensor, ctx: Full | None = None) -> tuple[list[Tensor], Tensor]:
    """Return the stream before the first block and after each one, and the logits."""
    model = loaded.decoder
    with watched(model) as states, torch.inference_mode():
        logits = model(tokens, ctx or Full.of(tokens, None, model.prompt(tokens)))
    return states, logits


def greedy(loaded: Loaded, prompt: Tensor, count: int, begin: Prompt | None = None) -> list[int]:
    """Continue a prompt (T,) by the likeliest token, over a cache."""
    model = loaded.model
    cache, begin = Cache.empty(model, 1, len(prompt) + count), begin or model.prompt(prompt[None])
    ids: list[int] = []
    step = prompt[None]
    with torch.inference_mode():
        for _ in range(count):
            start = len(prompt) + len(ids) - step.shape[1]
            logits = model(step, Stream.at(cache, start, step.shape[1], begin), (slice(None), -1))
            ids.append(int(logits.argmax()))
            step = torch.tensor([ids[-1:]])
    return ids


def greedy_again(loaded: Loaded, prompt: Tensor, count: int, begin: Prompt | None = None) -> list[int]:
    """Continue a prompt (T,) by the likeliest token, everything computed again for each."""
    ids, model = prompt[None], loaded.model
    with torch.inference_mode():
        for _ in range(count):
            logits = model(ids, Full.of(ids, None, begin or model.prompt(ids)), (slice(None), -1))
            ids = torch.cat((ids, logits.argmax(-1, keepdim=True)), 1)
    return ids[0, len(prompt) :].tolist()


def assert_close(got: Tensor, want: Tensor, tolerance: float, what: str) -> None:
    """Fail with the largest difference when it is above the tolerance."""
    assert got.shape == want.shape, f"{what}: {tuple(got.shape)} against {tuple(want.shape)}"
    worst = (got - want).abs().max().item()
    assert worst <= tolerance, f"{what}: largest difference {worst:.3g}, allowed {tolerance:.3g}"


# 28 blocks that multiply the stream by 7 each: the order in which fused attention sums moves the last states,
# of up to 36, by 3.1e-4. They are compared with attention in plain products, as its authors have it: 1.2e-4.
DEEP = ("chatglm1-6b-28l",)

# What cases call the stream after the last norm, which the head reads.
LAST = ("last_hidden_state", "final_norm")


@pytest.mark.parametrize("case", decoders(), ids=lambda p: p.name)
def test_numbers(case: Path) -> None:
    ref = reference(case)
    want, tokens = ref.want, ref.want["input_ids"]
    # Positions count from where a row begins, padded or not: Qwen's code has it so, others pad on the right.
    ctx = Full(Full.of(tokens).positions, ref.seen, ref.prompt(tokens, ref.seen))
    with softmax.forced("reference") if case.name in DEEP else nullcontext(), torch.inference_mode():
        states, logits = hidden_states(ref.loaded, tokens, ctx)
        last = ref.loaded.decoder.hidden(tokens, ctx)
    real = slice(None) if ref.seen is None else ref.seen
    expected = [want[f"hidden_states.{i}"] for i in range(len(states))]
    if (raw := want.get("pre_final_norm")) is not None:  # there the last state is after the norm
        assert_close(last, expected[-1], ref.tolerance, "the last norm")
        expected[-1] = raw
    for i, (state, right) in enumerate(zip(states, expected, strict=True)):
        assert_close(state[real], right[real], ref.tolerance, f"hidden state {i}")
    assert f"hidden_states.{len(states)}" not in want
    for name in LAST:
        if name in want:
            assert_close(last[real], want[name][real], ref.tolerance, name)
    assert_close(logits[real], want["logits"][real], ref.tolerance, "logits")


@pytest.mark.parametrize("case", decoders(with_key="greedy"), ids=lambda p: p.name)
def test_greedy(case: Path) -> None:
    """Continued over a cache, and with everything computed again for each token.

    Where positions depend on the length of the text the two differ, in the authors' code too: then a case
    says both.
    """
    ref = reference(case)
    prompt, count = ref.want["input_ids"][0], len(ref.want["greedy"])
    again = ref.want["greedy"].tolist()
    begin = ref.prompt(prompt[None]) if "prefix_lengths" in ref.want else None
    assert greedy_again(ref.loaded, prompt, count, begin) == again
    cached = ref.want.get("greedy_cached")
    if cached is not None or case.name != "xverse-13b-256k":  # it has no cached result, and its base grows
        assert greedy(ref.loaded, prompt, count, begin) == (again if cached is None else cached.tolist())


@pytest.mark.parametrize("case", decoders(with_key="padded.logits"), ids=lambda p: p.name)
def test_padded_on_the_left(case: Path) -> None:
    ref = reference(case)
    tokens, seen = ref.want["padded.input_ids"], ref.want["padded.attention_mask"].bool()
    positions = (seen.cumsum(1) - 1).clamp_min(0)
    with torch.inference_mode():
        got = ref.loaded.decoder(tokens, Full(positions, seen, ref.prompt(tokens, seen)))
    assert_close(got[seen], ref.want["padded.logits"][seen], ref.tolerance, "logits")


@pytest.mark.parametrize("case", decoders(with_key="far.logits"), ids=lambda p: p.name)
def test_far_positions(case: Path) -> None:
    ref = reference(case)
    tokens = ref.want["input_ids"]
    with torch.inference_mode():
        got = ref.loaded.decoder(tokens, Full(ref.want["far.position_ids"], None, ref.prompt(tokens)))
    assert_close(got, ref.want["far.logits"], 2e-3, "logits")  # the cases' own tolerance there


@pytest.mark.parametrize("case", [*decoders(), *readers()], ids=lambda p: p.name)
def test_saving_gives_back_the_published_tensors(case: Path) -> None:
    loaded = reference(case).loaded
    saved, entries = published(loaded), loaded.checkpoint.entries
    assert saved.keys() | loaded.match.dropped == entries.keys()
    assert all(computed(entries[name].name, entries[name].dtype) for name in loaded.match.dropped)
    for name, tensor in saved.items():
        original = entries[name].read()
        assert tensor.dtype == original.dtype, name
        assert torch.equal(tensor, original), name


def computed(name: str, dtype: str) -> bool:
    """Tell whether a tensor that is not read is one that is computed: frequencies, masks, zeros."""
    leaf = name.rpartition(".")[2]
    masks = leaf in ("bias", "masked_bias", "causal_mask") and name.split(".")[-2] in ("attn", "attention")
    placeholders = leaf in ("version", "_float_tensor")  # fairseq's
    frequencies = leaf in ("inv_freq", "scale", "beta") or "freqs_cis" in name
    return dtype == "I64" or masks or frequencies or placeholders


@pytest.mark.parametrize(("case", "file"), GGUF, ids=lambda v: v if isinstance(v, str) else v.name)
def test_gguf_numbers(case: Path, file: str) -> None:
    """The target is the float32 model with the dequantised weights: llama.cpp itself rounds activations."""
    want = load_file(case / "expected.safetensors")
    loaded = load(case / file)
    states, logits = hidden_states(loaded, want["input_ids"])
    key = file.removeprefix("model-").removesuffix(".gguf")
    if key in (
        "f16",
        "f32",
    ):  # 16 bits hold the original weights exactly, so the original's results are the target
        names = {"logits": "logits", "greedy": "greedy", "state": "hidden_states.{}"}
    else:
        names = {"logits": f"dequantised_logits.{key}", "greedy": f"dequantised_greedy.{key}"}
        names["state"] = f"dequantised.hidden_states.{{}}.{key}"
    assert_close(logits, want[names["logits"]], 1e-4, "logits")
    for i, state in enumerate(states):
        if (reference := want.get(names["state"].format(i))) is not None:
            assert_close(state, reference, 1e-4, f"hidden state {i}")
    if (ids := want.get(names["greedy"])) is not None:
        assert greedy(loaded, want["input_ids"][0], len(ids)) == ids.tolist()

"""Every family against results that others computed: logits, every hidden state, greedy text, names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bestiary.context import Cache, Full, Stream
from bestiary.load import Loaded, load, published
from tests.goldens import cases, meta

# Shell patterns of the case folders that the families so far claim.
CLAIMED = (
    "llama-*", "llama2-*b", "mistral-*", "vicuna-16k", "longchat-*",
    "format-bin-*", "format-safetensors-sharded",
)  # fmt: skip
GGUF = [(case, file.name) for case in cases("format-gguf-llama*") for file in sorted(case.glob("*.gguf"))]


def hidden_states(loaded: Loaded, tokens: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the stream before the first block and after each one, and the logits."""
    states: list[Tensor] = []
    model = loaded.model
    hooks = [model.layers[0].register_forward_pre_hook(lambda _, args: states.append(args[0]))]
    hooks += [layer.register_forward_hook(lambda *args: states.append(args[2])) for layer in model.layers]
    with torch.inference_mode():
        logits = model(tokens, Full.of(tokens))
    for hook in hooks:
        hook.remove()
    return states, logits


def greedy(loaded: Loaded, prompt: Tensor, count: int) -> list[int]:
    """Continue a prompt (T,) by the likeliest token, over a cache."""
    cache = Cache.empty(loaded.model, 1, len(prompt) + count)
    ids: list[int] = []
    step = prompt[None]
    with torch.inference_mode():
        for _ in range(count):
            start = len(prompt) + len(ids) - step.shape[1]
            logits = loaded.model(step, Stream.at(cache, start, step.shape[1]), (slice(None), -1))
            ids.append(int(logits.argmax()))
            step = torch.tensor([ids[-1:]])
    return ids


def assert_close(got: Tensor, want: Tensor, tolerance: float, what: str) -> None:
    """Fail with the largest difference when it is above the tolerance."""
    assert got.shape == want.shape, f"{what}: {tuple(got.shape)} against {tuple(want.shape)}"
    worst = (got - want).abs().max().item()
    assert worst <= tolerance, f"{what}: largest difference {worst:.3g}, allowed {tolerance:.3g}"


@pytest.mark.parametrize("case", cases(*CLAIMED), ids=lambda p: p.name)
def test_numbers(case: Path) -> None:
    want, tolerance = load_file(case / "expected.safetensors"), min(meta(case)["tolerance"], 1e-4)
    loaded = load(case)
    states, logits = hidden_states(loaded, want["input_ids"])
    for i, state in enumerate(states):
        assert_close(state, want[f"hidden_states.{i}"], tolerance, f"hidden state {i}")
    assert f"hidden_states.{len(states)}" not in want
    assert_close(logits, want["logits"], tolerance, "logits")
    assert greedy(loaded, want["input_ids"][0], len(want["greedy"])) == want["greedy"].tolist()


@pytest.mark.parametrize("case", cases(*CLAIMED), ids=lambda p: p.name)
def test_saving_gives_back_the_published_tensors(case: Path) -> None:
    loaded = load(case)
    saved, entries = published(loaded), loaded.checkpoint.entries
    dropped = [name for name in entries if name not in saved]
    assert all("inv_freq" in name or entries[name].dtype == "I64" for name in dropped), dropped
    for name, tensor in saved.items():
        original = entries[name].read()
        assert tensor.dtype == original.dtype, name
        assert torch.equal(tensor, original), name


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

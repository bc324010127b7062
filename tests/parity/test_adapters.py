"""Published adapters: PEFT's own results, and random adapters added to transformers' models."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bestiary import adapters
from bestiary.context import Full
from bestiary.load import Loaded, load, published
from tests import adapted, native, tiny
from tests.goldens import cases, meta

CASES = cases("format-lora*", "loss-lora-*")


def logits(loaded: Loaded, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        return loaded.decoder(ids, Full.of(ids))


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_peft(case: Path) -> None:
    """Beside the weights, taken off, merged; LoRA, rsLoRA, DoRA, patterns, embeddings, Conv1D, biases."""
    want, tolerance = load_file(case / "expected.safetensors"), meta(case)["tolerance"]
    ids, base = want["input_ids"], load(case)
    before = logits(base, ids)
    on = adapters.attach(base, adapters.read(case / "adapter"))
    assert (logits(on, ids) - want["logits"]).abs().max() <= tolerance
    assert adapters.detach(on) is base
    assert torch.equal(logits(base, ids), before)
    merged = adapters.merge(adapters.attach(base, adapters.read(case / "adapter")))
    assert (logits(merged, ids) - want["logits"]).abs().max() <= tolerance
    saved = published(merged)
    for name, tensor in merged_tensors(case, want).items():
        assert torch.equal(saved.get(name, saved.get(name.removeprefix("transformer."), before)), tensor), (
            name
        )


def merged_tensors(case: Path, want: dict[str, Tensor]) -> dict[str, Tensor]:
    if (case / "merged.safetensors").exists():
        return load_file(case / "merged.safetensors")
    return {name.removeprefix("merged."): t for name, t in want.items() if name.startswith("merged.")}


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_written_and_read_again(case: Path, tmp_path: Path) -> None:
    """As it was read, and as it is gathered from the model that it was attached to."""
    read = adapters.read(case / "adapter")
    adapters.save(read, tmp_path / "read")
    assert same(adapters.read(tmp_path / "read"), read)
    adapters.save(adapters.attach(load(case), read), tmp_path / "model")
    assert same(adapters.read(tmp_path / "model"), read)


def same(a: adapters.Adapter, b: adapters.Adapter) -> bool:
    def close(x: adapters.Factors, y: adapters.Factors) -> bool:
        lengths = [f.magnitude if f.magnitude is not None else torch.empty(0) for f in (x, y)]
        equal = torch.equal(x.a, y.a) and torch.equal(x.b, y.b) and torch.equal(*lengths)
        return equal and abs(x.scale - y.scale) < 1e-9

    whole = a.whole.keys() == b.whole.keys() and all(torch.equal(a.whole[n], b.whole[n]) for n in b.whole)
    parts = {path.removeprefix("transformer."): f for path, f in b.factors.items()}
    mine = {path.removeprefix("transformer."): f for path, f in a.factors.items()}
    return whole and mine.keys() == parts.keys() and all(close(mine[path], parts[path]) for path in parts)


# A family's linear layers by their published names: plain, fused in each way there is, turned, of experts.
FAMILIES = {
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"),
    "llama-mha-biased": ("q_proj", "v_proj"),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "falcon-7b": ("query_key_value", "dense"),
    "falcon-40b": ("query_key_value", "dense_h_to_4h"),
    "bloom": ("query_key_value", "dense"),
    "mpt": ("Wqkv", "out_proj"),
    "phi3": ("qkv_proj", "gate_up_proj"),
    "opt": ("q_proj", "fc1"),
    "qwen2": ("k_proj",),
    "starcoder2": ("c_fc",),
}


@pytest.mark.parametrize("name", [name for name in FAMILIES if name in tiny.MODELS])
def test_every_layout(name: str, tmp_path: Path) -> None:
    """Attached by path through the family's rules = the product added to the published weight."""
    reference = tiny.make(name, tmp_path)
    base = load(tmp_path)
    tensors = adapted.of(reference, FAMILIES[name])
    folder = adapted.write(tmp_path / "adapter", tensors)
    ids = torch.arange(3, 23).view(2, 10)
    with torch.inference_mode():
        want = reference(ids).logits
    assert len(tensors) >= 6
    assert (logits(base, ids) - want).abs().max() > 0.05
    on = adapters.attach(base, adapters.read(folder))
    assert (logits(on, ids) - want).abs().max() <= 3e-4
    assert (logits(adapters.merge(on), ids) - want).abs().max() <= 3e-4


def test_over_meta_s_own_files(tmp_path: Path) -> None:
    """The rows of B are put in the order of a model whose rotary pairs are neighbours."""
    reference = tiny.make("llama", tmp_path / "port")
    native.write(tmp_path / "port", tmp_path / "own")
    folder = adapted.write(tmp_path / "adapter", adapted.of(reference, ("q_proj", "k_proj", "v_proj")))
    ids = torch.arange(3, 23).view(2, 10)
    with torch.inference_mode():
        want = reference(ids).logits
    on = adapters.attach(load(tmp_path / "own"), adapters.read(folder))
    assert (logits(on, ids) - want).abs().max() <= 3e-4


def test_pickled_adapters(tmp_path: Path) -> None:
    """A .bin, by the reader of pickles."""
    reference = tiny.make("llama", tmp_path)
    folder = adapted.write(tmp_path / "a", adapted.of(reference, ("q_proj",)))
    want = adapters.read(folder)
    tensors = {name: t.clone() for name, t in load_file(folder / "adapter_model.safetensors").items()}
    (tmp_path / "b").mkdir()
    shutil.copy(folder / "adapter_config.json", tmp_path / "b")
    torch.save(tensors, tmp_path / "b" / "adapter_model.bin")
    assert same(adapters.read(tmp_path / "b"), want)

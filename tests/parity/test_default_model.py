"""The default model, a real one: the packed file against transformers over the same file dequantised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from bestiary import LLM, SamplingParams
from bestiary.context import Cache, Full, Paged, Pool, Stream
from bestiary.load import Loaded, load
from bestiary.quant.fused import fuse
from bestiary.run.score import kl_divergence
from bestiary.text.tokenizer import open_tokenizer

from .test_references import assert_close, greedy

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["bench/text.txt", "LICENSE", "pyproject.toml", "Makefile", "src/bestiary/context.py"]
LENGTH = 256


@pytest.fixture(scope="module", params=["as loaded", "fused"])
def loaded(request: pytest.FixtureRequest, default_model: Path) -> Loaded:
    loaded = load(default_model)
    if request.param == "fused":  # as LLM runs it
        fuse(loaded.decoder)
    return loaded


@pytest.fixture(scope="module")
def reference(default_model: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(
        default_model.parent,
        gguf_file=default_model.name,
        dtype=torch.float32,
        quantization_config=transformers.GgufConfig(dequantize=True),
        local_files_only=True,
    ).eval()


@pytest.fixture(scope="module", params=TEXTS)
def ids(request: pytest.FixtureRequest, default_model: Path) -> Tensor:
    text = (ROOT / request.param).read_text(encoding="utf-8")
    return torch.tensor([open_tokenizer(default_model).encode(text)[:LENGTH]])


def test_logits_and_greedy_text(loaded: Loaded, reference: Any, ids: Tensor) -> None:
    with torch.inference_mode():
        got, want = loaded.decoder(ids, Full.of(ids)), reference(ids).logits
    assert ids.shape == (1, LENGTH)
    assert_close(got, want, 2e-3, "logits")
    assert kl_divergence(want[0], got[0]) <= 1e-4
    with torch.inference_mode():
        continued = reference.generate(ids, max_new_tokens=64, min_new_tokens=64, do_sample=False)
    assert greedy(loaded, ids[0], 64) == continued[0, LENGTH:].tolist()


def test_every_context_agrees(loaded: Loaded, ids: Tensor) -> None:
    model, table, start = loaded.decoder, torch.randperm(20)[:16], 240
    cache, pool = Cache.empty(model, 1, LENGTH), Pool.empty(model, 20, 16)
    cuts = [(0, start), *((i, i + 1) for i in range(start, LENGTH))]
    with torch.inference_mode():
        want = model(ids, Full.of(ids))[0]
        stream = [model(ids[:, a:b], Stream.at(cache, a, b - a))[0] for a, b in cuts]
        paged = [model(ids[0, a:b], _page(pool, table, a, b)) for a, b in cuts]
        chunks = [model(ids[0, a : a + 64], _page(pool, table, a, a + 64)) for a in range(0, LENGTH, 64)]
    # A prefill of 240 sums in another order than one of 256. Each was found within 0.8e-4 of float64 on these
    # texts (0.31e-4 to 0.78e-4), so that two may be twice that apart (1.1e-4 was the worst seen).
    assert_close(torch.cat(stream), want, 1.6e-4, "stream")
    assert_close(torch.cat(paged), want, 1.6e-4, "paged")
    # Products of other shapes sum in another order, and float32 itself is 0.6e-4 to 1.5e-4 from float64 on
    # these logits, which reach 41: chunks are held to a share of the largest (1.4e-4 was the worst seen).
    assert_close(torch.cat(chunks), want, 1e-5 * float(want.abs().max()), "paged in chunks")


def _page(pool: Pool, table: Tensor, start: int, stop: int) -> Paged:
    return Paged(torch.arange(start, stop), pool, [(0, stop - start)], [table])


def test_it_answers(default_model: Path) -> None:
    """Exact weights say Paris; 8-bit activations make of this question a list of its quarters."""
    question = [{"role": "user", "content": "What is the capital of France?"}]
    answer = LLM(default_model).chat(question, SamplingParams(temperature=0))[0]
    assert answer.text == "The capital of France is Paris."
    assert answer.outputs[0].finish_reason == "stop"

"""LLM with adapters: the same answers as the merged model, and whose tokenizer and template count."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from bestiary import LLM, CheckpointError, RequestError, SamplingParams
from bestiary.adopt import adopt, find
from bestiary.cli import main
from tests import adapted

GREEDY = SamplingParams(temperature=0, max_tokens=12)


def written(folder: Path, *, rows: int | None = None) -> Path:
    tensors: dict[str, torch.Tensor] = {}
    for layer in (0, 1):
        a, b = adapted.factors(32, 32, seed=layer)
        path = f"model.layers.{layer}.self_attn.q_proj"
        tensors |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
    if rows is not None:
        g = torch.Generator().manual_seed(3)
        ends = ("model.embed_tokens.weight", "lm_head.weight")
        tensors |= {name: torch.randn(rows, 32, generator=g) for name in ends}
    return adapted.write(folder, tensors)


def test_the_same_answers_as_merged(folder: Path, tmp_path: Path) -> None:
    """Cached, through the fused blocks or not; without it the answers are others."""
    adapter = written(tmp_path / "a")
    merged = adopt(find(str(adapter), base=str(folder)), tmp_path / "out").path
    texts = ["Hello", "ab ba"]
    with LLM(folder, threads=1) as plain, LLM(folder, threads=1, adapter=adapter) as beside:
        before, got = plain.generate(texts, GREEDY), beside.generate(texts, GREEDY)
    with LLM(merged, threads=1) as one:
        want = one.generate(texts, GREEDY)
    ids = [[answer.outputs[0].token_ids for answer in answers] for answers in (before, got, want)]
    assert ids[1] == ids[2] != ids[0]


def test_a_larger_vocabulary_brings_its_tokenizer(folder: Path, tmp_path: Path) -> None:
    adapter = written(tmp_path / "a", rows=280)
    shutil.copy(folder / "tokenizer.json", adapter)
    said = json.loads((folder / "tokenizer_config.json").read_text())
    (adapter / "tokenizer_config.json").write_text(json.dumps({**said, "chat_template": "{{ 'mine' }}"}))
    with LLM(folder, threads=1, adapter=[adapter]) as llm:
        assert llm.template is not None
        assert llm.template.encode([{"role": "user", "content": "x"}]).text == "mine"
        assert llm.generate("ab", GREEDY)[0].outputs[0].token_ids


def test_an_adapter_of_another_model(folder: Path, tmp_path: Path) -> None:
    a, b = adapted.factors(64, 64, seed=1)
    path = "model.layers.0.self_attn.q_proj"
    other = adapted.write(tmp_path / "a", {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b})
    with pytest.raises(CheckpointError, match="64 to 64 channels"):
        LLM(folder, threads=1, adapter=other)


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    """Also where a tokenizer lies beside it."""
    with pytest.raises(RequestError, match="no model by itself\nTry: somebody/base with --adapter"):
        LLM(written(tmp_path / "a"), threads=1)


def test_the_command_says_what_was_attached(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = written(tmp_path / "a")
    wanted = ["generate", str(folder), "Hello", "-n", "2", "--adapter", str(adapter), "--threads", "1"]
    assert main(wanted) == 0
    assert f"adapter {adapter}: 512 parameters on 2 layers" in capsys.readouterr().err

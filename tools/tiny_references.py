"""Make the packaged reference results of families that transformers computes: src/bestiary/prove/tiny.

    python -m tools.tiny_references

A tiny random checkpoint of tests/tiny.py each, as transformers writes it, and what transformers computes from
it in float32. `bestiary prove` holds us to them where nothing but the package is at hand.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from tests import tiny
from tools.sources import ROOT

FOLDER = ROOT / "src/bestiary/prove/tiny"
# Our family -> the tiny model that stands for it.
FAMILIES = {
    "llama": "llama", "mixtral": "mixtral", "qwen2": "qwen2", "qwen2_moe": "qwen2-moe", "gemma": "gemma",
    "gpt2": "gpt2", "openai_gpt": "openai-gpt", "opt": "opt", "bloom": "bloom", "gptj": "gptj",
    "falcon": "falcon-7b", "gpt_neox": "gpt-neox", "bert": "bert", "t5": "t5",
}  # fmt: skip


def make(family: str, name: str) -> None:
    """Write one case."""
    case = FOLDER / family
    with tempfile.TemporaryDirectory() as folder:
        model = tiny.make(name, Path(folder), seed=1)
        case.mkdir(parents=True, exist_ok=True)
        for file in ("config.json", "model.safetensors"):
            shutil.copy(Path(folder) / file, case / file)
    with torch.inference_mode():
        want = computed(model)
    save_file(
        {key: tensor.contiguous().clone() for key, tensor in want.items()}, case / "expected.safetensors"
    )
    about = {
        "family": family,
        "reference": f"transformers=={transformers.__version__} {type(model).__name__}, float32",
        "tolerance": 1e-4,
        "hidden_states": "after the embedding and every block but the last, whose state is after the norm",
        "notes": ["random weights, large enough that a wrong layout moves logits by whole units"],
    }
    (case / "META.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def computed(model: Any) -> dict[str, Tensor]:
    """Return what transformers computes: logits, states before the last norm, and a text."""
    drawn = torch.Generator().manual_seed(2)
    tokens = torch.randint(5, tiny.SIZES["vocab_size"], (2, 12), generator=drawn)
    if model.config.is_encoder_decoder:
        answer = torch.randint(5, tiny.SIZES["vocab_size"], (2, 6), generator=drawn)
        answer[:, 0] = model.config.decoder_start_token_id
        got = model(input_ids=tokens, decoder_input_ids=answer, output_hidden_states=True)
        states = {f"encoder_hidden_states.{i}": s for i, s in enumerate(got.encoder_hidden_states[:-1])}
        states |= {f"decoder_hidden_states.{i}": s for i, s in enumerate(got.decoder_hidden_states[:-1])}
        return {"input_ids": tokens, "decoder_input_ids": answer, "logits": got.logits, **states}
    got = model(tokens, output_hidden_states=True)
    states = {f"hidden_states.{i}": state for i, state in enumerate(got.hidden_states[:-1])}
    found = {"input_ids": tokens, "logits": got.logits, **states}
    if model.can_generate():
        ids = model.generate(tokens[:1], max_new_tokens=12, do_sample=False, eos_token_id=None)
        found["greedy"] = ids[0, tokens.shape[1] :]
    return found


if __name__ == "__main__":
    for family, name in FAMILIES.items():
        make(family, name)

"""Phi-3's rotary factors: told by the length of a whole prompt, in every spelling, and counted."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from bestiary.context import Cache, Full, Stream
from bestiary.errors import ConfigError
from bestiary.load import load
from tests import tiny

TRAINED = tiny.LONG_ROPE["original_max_position_embeddings"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.make("phi3-longrope", tmp_path)
    return tmp_path


def test_a_prompt_longer_than_trained_comes_in_pieces(folder: Path) -> None:
    """Its first pieces, still short, have the factors of the whole."""
    model, ids = load(folder).model, torch.randint(tiny.SIZES["vocab_size"], (2, TRAINED + 8))
    prompt, cache = model.prompt(ids), Cache.empty(load(folder).model, 2, TRAINED + 8)
    with torch.inference_mode():
        want = model(ids, Full.of(ids))
        steps = pairwise((0, 5, TRAINED - 1, TRAINED, TRAINED + 8))
        got = [model(ids[:, a:b], Stream.at(cache, a, b - a, prompt)) for a, b in steps]
    torch.testing.assert_close(torch.cat(got, 1), want, rtol=0, atol=5e-5)
    short = Full.of(ids[:, :TRAINED])
    with torch.inference_mode():
        assert (model(ids[:, :TRAINED], short) - want[:, :TRAINED]).abs().max() > 0.1, (
            "the factors do nothing"
        )


@pytest.mark.parametrize("kind", ["su", "longrope"])
def test_the_published_spelling(folder: Path, kind: str) -> None:
    """rope_scaling, with the trained length beside it, as files have it until 2025."""
    file, ids = folder / "config.json", torch.randint(tiny.SIZES["vocab_size"], (1, TRAINED + 8))
    new, config = load(folder).model, json.loads(file.read_text(encoding="utf-8"))
    section = config.pop("rope_parameters")
    config["rope_theta"] = section.pop("rope_theta")
    config["original_max_position_embeddings"] = section.pop("original_max_position_embeddings")
    factors = {key: section[key] for key in ("short_factor", "long_factor")}
    file.write_text(json.dumps({**config, "rope_scaling": {**factors, "type": kind}}), encoding="utf-8")
    with torch.inference_mode():
        assert torch.equal(load(folder).model(ids, Full.of(ids)), new(ids, Full.of(ids)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"long_factor": [1.0, 2.0]}, "8 channels turn, which takes 4 factors"),
        ({"short_factor": [1.0, 1.0, 0.0, 1.0]}, "short_factor should be a list of numbers above zero"),
        ({"short_factor": "1.0"}, "short_factor = '1.0' should be a list of float"),
        ({"long_mscale": 1.2}, "long_mscale = 1.2"),
    ],
)
def test_what_is_not_computed_is_refused(folder: Path, change: dict[str, Any], said: str) -> None:
    rope = {**tiny.LONG_ROPE, "partial_rotary_factor": 1.0, **change}
    with pytest.raises(ConfigError, match=said):
        load(folder, config={"rope_parameters": rope})

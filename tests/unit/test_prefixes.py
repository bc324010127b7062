"""Prefixes of keys and values, against the same attention written out, and over every context."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bestiary.bricks.prefixes import Prefixed
from bestiary.context import Cache, Full, Paged, Pool, Score, Slot, Stream
from bestiary.families.ptuning import PrefixTuned
from bestiary.kernels.attention import Lead
from bestiary.load import Loaded, load, published
from tests.goldens import STORED

COUNT, SIZES = 4, {"chatglm1-6b": (64, 3 * 2 * 64), "chatglm2-6b": (192, 3 * 2 * 2 * 16)}


def tuned(name: str, folder: Path, extra: dict[str, Tensor], **config: object) -> Loaded:
    """Load a stored case with a prefix encoder put into its file."""
    shutil.copytree(STORED / name, folder)
    keys = {f"transformer.prefix_encoder.{key}": value for key, value in extra.items()}
    save_file(load_file(folder / "model.safetensors") | keys, folder / "model.safetensors")
    said = json.loads((folder / "config.json").read_text()) | {"pre_seq_len": COUNT, **config}
    (folder / "config.json").write_text(json.dumps(said))
    return load(folder)


def tokens(name: str) -> Tensor:
    return load_file(STORED / name / "expected.safetensors")["input_ids"]


def logits(loaded: Loaded, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        return loaded.model(ids, Full.of(ids, None, loaded.model.prompt(ids)))


@pytest.mark.parametrize("name", SIZES)
def test_projected_rows_are_those_of_the_formula(name: str, tmp_path: Path) -> None:
    table, channels = SIZES[name]
    kind = {
        "embedding.weight": torch.randn(COUNT, table),
        "trans.0.weight": torch.randn(64, table) / 8,
        "trans.0.bias": torch.randn(64),
        "trans.2.weight": torch.randn(channels, 64) / 8,
        "trans.2.bias": torch.randn(channels),
    }
    projected = tuned(name, tmp_path / "a", kind, prefix_projection=True)
    row = torch.tanh(kind["embedding.weight"] @ kind["trans.0.weight"].T + kind["trans.0.bias"])
    row = row @ kind["trans.2.weight"].T + kind["trans.2.bias"]
    plain = tuned(name, tmp_path / "b", {"embedding.weight": row.contiguous()})
    got, want = logits(projected, tokens(name)), logits(plain, tokens(name))
    assert (got - want).abs().max() <= 1e-4
    assert (got - logits(load(STORED / name), tokens(name))).abs().max() > 0.1
    assert published(projected).keys() | projected.match.dropped == projected.checkpoint.entries.keys()


@pytest.mark.parametrize("name", SIZES)
def test_every_context_sees_the_prefix(name: str, tmp_path: Path) -> None:
    loaded = tuned(name, tmp_path / "a", {"embedding.weight": torch.randn(COUNT, SIZES[name][1])})
    model, ids = loaded.model, tokens(name)[:1]
    assert isinstance(model, PrefixTuned)
    begin, want, count = model.prompt(ids), logits(loaded, ids)[0], ids.shape[1]
    cuts = (0, 25, 26, count)
    cache, pool = Cache.empty(model, 1, count), Pool.empty(model, 9, 4)
    table = torch.randperm(9)
    with torch.inference_mode():
        streamed = [model(ids[:, a:b], Stream.at(cache, a, b - a, begin))[0] for a, b in pairwise(cuts)]
        paged = [
            model(ids[0, a:b], Paged(torch.arange(a, b), pool, [(0, b - a)], [table], [begin]))
            for a, b in pairwise(cuts)
        ]
    assert (torch.cat(streamed) - want).abs().max() <= 1e-4
    assert (torch.cat(paged) - want).abs().max() <= 1e-4


def test_a_step_compiles_without_breaks(tmp_path: Path) -> None:
    name = "chatglm1-6b"
    loaded = tuned(name, tmp_path / "a", {"embedding.weight": torch.randn(COUNT, SIZES[name][1])})
    ids = tokens(name)[:1]
    begin, want = loaded.model.prompt(ids), logits(loaded, ids)
    step = torch.compile(
        lambda ids, positions, cache: loaded.model(ids, Stream(positions, cache, None, begin)),
        backend="eager",
        fullgraph=True,
    )
    cache = Cache.empty(loaded.model, 1, ids.shape[1])
    with torch.inference_mode():
        loaded.model(ids[:, :25], Stream.at(cache, 0, 25, begin))
        got = step(ids[:, 25:26], torch.tensor([[25]]), cache)
    assert (got - want[:, 25:26]).abs().max() <= 1e-4


def test_a_lead_is_seen_by_all_and_masks_keep_their_place() -> None:
    """Against softmax over the keys put end to end, causal but for the lead."""
    q, k, v = torch.randn(3, 1, 5, 2, 8).unbind(0)
    lead = Lead(torch.randn(3, 2, 8), torch.randn(3, 2, 8))
    ctx = Prefixed(Full.of(torch.zeros(1, 5, dtype=torch.long)), [lead])
    got = ctx.attend(Slot(0, 2, 8), q, k, v, Score())
    keys, values = torch.cat((lead.k[None], k), 1), torch.cat((lead.v[None], v), 1)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, keys) / 8**0.5
    hidden = torch.ones(5, 8, dtype=torch.bool).triu(4)
    want = torch.einsum("bhqk,bkhd->bqhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), values)
    assert (got - want).abs().max() <= 1e-6

"""What adapters do beyond adding products, and which are refused, by name."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bestiary import adapters
from bestiary.adapters import DoRA, LoRA
from bestiary.context import Full
from bestiary.errors import BestiaryError, CheckpointError, ConfigError, RequestError
from bestiary.load import Loaded, load, published, save
from bestiary.quant.linear import PackedEmbedding, PackedLinear
from bestiary.quant.rows import RowScaled
from bestiary.swap import swap
from tests import adapted, tiny

IDS = torch.arange(3, 23).view(2, 10)
Q = "model.layers.0.self_attn.q_proj"
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def logits(loaded: Loaded) -> Tensor:
    with torch.inference_mode():
        return loaded.decoder(IDS, Full.of(IDS))


def low_rank(path: str = Q, out: int = 48, columns: int = 48, seed: int = 5) -> dict[str, Tensor]:
    a, b = adapted.factors(out, columns, seed=seed)
    return {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.make("llama", tmp_path)
    return tmp_path


def halved(folder: Path) -> Path:
    """Round a checkpoint to float16, as most are published."""
    tensors = {name: t.half() for name, t in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def attach(base: Loaded, folder: Path, tensors: dict[str, Tensor], **config: object) -> adapters.Adapted:
    return adapters.attach(base, adapters.read(adapted.write(folder, tensors, **config)))


def test_a_merged_linear_of_2023(tmp_path: Path) -> None:
    """q and v of a fused layer, each with an A and a B: a grouped convolution, whatever the pieces mean."""
    tiny.make("gpt2", tmp_path)
    a, b = adapted.factors(96, 48, seed=1)
    a = torch.cat([a, a.flip(1)])  # two pieces of rank 4
    path = "transformer.h.1.attn.c_attn"
    tensors = {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b[..., None]}
    on = attach(load(tmp_path), tmp_path / "a", tensors, enable_lora=[True, False, True], merge_weights=False)
    got = published(adapters.merge(on))["transformer.h.1.attn.c_attn.weight"]
    # peft 0.2: conv1d(A, B, groups=2), zeros where a piece is not adapted, turned for a Conv1D.
    added = F.conv1d(a[None], b[..., None], groups=2)[0] * adapted.ALPHA / adapted.RANK
    whole = torch.cat([added[:48], torch.zeros(48, 48), added[48:]])
    want = load_file(tmp_path / "model.safetensors")["transformer.h.1.attn.c_attn.weight"] + whole.T
    assert (got - want).abs().max() <= 1e-6


@pytest.mark.parametrize("bits", [8, 4])
def test_over_packed_integers(folder: Path, bits: int) -> None:
    """QLoRA: the product is added to what the integers stand for, and cannot be merged into them."""
    packed, plain = load(folder), load(folder)
    where = r"layers\.\d+\.(attn\.[qkvo]|mlp\.(gate|up|down))"
    swap(packed.model, where, partial(RowScaled.of, bits=bits))
    for path, module in packed.model.named_modules():
        if isinstance(module, RowScaled):
            plain.model.get_submodule(path).weight = nn.Parameter(module.dequantize())
    before = logits(packed)
    tensors = low_rank() | low_rank("model.layers.2.mlp.down_proj", 48, 96)
    on = attach(packed, folder / "a", tensors)
    assert (logits(on) - logits(attach(plain, folder / "a", tensors))).abs().max() <= 1e-4
    with pytest.raises(RequestError, match="merge it into the 16-bit base"):
        adapters.merge(on)
    adapters.detach(on)
    assert torch.equal(logits(packed), before)


def test_sixteen_bits_stay_sixteen(folder: Path) -> None:
    """A merged weight is the float32 sum, rounded once to the base's type, and held as that was."""
    base = load(halved(folder))
    tensors = low_rank()
    kinds = {path: type(module) for path, module in base.model.named_modules()}
    merged = adapters.merge(attach(base, folder / "a", tensors))
    assert {path: type(module) for path, module in merged.model.named_modules()} == kinds
    old = load_file(folder / "model.safetensors")[f"{Q}.weight"].float()
    a, b = (tensors[f"{Q}.lora_{kind}.weight"] for kind in "AB")
    new = published(merged)[f"{Q}.weight"]
    assert torch.equal(new, (old + adapted.ALPHA / adapted.RANK * (b @ a)).half())


def test_two_in_order_are_both_added(folder: Path) -> None:
    first, second = low_rank(), low_rank(seed=6) | low_rank("model.layers.1.mlp.up_proj", 96, 48)
    stacked = attach(attach(load(folder), folder / "a", first), folder / "b", second)
    after = attach(adapters.merge(attach(load(folder), folder / "a", first)), folder / "b", second)
    assert (logits(stacked) - logits(after)).abs().max() <= 1e-4
    with pytest.raises(RequestError, match="merge the first"):
        adapters.save(stacked, folder / "c")
    merged = adapters.merge(stacked)
    assert not any(isinstance(module, LoRA) for module in merged.model.modules())
    assert (logits(merged) - logits(after)).abs().max() <= 1e-4


def larger(rows: int, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(3)
    return {name: torch.randn(rows, 48, generator=g).to(dtype) for name in (EMBED, HEAD)}


def test_a_larger_vocabulary(folder: Path) -> None:
    """Chinese-LLaMA and then Chinese-Alpaca: each brings embedding and head with more rows than before."""
    base = load(halved(folder))
    first, second = larger(140) | low_rank(), larger(141) | low_rank(seed=8)
    on = attach(base, folder / "a", first, modules_to_save=["embed_tokens", "lm_head"])
    assert (on.config["vocab_size"], logits(on).shape[-1]) == (140, 140)
    both = attach(on, folder / "b", second, modules_to_save=["embed_tokens", "lm_head"])
    assert isinstance(both.model.embed, PackedEmbedding)
    assert isinstance(both.model.head, PackedLinear)
    merged = adapters.merge(both)
    assert torch.equal(published(merged)[EMBED], second[EMBED])
    save(merged, folder / "out")
    again = load(folder / "out")
    assert again.config["vocab_size"] == 141
    assert torch.equal(logits(again), logits(merged))
    with pytest.raises(CheckpointError, match="has 140 rows, fewer than the base's 141"):
        attach(merged, folder / "c", larger(140))
    with pytest.raises(CheckpointError, match="142 and 141 rows"):
        attach(merged, folder / "d", {EMBED: larger(142)[EMBED]})
    assert adapters.detach(both) is base
    assert logits(base).shape[-1] == 130


def test_tied_ends_come_apart(tmp_path: Path) -> None:
    """An adapter of the embedding alone leaves the head as it was, as PEFT does; and it is saved so."""
    tiny.make("llama-mqa-tied", tmp_path)
    base = load(tmp_path)
    before = base.model.get_submodule("head").get_parameter("weight").clone()
    on = attach(base, tmp_path / "a", {EMBED: larger(130, torch.float32)[EMBED]})
    assert torch.equal(on.model.get_submodule("head").get_parameter("weight"), before)
    save(adapters.merge(on), tmp_path / "out")
    again = load(tmp_path / "out")
    assert torch.equal(logits(again), logits(on))


def test_a_head_that_judges(folder: Path) -> None:
    """SEQ_CLS: StackLLaMA's reward model is an adapter with a head of its own."""
    score = torch.randn(1, 48, generator=torch.Generator().manual_seed(1))
    on = attach(load(folder), folder / "a", {"score.weight": score} | low_rank(), task_type="SEQ_CLS")
    assert on.scores
    assert logits(on).shape[-1] == 1
    save(adapters.merge(on), folder / "out")
    again = load(folder / "out")
    assert again.scores
    assert torch.equal(logits(again), logits(on))


def test_names_of_a_bare_model(folder: Path) -> None:
    """Adapters of AutoModel lack the part of each path that stands beside the head."""
    bare = attach(load(folder), folder / "a", low_rank(Q.removeprefix("model.")))
    assert torch.equal(logits(bare), logits(attach(load(folder), folder / "b", low_rank())))


def test_dora_over_a_bias(tmp_path: Path) -> None:
    """m * V x / |V| + bias: the bias is not scaled (arXiv 2402.09353, eq. 5)."""
    g = torch.Generator().manual_seed(3)
    base = nn.Linear(12, 8)
    a, b, m, x = (torch.randn(*size, generator=g) for size in ((2, 12), (8, 2), (8,), (5, 12)))
    weight, bias = base.weight.detach().clone(), base.bias.detach().clone()
    layer = DoRA.of(base, a, b, scale=1.5, dtype=torch.float32, lengths=m).eval()
    v = weight + 1.5 * b @ a
    want = (m / v.square().sum(1).sqrt())[:, None] * v
    with torch.no_grad():
        torch.testing.assert_close(layer(x), x @ want.T + bias, rtol=0, atol=1e-5)
    torch.testing.assert_close(layer.dequantize(), want, rtol=0, atol=1e-5)


# What a config says -> the factors on B A of layers.0.q, layers.1.q and layers.0.k, rank 4 throughout but
# where a pattern gives it.
SCALES: dict[str, tuple[dict[str, object], tuple[float, float, float]]] = {
    "plain": ({}, (1.5, 1.5, 1.5)),
    "rooted": ({"use_rslora": True}, (3.0, 3.0, 3.0)),
    "by end": ({"alpha_pattern": {"q_proj": 8}}, (2.0, 2.0, 1.5)),
    "by path": ({"alpha_pattern": {"model.layers.1.self_attn.q_proj": 8}}, (1.5, 2.0, 1.5)),
    "anchored": ({"alpha_pattern": {"^model.layers.1.self_attn.q_proj": 8}}, (1.5, 2.0, 1.5)),
    "anchored end": ({"alpha_pattern": {"^q_proj": 8}}, (1.5, 1.5, 1.5)),
    "part of a name": ({"alpha_pattern": {"proj": 8}}, (1.5, 1.5, 1.5)),
    "the first counts": ({"alpha_pattern": {"q_proj": 8, "layers.1.self_attn.q_proj": 16}}, (2.0, 2.0, 1.5)),
}


@pytest.mark.parametrize("name", SCALES)
def test_scales(name: str, tmp_path: Path) -> None:
    """alpha / rank, of rsLoRA alpha / sqrt(rank); patterns name the end of a path, or after ^ all of it."""
    said, wanted = SCALES[name]
    paths = [
        f"model.layers.{place}"
        for place in ("0.self_attn.q_proj", "1.self_attn.q_proj", "0.self_attn.k_proj")
    ]
    tensors = {key: value for path in paths for key, value in low_rank(path).items()}
    read = adapters.read(adapted.write(tmp_path, tensors, **said))
    assert tuple(read.factors[path].scale for path in paths) == wanted


def test_dora_learns_direction_and_length(folder: Path) -> None:
    """At its start it changes nothing; in training both parts take a gradient, and the base none."""
    base = load(folder)
    before = logits(base)
    swap(base.model, r"layers\.\d+\.attn\.[qv]", lambda m: DoRA(m, rank=2, alpha=4))
    assert (logits(base) - before).abs().max() <= 1e-4
    base.model.train()
    base.decoder(IDS, Full.of(IDS)).square().mean().backward()
    trained = {name for name, p in base.model.named_parameters() if p.grad is not None and "attn.q" in name}
    assert {name.partition("attn.q.")[2] for name in trained} == {
        "lora_A.weight", "lora_B.weight", "lora_magnitude_vector",
    }  # fmt: skip


def test_trained_adapters_are_saved(tmp_path: Path) -> None:
    """Of a layer that is published fused, each piece trained by itself: one product of a larger rank."""
    tiny.make("gpt2", tmp_path)
    model = load(tmp_path)
    swap(model.model, r"layers\.1\.attn\.[qv]", lambda m: LoRA(m, rank=2, alpha=3))
    for module in model.model.modules():
        if isinstance(module, LoRA):
            nn.init.normal_(module.lora_B.weight)
    adapters.save(model, tmp_path / "a")
    read = adapters.read(tmp_path / "a")
    assert [f.rank for f in read.factors.values()] == [4]
    assert (logits(adapters.attach(load(tmp_path), read)) - logits(model)).abs().max() <= 1e-4


@pytest.mark.parametrize("half", [False, True])
def test_a_head_that_was_trained_is_saved(folder: Path, half: bool, tmp_path: Path) -> None:
    """modules_to_save as they are now; those that were left alone, bit for bit as they were brought."""
    base = load(halved(folder) if half else folder)
    ends = {
        HEAD: torch.randn(130, 48).to(torch.float16 if half else torch.float32),
        EMBED: torch.ones(130, 48),
    }
    on = attach(base, tmp_path / "a", low_rank() | ends)
    weight: Any = on.model.get_submodule("head").weight
    with torch.no_grad():
        weight.zero_()  # packed or not: zero is zero
    adapters.save(on, tmp_path / "saved")
    again = adapters.read(tmp_path / "saved").whole
    assert not again[HEAD].any()
    assert torch.equal(again[EMBED], ends[EMBED])


def test_nothing_to_save(folder: Path) -> None:
    with pytest.raises(RequestError, match="no adapter is on this model"):
        adapters.save(load(folder), folder / "out")


WRONG: list[tuple[str, dict[str, Tensor], dict[str, object], type[BestiaryError], str]] = [
    ("size", low_rank(columns=64), {}, CheckpointError, r"64 to 48 channels, .* Linear\(48, 48\)"),
    ("family", low_rank("transformer.h.0.attn.c_attn"), {}, CheckpointError, r"1 place\(s\) that the base"),
    ("layer", low_rank("model.layers.7.self_attn.q_proj"), {}, CheckpointError, "somebody/base"),
    ("rank", low_rank(), {"r": 8}, CheckpointError, "makes it rank 8"),
    ("half", {f"{Q}.lora_A.weight": torch.ones(4, 48)}, {}, CheckpointError, "has no lora_B"),
    ("no length", low_rank(), {"use_dora": True}, ConfigError, "no lora_magnitude_vector"),
    ("bias of B", {f"{Q}.lora_B.bias": torch.ones(48)}, {}, CheckpointError, "lora_bias"),
    ("kind", low_rank(), {"peft_type": "IA3"}, ConfigError, "only LORA"),
    ("new key", low_rank(), {"use_newest": {"a": 1}}, ConfigError, "use_newest"),
    ("layers", low_rank(), {"layer_replication": [[0, 2], [1, 3]]}, ConfigError, "layer_replication"),
    ("tokens", low_rank(), {"alora_invocation_tokens": [1]}, ConfigError, "alora_invocation_tokens"),
    ("start", low_rank(), {"init_lora_weights": "pissa"}, ConfigError, "pissa"),
    ("pattern", low_rank(), {"rank_pattern": {"(a+)+$": 4}}, ConfigError, "no path"),
    ("alpha", low_rank(), {"lora_alpha": ...}, ConfigError, "lora_alpha"),
    ("grouped", {f"{Q}.lora_A.weight": torch.ones(4, 48), f"{Q}.lora_B.weight": torch.ones(48, 4, 1)},
     {}, CheckpointError, "enable_lora"),
    ("embedding", {f"{Q}.lora_embedding_A": torch.ones(4, 48), f"{Q}.lora_embedding_B": torch.ones(48, 4)},
     {}, CheckpointError, "adapts a layer"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("tensors", "config", "kind", "said"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_refused(
    folder: Path, tensors: dict[str, Tensor], config: dict[str, Any], kind: type[BestiaryError], said: str
) -> None:
    """And the model is as it was."""
    base = load(folder)
    before = logits(base)
    with pytest.raises(kind, match=said):
        attach(base, folder / "a", tensors, **config)
    assert torch.equal(logits(base), before)


def test_what_is_off_is_passed_over(folder: Path) -> None:
    """Later versions of PEFT write each new key as null, false or empty."""
    off: dict[str, Any] = {"use_newest": None, "is_newer": False, "newest_config": {}, "enable_lora": None}
    attach(load(folder), folder / "a", low_rank(), **off)


def test_an_empty_file(folder: Path) -> None:
    """What tloen/alpaca-lora's script saved with a later PEFT: 443 bytes, and no tensor."""
    adapted.write(folder / "a", {})
    (folder / "a" / "adapter_model.safetensors").unlink()
    torch.save({}, folder / "a" / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"holds no tensors.*saved empty"):
        adapters.read(folder / "a")


def test_no_file(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "adapter_config.json").write_text(json.dumps(adapted.CONFIG))
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors or adapter_model\.bin"):
        adapters.read(folder / "a")

"""Repositories that hold linear layers packed: every form on families that store them in every layout."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bestiary.context import Full
from bestiary.describe import describe, empty
from bestiary.errors import CheckpointError, ConfigError
from bestiary.files import open_checkpoint
from bestiary.load import Loaded, load, published
from bestiary.quant.striped import Striped
from bestiary.swap import swap
from bestiary.tensors import places
from tests import tiny
from tests.packers import BNB_CONFIG, FORMS, GPTQ_CONFIG, Packer, awq, gptq, int8
from tests.seam.test_swaps import LINEARS, adapt, assert_products_are_added
from tests.subjects import Subject

# One by one, turned, by heads, by groups of heads, one after another, experts, with a bias, both stacks.
MODELS = ["llama", "gpt2", "gpt-neox", "falcon-40b", "phi3", "mixtral", "bloom", "bart"]
TURNED = r".*\.(c_attn|c_proj|c_fc)\.weight"


def repository(folder: Path, name: str, said: dict[str, Any] | None, pack: Packer) -> tuple[Loaded, Path]:
    """Write a tiny model with packed blocks to a folder; return it as it is with plain weights of them."""
    plain, packed = folder / "plain", folder / "packed"
    tiny.make(name, plain)
    _, rules, _ = describe(open_checkpoint(plain))
    floats = load_file(plain / "model.safetensors")
    ours = places(rules, floats)
    held: dict[str, Tensor] = {}
    for theirs, weight in list(floats.items()):
        if not all(re.fullmatch(rf"{LINEARS}\.weight", path) for path in ours.get(theirs, ["none"])):
            held[theirs] = weight
            continue
        turned = re.fullmatch(TURNED, theirs) is not None
        tensors, wide = pack(weight.T.contiguous() if turned else weight)
        held |= {f"{theirs.removesuffix('weight')}{leaf}": tensor for leaf, tensor in tensors.items()}
        floats[theirs] = wide.T.contiguous() if turned else wide
    packed.mkdir()
    save_file(floats, plain / "model.safetensors")
    save_file(held, packed / "model.safetensors")
    config = json.loads((plain / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps(config | {"quantization_config": said}))
    return load(plain), packed


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_model_of_the_dequantised_weights(name: str, form: str, tmp_path: Path) -> None:
    """Packed in memory, the same logits, the same over a cache and under an adapter, and saved as it was."""
    plain, folder = repository(tmp_path, name, *FORMS[form])
    want, got = Subject(plain, 130), Subject(load(folder), 130)
    ids = got.tokens(2, 15)
    expected = want.logits(ids)
    assert (got.logits(ids) - expected).abs().max() <= 1e-4 * max(1, expected.abs().max().item())
    assert_bit_equal(got.loaded)
    layers = [module for module in got.model.modules() if isinstance(module, Striped)]
    assert swap(got.model, LINEARS, adapt) == len(layers)
    assert_products_are_added(got, ids)


def assert_bit_equal(loaded: Loaded) -> None:
    saved, entries = published(loaded), loaded.checkpoint.entries
    assert saved.keys() | loaded.match.dropped == entries.keys()
    for name, tensor in saved.items():
        original = entries[name].read()
        assert tensor.dtype == original.dtype, name
        assert torch.equal(tensor, original), name


@pytest.mark.parametrize("form", FORMS)
def test_its_config_alone_describes_it(form: str, tmp_path: Path) -> None:
    """As many bytes, but for the few of what says how it was packed."""
    _, folder = repository(tmp_path, "llama", *FORMS[form])
    alone = empty(json.loads((folder / "config.json").read_text()))
    sizes = {name: t.numel() for name, t in alone.state_dict().items() if "quant_state" not in name}
    loaded = load(folder).model.state_dict()
    assert all(loaded[name].numel() == size for name, size in sizes.items() if name in loaded)
    assert loaded.keys() <= alone.state_dict().keys()


def test_quantize_config_lies_beside(tmp_path: Path) -> None:
    """As AutoGPTQ wrote it, before config.json had a key for it; and written back into config.json."""
    plain, folder = repository(tmp_path, "llama", None, gptq())
    said = {key: value for key, value in GPTQ_CONFIG.items() if key != "quant_method"}
    (folder / "quantize_config.json").write_text(json.dumps(said | {"model_name_or_path": None}))
    loaded = load(folder)
    assert loaded.config["quantization_config"] == said | {"quant_method": "gptq", "model_name_or_path": None}
    assert_same(loaded, plain)
    (folder / "quantize_config.json").write_text("[4]")
    with pytest.raises(ConfigError, match=r"quantize_config\.json: holds a list"):
        load(folder)


def test_quant_config_of_awq_lies_beside(tmp_path: Path) -> None:
    plain, folder = repository(tmp_path, "llama", None, awq())
    said = {"zero_point": True, "q_group_size": 16, "w_bit": 4, "version": "GEMM"}
    (folder / "quant_config.json").write_text(json.dumps(said))
    assert_same(load(folder), plain)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group", [16, None])
def test_nothing_says_how_it_was_packed(bits: int, group: int | None, tmp_path: Path) -> None:
    """GPTQ-for-LLaMa's single file: the shapes of its tensors tell bits and groups."""
    plain, folder = repository(tmp_path, "llama-mha-biased", None, gptq(bits, group))
    file = (folder / "model.safetensors").rename(folder / f"llama7b-{bits}bit.safetensors")
    assert_same(load(folder), plain)
    torch.save(load_file(file), folder / f"llama7b-{bits}bit.pt")
    assert_same(load(folder / f"llama7b-{bits}bit.pt"), plain)


def test_early_eight_bits(tmp_path: Path) -> None:
    plain, folder = repository(tmp_path, "llama", {"load_in_8bit": True}, int8(early=True))
    loaded = load(folder)
    assert_same(loaded, plain)
    assert_bit_equal(loaded)


def test_what_training_left_in_the_config_of_a_plain_model(tmp_path: Path) -> None:
    plain, folder = repository(tmp_path, "llama", BNB_CONFIG, lambda weight: ({"weight": weight}, weight))
    loaded = load(folder)
    assert "quantization_config" not in loaded.config
    assert_same(loaded, plain)


def test_a_head_that_is_packed_and_a_block_that_is_not(tmp_path: Path) -> None:
    """`modules_to_not_convert`, `lm_head`: the tensors tell."""
    plain, folder = repository(tmp_path, "llama", FORMS["awq"][0], awq())
    held, floats = (
        load_file(folder / "model.safetensors"),
        load_file(tmp_path / "plain" / "model.safetensors"),
    )
    held = {name: tensor for name, tensor in held.items() if ".1.mlp.up" not in name}
    held["model.layers.1.mlp.up_proj.weight"] = floats["model.layers.1.mlp.up_proj.weight"]
    floats["lm_head.weight"] = torch.cat((floats["lm_head.weight"], torch.randn(6, 48)))
    tensors, floats["lm_head.weight"] = awq()(floats["lm_head.weight"])
    del held["lm_head.weight"]
    held |= {f"lm_head.{leaf}": tensor for leaf, tensor in tensors.items()}
    for place in (plain.checkpoint.path, folder):
        config = json.loads((place / "config.json").read_text()) | {"vocab_size": 136}
        (place / "config.json").write_text(json.dumps(config))
        for tensors in (held, floats):
            embedding = tensors["model.embed_tokens.weight"]
            tensors["model.embed_tokens.weight"] = torch.cat((embedding, embedding))[:136]
    save_file(floats, plain.checkpoint.path / "model.safetensors")
    save_file(held, folder / "model.safetensors")
    loaded = load(folder)
    assert_same(loaded, load(plain.checkpoint.path))
    assert sum(isinstance(module, Striped) for module in loaded.model.modules()) == 3 * 7


def assert_same(loaded: Loaded, plain: Loaded) -> None:
    ids = torch.randint(3, 130, (1, 9))
    with torch.inference_mode():
        got, want = (each.model(ids, Full.of(ids)) for each in (loaded, plain))
    assert (got - want).abs().max() <= 1e-4 * max(1, want.abs().max().item())


Change = Callable[[dict[str, Tensor], dict[str, Any]], None]
Q = "model.layers.0.self_attn.q_proj"


def drop(leaf: str) -> Change:
    return lambda tensors, said: tensors.__delitem__(f"{Q}.{leaf}")


def put(leaf: str, value: Tensor) -> Change:
    return lambda tensors, said: tensors.__setitem__(f"{Q}.{leaf}", value)


def say(**keys: object) -> Change:
    return lambda tensors, said: said.update(keys)


def state(**keys: object) -> Change:
    """Change what a quant_state says."""

    def change(tensors: dict[str, Tensor], said: dict[str, Any]) -> None:
        name = f"{Q}.weight.quant_state.bitsandbytes__nf4"
        text = json.dumps(json.loads(bytes(tensors[name].tolist())) | keys).encode()
        tensors[name] = torch.frombuffer(bytearray(text), dtype=torch.uint8)

    return change


STATE = "weight.quant_state.bitsandbytes__nf4"
BAD: list[tuple[str, Change, str]] = [
    ("gptq", say(group_size=32), r"has shape \[\d, \d+\], and the config makes it"),
    ("gptq", say(bits=8), r"qweight.*has shape \[\d+, \d+\], and the config makes it"),
    ("gptq", say(bits=5), "bits = 5 is not computed here"),
    ("gptq", say(checkpoint_format="marlin"), "checkpoint_format = 'marlin' is not computed here"),
    ("gptq", say(dynamic={"-:.*gate.*": {}}), "dynamic = .* is not computed here"),
    ("gptq", say(quant_method="aqlm"), "quant_method = 'aqlm' is not read here; known: gptq, awq"),
    ("gptq", say(twist=1), "quantization_config sets 1 key.*twist = 1"),
    ("gptq", drop("qzeros"), rf"the file lacks 1: {Q}\.qzeros"),
    ("gptq", drop("scales"), rf"the file lacks 1: {Q}\.scales"),
    ("gptq", drop("qweight"), rf"the file lacks 1: {Q}\.qweight"),
    ("gptq-ordered", drop("g_idx"), "q_proj.*ordered .desc_act., and no g_idx says how"),
    ("gptq", put("g_idx", torch.full((48,), 3, dtype=torch.int32)), "g_idx.*groups 3 to 3, and there are 3"),
    ("gptq", put("g_idx", torch.full((48,), -1, dtype=torch.int32)), "g_idx.*names groups -1 to -1"),
    ("gptq", put("g_idx", torch.zeros(48)), "g_idx.*holds F32"),
    ("gptq", put("qzeros", torch.zeros(3, 6)), "qzeros.*holds F32"),
    ("awq", say(version="gemv"), "version = 'gemv' is not computed here"),
    ("awq", say(zero_point=False), "zero_point = False is not computed here"),
    ("awq", say(group_size=32), "channels does not fill whole groups of 32"),
    ("nf4", drop(STATE), "has no quant_state, which says how it was packed"),
    ("nf4", drop("weight.quant_map"), rf"the file lacks 1: {Q}\.weight\.quant_map"),
    ("nf4", state(shape=[48, 24]), "is of 24 input channels, and the config makes them 48"),
    ("nf4", state(blocksize=0), "blocksize = 0 should be a whole number"),
    ("nf4", state(blocksize=32), r"absmax.*has shape \[36\], and the config makes it"),
    ("nf4", state(quant_type="int8"), "quant_type = 'int8' is not computed here"),
    ("nf4", put(STATE, torch.full((9,), 255, dtype=torch.uint8)), "no quant_state that .* not UTF-8"),
    ("nf4", put(STATE, torch.zeros(5000, dtype=torch.uint8)), "is no short text in bytes"),
    ("nf4-double", state(nested_offset="x"), "its nested_offset is no number"),
    ("nf4", say(bnb_4bit_quant_storage="bfloat16"), "bnb_4bit_quant_storage = 'bfloat16' is not computed"),
    ("int8", put("weight_format", torch.tensor(2, dtype=torch.uint8)), "the order of one GPU's tiles"),
    ("int8", say(load_in_4bit=True), "should not both be true"),
    ("int8", drop("SCB"), rf"the file lacks 1: {Q}\.SCB"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "change", "said"), BAD, ids=[f"{form}-{i}" for i, (form, *_) in enumerate(BAD)]
)
def test_what_does_not_fit_is_named(form: str, change: Change, said: str, tmp_path: Path) -> None:
    _, folder = repository(tmp_path, "llama", *FORMS[form])
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    change(tensors, config["quantization_config"])
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises((CheckpointError, ConfigError), match=said):
        load(folder)


def test_a_packed_embedding_is_refused(tmp_path: Path) -> None:
    _, folder = repository(tmp_path, "llama", *FORMS["gptq"])
    tensors = load_file(folder / "model.safetensors")
    embedding = tensors.pop("model.embed_tokens.weight")
    packed, _ = gptq()(torch.cat((embedding, embedding))[:136])
    tensors |= {f"model.embed_tokens.{leaf}": tensor for leaf, tensor in packed.items()}
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match="'embed': is packed in the file, and Embedding weights are not"
    ):
        load(folder)

"""LLaMA under the names of other trainers: EasyLM's streams (koala), TencentPretrain's files (Linly)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from bestiary.adopt import adopt, find
from bestiary.context import Full
from bestiary.describe import empty
from bestiary.errors import CheckpointError, ConfigError
from bestiary.load import Loaded, load, published, save
from tests import tiny
from tests.unit.files.test_easylm import stream

HEADS = {"wq": 6, "wk": 2}


def neighbours(weight: Tensor, heads: int) -> Tensor:
    """Return q or k with rotary pairs as neighbours, as Meta has them, from the halves of Hugging Face."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2).contiguous()


def assert_same(loaded: Loaded, want: Any) -> None:
    ids = torch.randint(130, (2, 11))
    with torch.inference_mode():
        assert (loaded.model(ids, Full.of(ids)) - want(ids).logits).abs().max() <= 1e-4
    saved, entries = published(loaded), loaded.checkpoint.entries
    assert saved.keys() == entries.keys()
    assert all(torch.equal(tensor, entries[name].read()) for name, tensor in saved.items())


EASYLM = {
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    **{f"self_attn.{name}_proj": f"attention/w{name}" for name in "qkvo"},
    **{f"mlp.{name}_proj": f"feed_forward/w{i}" for name, i in {"gate": 1, "down": 2, "up": 3}.items()},
}


def easylm(tensors: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    out = {
        "transformer/wte/embedding": tensors["model.embed_tokens.weight"],
        "transformer/ln_f/kernel": tensors["model.norm.weight"],
        "lm_head/kernel": tensors["lm_head.weight"].T,
    }
    for layer in range(3):
        for theirs, name in EASYLM.items():
            weight = tensors[f"model.layers.{layer}.{theirs}.weight"]
            if (heads := HEADS.get(name[-2:])) is not None:
                weight = neighbours(weight, heads)
            out[f"transformer/h/{layer}/{name}/kernel"] = weight.T if weight.ndim == 2 else weight
    return {f"{prefix}{name}": tensor.contiguous() for name, tensor in out.items()}


@pytest.mark.parametrize("prefix", ["", "params/", "params/params/"])
def test_easylm(prefix: str, tmp_path: Path) -> None:
    want = tiny.make("llama", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "streaming_params").write_bytes(stream(easylm(tensors, prefix)))
    loaded = load(tmp_path / "streaming_params")
    assert_same(loaded, want)
    save(loaded, tmp_path / "saved")
    assert_same(load(tmp_path / "saved"), want)


def test_other_names_are_adopted(tmp_path: Path) -> None:
    """Under Hugging Face's names, with its order of rows: what transformers wrote, bit for bit."""
    want = tiny.make("llama", tmp_path / "hf")
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    for form in ("koala", "linly"):
        folder = tmp_path / form
        folder.mkdir()
        if form == "koala":
            (folder / "config.json").write_text((tmp_path / "hf" / "config.json").read_text())
            (folder / "streaming_params").write_bytes(stream(easylm(tensors)))
        else:
            (folder / "config.json").write_text(json.dumps(OPTIONS))
            heads = {"self_attn.q_proj": 6, "self_attn.k_proj": 2}
            torch.save(linly(tensors, 3, heads), folder / "chatflow_7b.bin")
        source = folder / "streaming_params" if form == "koala" else folder
        adopt(find(str(source)), tmp_path / f"{form}-hf")
        got = load_file(tmp_path / f"{form}-hf" / "model.safetensors")
        assert got.keys() == tensors.keys()
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in got.items())
        assert_same(load(tmp_path / f"{form}-hf"), want)


def test_easylm_alone_is_of_llamas_sizes(tmp_path: Path) -> None:
    shapes: dict[str, tuple[int, ...]] = {
        "attention/wq": (256, 256),
        "feed_forward/w1": (256, 72),
        "feed_forward/w2": (72, 256),
    }
    shapes |= {"attention/wk": (256, 256), "attention/wv": (256, 256), "attention/wo": (256, 256)}
    shapes |= {"feed_forward/w3": (256, 72), "attention_norm": (256,), "ffn_norm": (256,)}
    tensors = {
        f"transformer/h/{i}/{name}/kernel": torch.ones(s) for i in range(2) for name, s in shapes.items()
    }
    tensors |= {"transformer/wte/embedding": torch.ones(10, 256), "lm_head/kernel": torch.ones(256, 10)}
    tensors |= {"transformer/ln_f/kernel": torch.ones(256)}
    (tmp_path / "koala").write_bytes(stream(tensors))
    loaded = load(tmp_path / "koala")
    assert (len(loaded.decoder.layers), loaded.model.slots()[0].heads, loaded.context) == (2, 2, 2048)
    del tensors["transformer/h/1/attention/wq/kernel"], tensors["transformer/ln_f/kernel"]
    (tmp_path / "koala").write_bytes(stream(tensors))
    with pytest.raises(CheckpointError, match=r"lacks 2: .*transformer/ln_f/kernel"):
        load(tmp_path / "koala")
    (tmp_path / "koala").write_bytes(stream({"transformer/other": torch.ones(3)}))
    with pytest.raises(ConfigError, match="hidden_size = 0 should be"):
        load(tmp_path / "koala")


LINLY = {
    "input_layernorm": "layer_norm_1",
    "post_attention_layernorm": "layer_norm_2",
    **{f"self_attn.{name}_proj": f"self_attn.linear_layers.{i}" for i, name in enumerate("qkv")},
    "self_attn.o_proj": "self_attn.final_linear",
    "mlp.gate_proj": "feed_forward.linear_gate",
    "mlp.up_proj": "feed_forward.linear_1",
    "mlp.down_proj": "feed_forward.linear_2",
}
# As models/llama2/70b_config.json of Tencent/TencentPretrain spells it.
OPTIONS = {
    "emb_size": 48, "feedforward_size": 96, "hidden_size": 48, "hidden_act": "silu", "heads_num": 6,
    "local_kv_heads_num": 2, "layers_num": 3, "dropout": 0.0, "data_processor": "lm", "max_seq_length": 64,
    "embedding": ["word"], "remove_transformer_bias": True, "remove_embedding_layernorm": True,
    "rotary_position_embedding": True, "encoder": "transformer", "feed_forward": "gated", "mask": "causal",
    "layernorm_positioning": "pre", "layernorm": "rms", "target": ["lm"],
}  # fmt: skip


def linly(tensors: dict[str, Tensor], layers: int, heads: dict[str, int]) -> dict[str, Tensor]:
    out = {
        "embedding.word.embedding.weight": tensors["model.embed_tokens.weight"],
        "encoder.layer_norm.weight": tensors["model.norm.weight"],
        "target.lm.output_layer.weight": tensors["lm_head.weight"],
    }
    for layer in range(layers):
        for theirs, name in LINLY.items():
            weight = tensors[f"model.layers.{layer}.{theirs}.weight"]
            weight = neighbours(weight, heads[theirs]) if theirs in heads else weight
            out[f"encoder.transformer.{layer}.{name}.weight"] = weight
    return out


def test_tencent_pretrain(tmp_path: Path) -> None:
    want = tiny.make("llama", tmp_path / "hf")
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    heads = {"self_attn.q_proj": 6, "self_attn.k_proj": 2}
    torch.save(linly(tensors, 3, heads), tmp_path / "chatflow_7b.bin")
    (tmp_path / "config.json").write_text(json.dumps(OPTIONS))
    loaded = load(tmp_path)
    assert loaded.context == 64
    assert_same(loaded, want)
    save(loaded, tmp_path / "saved")
    assert_same(load(tmp_path / "saved"), want)


def test_tencent_pretrain_alone_is_of_llamas_sizes(tmp_path: Path) -> None:
    """Two heads of queries and one of keys, with 128 channels each."""
    config = transformers.LlamaConfig(
        hidden_size=256, intermediate_size=72, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=130, rms_norm_eps=1e-6,
    )  # fmt: skip
    want = tiny.randomise(transformers.LlamaForCausalLM(config).eval(), 0.1)
    heads = {"self_attn.q_proj": 2, "self_attn.k_proj": 1}
    torch.save(linly(want.state_dict(), 1, heads), tmp_path / "chatflow_7b.bin")
    assert_same(load(tmp_path), want)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mask": "fully_visible"}, "mask = 'fully_visible' is not computed here"),
        ({"layernorm": None}, "has no 'layernorm'"),
        ({"target": ["mlm"]}, "target = .* is not computed here"),
        ({"emb_size": 24}, "emb_size = 24 is not computed here; only 48"),
        ({"layer_number_scale": True}, "layer_number_scale = True is not computed"),
        ({"heads_num": 5}, "48 cannot be divided into 5 heads"),
        ({"relative_attention_buckets_num": 9}, "relative_attention_buckets_num = 9"),
    ],
)
def test_other_options_of_tencent_pretrain_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        empty({**OPTIONS, "vocab_size": 130, **change})

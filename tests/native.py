"""A port of Llama as Meta's own files are: the conversion of transformers, backwards."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

_PARTS = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attention_norm",
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "model.layers": "layers",
    "lm_head": "output",
}


def write(port: Path, folder: Path) -> Path:
    """Write a port's tensors under Meta's names, the rows of q and k with rotary pairs side by side."""
    said = json.loads((port / "config.json").read_text())
    heads = {"q": said["num_attention_heads"], "k": said["num_key_value_heads"]}
    out = {}
    for name, tensor in load_file(port / "model.safetensors").items():
        count = next((n for which, n in heads.items() if f"self_attn.{which}_proj" in name), None)
        if count is not None:
            dim = tensor.shape[0] // count
            tensor = tensor.view(count, 2, dim // 2, -1).transpose(1, 2).reshape(tensor.shape)
        for theirs, ours in _PARTS.items():
            name = name.replace(theirs, ours)
        out[name] = tensor.contiguous()
    folder.mkdir()
    save_file(out, folder / "consolidated.safetensors")
    params = {
        "dim": said["hidden_size"], "n_layers": said["num_hidden_layers"], "n_heads": heads["q"],
        "n_kv_heads": heads["k"], "norm_eps": said["rms_norm_eps"], "vocab_size": said["vocab_size"],
        "hidden_dim": said["intermediate_size"],
    }  # fmt: skip
    (folder / "params.json").write_text(json.dumps(params))
    return folder

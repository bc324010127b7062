"""What GGUF's architectures are in our terms: a row each, read in both directions.

The names are llama.cpp's (src/llama-arch.cpp; the `gguf` package has them as TENSOR_NAMES). A row says whose
config.json a file's metadata amounts to, what its tensors are called, and how q and k are paired: llama.cpp
turns neighbours in some architectures (LLAMA_ROPE_TYPE_NORM) and halves in others (LLAMA_ROPE_TYPE_NEOX), and
its converter orders the rows of q and k to suit. Norms of Gemma are stored with their offset of one added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..config import Config
from ..tensors import DROP, Rules, Stacked

QKV = Stacked(("layers.*.attn.q", "layers.*.attn.k", "layers.*.attn.v"))

NAMES: Rules = {
    "token_embd": "embed",
    "blk.*.attn_norm": "layers.*.attn_norm",
    "blk.*.attn_q": "layers.*.attn.q",
    "blk.*.attn_k": "layers.*.attn.k",
    "blk.*.attn_v": "layers.*.attn.v",
    "blk.*.attn_qkv": QKV,
    "blk.*.attn_output": "layers.*.attn.o",
    "blk.*.ffn_norm": "layers.*.mlp_norm",
    "blk.*.ffn_gate": "layers.*.mlp.gate",
    "blk.*.ffn_up": "layers.*.mlp.up",
    "blk.*.ffn_down": "layers.*.mlp.down",
    "rope_freqs": DROP,  # read into the config's rope_scaling
    "output_norm": "norm",
    "output": "head",
}
FUSED: Rules = {"blk.*.attn_qkv": QKV, **NAMES}
_GATED: Rules = {"blk.*.ffn_up": Stacked(("layers.*.mlp.gate", "layers.*.mlp.up"))}
STACKED: Rules = {**_GATED, **FUSED, **_GATED}  # the first place, and the last word
ROUTED: Rules = {
    **NAMES,
    "blk.*.ffn_gate_inp": "layers.*.mlp.route",
    # Mixtral's files of December 2023 have each expert by itself.
    "blk.*.ffn_gate.*": "layers.*.mlp.experts.*.gate",
    "blk.*.ffn_up.*": "layers.*.mlp.experts.*.up",
    "blk.*.ffn_down.*": "layers.*.mlp.experts.*.down",
}
SHARED: Rules = {
    **ROUTED,
    "blk.*.ffn_gate_inp_shexp": "layers.*.mlp.shared_gate",
    "blk.*.ffn_gate_shexp": "layers.*.mlp.shared.gate",
    "blk.*.ffn_up_shexp": "layers.*.mlp.shared.up",
    "blk.*.ffn_down_shexp": "layers.*.mlp.shared.down",
}
NORMED: Rules = {"blk.*.attn_q_norm": "layers.*.attn.q_norm", "blk.*.attn_k_norm": "layers.*.attn.k_norm"}
SANDWICHED: Rules = {
    **NAMES,
    **NORMED,
    "token_embd": "embed.0",
    "blk.*.post_attention_norm": "layers.*.attn_out_norm",
    "blk.*.post_ffw_norm": "layers.*.mlp_out_norm",
    "output": "head.0",
}

# (metadata, the config so far, the file's tensor names) -> what the config has beside.
Also = Callable[[Config, Mapping[str, object], frozenset[str]], Mapping[str, object]]


def nothing(m: Config, config: Mapping[str, object], names: frozenset[str]) -> Mapping[str, object]:
    """Add nothing to a config."""
    return {}


_USUAL = (
    "context_length embedding_length block_count feed_forward_length vocab_size attention.head_count "
    "attention.head_count_kv attention.key_length attention.value_length attention.layer_norm_rms_epsilon "
    "attention.layer_norm_epsilon"
).split()
_ROTARY = (
    "rope.dimension_count rope.freq_base rope.scaling.type rope.scaling.factor "
    "rope.scaling.original_context_length"
).split()


@dataclass(frozen=True)
class Architecture:
    """One way to compute that GGUF has a name for.

    kind: `general.architecture`. model_types: those of the config.json files that it is written from; its
    metadata are read as the first's. mark: a tensor that tells it from others of its kind. interleaved:
    rotary pairs are neighbours, where they turn. spelled: what its config.json calls Llama's keys, None for
    those it lacks. keys: metadata beside the usual -> keys of config.json. flags: keys of config.json that
    are true where the file has a tensor. says: keys that are the same in all. also: what follows from several
    of them, and from `more` metadata.
    """

    kind: str
    model_types: tuple[str, ...]
    names: Rules = field(default_factory=lambda: NAMES)
    mark: str | None = None
    interleaved: bool = False
    spelled: Mapping[str, str | None] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    says: Mapping[str, object] = field(default_factory=dict)
    more: tuple[str, ...] = ()
    also: Also = nothing

    @property
    def takes(self) -> frozenset[str]:
        """The keys that its metadata may have."""
        turned = () if self.spelled.get("rope_theta", "") is None else _ROTARY
        return frozenset((*_USUAL, *turned, *self.keys, *self.more))

    def holds(self, kind: object, names: frozenset[str]) -> bool:
        """Tell whether a file of this kind and with these tensors is read by this row."""
        return kind == self.kind and (self.mark is None or self.mark in names)


_WINDOW = {"attention.sliding_window": "sliding_window"}
_EXPERTS = {"expert_used_count": "num_experts_per_tok", "expert_feed_forward_length": "moe_intermediate_size"}
_Q_BIAS, _QKV_BIAS = "blk.0.attn_q.bias", "blk.0.attn_qkv.bias"
_PARALLEL = {"use_parallel_residual": "use_parallel_residual"}
_CHATGLM = dict.fromkeys(("rmsnorm", "post_layer_norm", "original_rope"), True)
_WHOLE = {"partial_rotary_factor": 1.0}  # where rope.dimension_count does not say less
_ROUTER = "blk.0.ffn_gate_inp.weight"


def _falcon(m: Config, config: Mapping[str, object], names: frozenset[str]) -> Mapping[str, object]:
    """Falcon 40B has a norm for each half of a block, and 7B one key head for all."""
    grouped = "blk.0.attn_norm_2.weight" in names
    return {"new_decoder_architecture": grouped, "multi_query": config["num_kv_heads"] == 1}


def _mpt(m: Config, config: Mapping[str, object], names: frozenset[str]) -> Mapping[str, object]:
    settings: dict[str, object] = {"alibi": True, "alibi_bias_max": m.number("attention.max_alibi_bias", 8.0)}
    clip = m.get("attention.clamp_kqv", 0.0)
    width = m.count("embedding_length")
    hidden = m.count("feed_forward_length", 4 * width)
    return {
        "attn_config": settings if not clip else {**settings, "clip_qkv": clip},
        "expansion_ratio": hidden // width,
    }


def _baichuan(m: Config, config: Mapping[str, object], names: frozenset[str]) -> Mapping[str, object]:
    """llama.cpp tells by their number of layers Baichuan 7B, and 13B with ALiBi in place of rotary
    positions."""
    m.must("rope.dimension_count", m.count("embedding_length") // m.count("attention.head_count"))
    m.must("block_count", 32, 40)
    return {"position": "alibi" if config["num_hidden_layers"] == 40 else "rope", "norm_head": False}


def _olmo(m: Config, config: Mapping[str, object], names: frozenset[str]) -> Mapping[str, object]:
    clip = m.get("attention.clamp_kqv", 0.0)
    return {"clip_qkv": clip} if clip else {}


def _chatglm(m: Config, config: Mapping[str, object], names: frozenset[str]) -> Mapping[str, object]:
    """ChatGLM2 and 3: rotary positions on half of each head, their base under another name."""
    heads = m.count("attention.head_count")
    m.must("rope.dimension_count", m.count("attention.key_length", m.count("embedding_length") // heads) // 2)
    return {
        "multi_query_attention": heads != config["multi_query_group_num"],
        "add_qkv_bias": _QKV_BIAS in names,
        "rope_ratio": m.number("rope.freq_base", 10_000.0) / 10_000.0,
        "_name_or_path": "chatglm3",  # whose rope_ratio is the base's
    }


def _granite(m: Config, config: Mapping[str, object], names: frozenset[str]) -> Mapping[str, object]:
    dim = m.count("attention.key_length", m.count("embedding_length") // m.count("attention.head_count"))
    return {"attention_multiplier": m.number("attention.scale", dim**-0.5)}


def _deepseek(m: Config, config: Mapping[str, object], names: frozenset[str]) -> Mapping[str, object]:
    m.must("expert_weights_scale", 1.0)
    return {}


_LLAMAS = ("llama", "mistral", "aquila", "skywork", "Yi", "internlm", "xverse")
_LAYER_NORMED: Mapping[str, str | None] = {"eps": "layer_norm_eps", "head_dim": None}
_GPT2: Mapping[str, str | None] = {
    "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
    "intermediate_size": "n_inner", "max_position_embeddings": "n_positions", "eps": "layer_norm_epsilon",
    "num_key_value_heads": None, "head_dim": None, "rope_theta": None,
}  # fmt: skip

# A file is read by the first that holds it; what has no row of its model_type is written as the first that
# computes the same.
ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        "llama", ("mixtral",), ROUTED, _ROUTER, True,
        keys={**_WINDOW, "expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"},
    ),
    Architecture(
        "llama", _LLAMAS, NAMES, None, True, keys=_WINDOW,
        flags={"attention_bias": _Q_BIAS, "mlp_bias": "blk.0.ffn_up.bias"},
    ),
    Architecture("qwen2", ("qwen2",), says={"qkv_bias": True}),
    Architecture(
        "qwen2moe", ("qwen2_moe",), SHARED, keys={
            **_EXPERTS, "expert_count": "num_experts",
            "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
        }, says={"norm_topk_prob": False, "decoder_sparse_step": 1}, flags={"qkv_bias": _Q_BIAS},
    ),
    Architecture("qwen3", ("qwen3",), {**NAMES, **NORMED}),
    Architecture(
        "qwen3moe", ("qwen3_moe",), {**ROUTED, **NORMED}, keys={**_EXPERTS, "expert_count": "num_experts"},
        says={"norm_topk_prob": True, "decoder_sparse_step": 1},
    ),
    Architecture("gemma", ("gemma",), {**NAMES, "token_embd": "embed.0"}),
    Architecture(
        "gpt2", ("gpt2",), {**FUSED, "position_embd": "positions.table"}, spelled=_GPT2,
    ),
    Architecture(
        "gptneox", ("gpt_neox",), FUSED, spelled={**_LAYER_NORMED, "num_key_value_heads": None},
        keys=_PARALLEL, says={**_WHOLE, "attention_bias": True},
    ),
    Architecture(
        "bloom", ("bloom",), {**FUSED, "token_embd": "embed.0", "token_embd_norm": "embed.1"},
        spelled={
            "num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "intermediate_size": "n_inner",
            "eps": "layer_norm_epsilon", "num_key_value_heads": None, "head_dim": None, "rope_theta": None,
        },
    ),
    Architecture(
        "falcon", ("falcon", "RefinedWeb", "RefinedWebModel"), {
            **FUSED, "blk.*.attn_norm_2": "layers.*.attn_norm", "blk.*.attn_norm": "layers.*.mlp_norm",
        }, "blk.0.attn_norm_2.weight", also=_falcon, spelled={
            "num_key_value_heads": "num_kv_heads", "intermediate_size": "ffn_hidden_size",
            "eps": "layer_norm_epsilon", "head_dim": None,
        },
    ),
    Architecture(
        "falcon", ("falcon", "RefinedWebModel"), FUSED, also=_falcon, spelled={
            "num_key_value_heads": "num_kv_heads", "intermediate_size": "ffn_hidden_size",
            "eps": "layer_norm_epsilon", "head_dim": None,
        },
    ),
    Architecture(
        "mpt", ("mpt",), FUSED, also=_mpt,
        more=("attention.clamp_kqv", "attention.max_alibi_bias"), spelled={
            "hidden_size": "d_model", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
            "eps": "layer_norm_epsilon", "max_position_embeddings": "max_seq_len", "intermediate_size": None,
            "num_key_value_heads": None, "head_dim": None, "rope_theta": None,
        },
    ),
    Architecture(
        "starcoder2", ("starcoder2",), spelled={"eps": "norm_epsilon"}, keys=_WINDOW,
        says={"use_bias": True},
    ),
    Architecture("phi2", ("phi",), spelled=_LAYER_NORMED, says=_WHOLE),
    Architecture(
        "phi3", ("phi3",), STACKED,
        keys=_WINDOW,
    ),
    Architecture(
        "stablelm", ("stablelm",), spelled=_LAYER_NORMED, keys=_PARALLEL, flags={"use_qkv_bias": _Q_BIAS},
        says=_WHOLE,
    ),
    Architecture("baichuan", ("baichuan",), interleaved=True, also=_baichuan,
        more=("rope.dimension_count",), spelled={"rope_theta": None}),
    Architecture("internlm2", ("llama", "internlm2"), interleaved=True, flags={"attention_bias": _Q_BIAS}),
    Architecture("xverse", ("llama", "xverse"), interleaved=True),
    Architecture("orion", ("orion",), spelled={"eps": "rms_norm_eps"}),
    Architecture("olmo", ("olmo",), interleaved=True, also=_olmo,
        more=("attention.clamp_kqv",), spelled={"eps": None}),
    Architecture(
        "olmo2", ("olmo2",), {
            "blk.*.post_attention_norm": "layers.*.attn_norm", "blk.*.post_ffw_norm": "layers.*.mlp_norm",
            **NAMES, **NORMED,
        },
    ),
    Architecture(
        "deepseek", ("deepseek",), SHARED, interleaved=True, also=_deepseek,
        more=("expert_weights_scale",), keys={
            **_EXPERTS, "expert_count": "n_routed_experts", "expert_shared_count": "n_shared_experts",
            "leading_dense_block_count": "first_k_dense_replace",
        }, says={"norm_topk_prob": False},
    ),
    Architecture(
        "chatglm", ("chatglm",), STACKED, interleaved=True, also=_chatglm,
        more=("rope.dimension_count", "rope.freq_base"), says=_CHATGLM,
        spelled={
            "intermediate_size": "ffn_hidden_size", "num_key_value_heads": "multi_query_group_num",
            "head_dim": "kv_channels", "eps": "layernorm_epsilon", "num_hidden_layers": "num_layers",
            "vocab_size": "padded_vocab_size", "max_position_embeddings": "seq_length", "rope_theta": None,
        },
    ),
    Architecture(
        "command-r", ("cohere",), {**NAMES, "output": "head.0"}, interleaved=True,
        keys={"logit_scale": "logit_scale"},
        spelled=_LAYER_NORMED, flags={"attention_bias": _Q_BIAS},
    ),
    Architecture(
        "granite", ("granite",), {**NAMES, "token_embd": "embed.0", "output": "head.0"}, interleaved=True,
        keys={
            "embedding_scale": "embedding_multiplier", "residual_scale": "residual_multiplier",
            "logit_scale": "logits_scaling",
        }, also=_granite, more=("attention.scale",),
    ),
)  # fmt: skip

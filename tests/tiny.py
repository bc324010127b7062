"""Tiny random models in published formats, made by transformers, which is the independent reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 130,
    "max_position_embeddings": 64,
}

# What families with sizes of other names have in place of SIZES.
GPT2: dict[str, Any] = {
    "n_embd": 48, "n_inner": 96, "n_layer": 3, "n_head": 6, "n_positions": 64,
    **dict.fromkeys(SIZES, ...), "vocab_size": 130,
}  # fmt: skip
FALCON: dict[str, Any] = {"intermediate_size": ..., "num_key_value_heads": ..., "ffn_hidden_size": 96}
NEOX: dict[str, Any] = {"num_key_value_heads": ...}
OPT: dict[str, Any] = {**NEOX, "intermediate_size": ..., "ffn_dim": 96, "pad_token_id": None}
QWEN_MOE: dict[str, Any] = {
    "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 40,
}  # fmt: skip
MPT: dict[str, Any] = {**dict.fromkeys(SIZES, ...), "d_model": 48, "n_layers": 3, "vocab_size": 130}
FULL, SLIDING = "full_attention", "sliding_attention"
ROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
SHARE = {"partial_rotary_factor": 0.5}
# Ten tokens are fewer than trained, and forty are more.
LONG_ROPE: dict[str, Any] = {
    **ROPE, "rope_type": "longrope", "original_max_position_embeddings": 32,
    "short_factor": [1.0, 1.1, 1.5, 2.0], "long_factor": [1.0, 2.0, 5.0, 9.0],
}  # fmt: skip
PHI3_LONG: dict[str, Any] = {"original_max_position_embeddings": 32, "pad_token_id": None}
GLM: dict[str, Any] = {"head_dim": 8, "partial_rotary_factor": 0.5, "pad_token_id": 0}

# name -> (transformers' config class, what differs from SIZES; ... leaves a size out). One line for every way
# to compute in a family.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "llama-mha-biased": ("LlamaConfig", {"num_key_value_heads": 6, "attention_bias": True, "mlp_bias": True}),
    "llama-mqa-tied": ("LlamaConfig", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "llama-head-dim": ("LlamaConfig", {"head_dim": 16}),
    "llama-theta": ("LlamaConfig", {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}),
    "llama-linear": (
        "LlamaConfig",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
    ),
    "llama-llama3": (
        "LlamaConfig",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "llama-yarn": (
        "LlamaConfig",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "llama-yarn-mscale": (
        "LlamaConfig",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "mscale": 0.7,
                "mscale_all_dim": 1.2,
                "beta_fast": 24.0,
                "beta_slow": 2.0,
            }
        },
    ),
    "llama-dynamic": (
        "LlamaConfig",
        {
            "max_position_embeddings": 16,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
        },
    ),
    "mistral": ("MistralConfig", {"sliding_window": 7, "head_dim": 8}),
    "mistral-no-window": ("MistralConfig", {"sliding_window": None}),
    "ministral": (
        "MinistralConfig",
        {"sliding_window": 7, "layer_types": [SLIDING, FULL, SLIDING], "head_dim": 16},
    ),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "mixtral-window": ("MixtralConfig", {"num_local_experts": 4, "sliding_window": 7}),
    "qwen2": ("Qwen2Config", {}),
    "qwen2-window": (
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    ),
    "qwen2-moe": ("Qwen2MoeConfig", {**QWEN_MOE, "decoder_sparse_step": 2}),
    "qwen2-moe-norm": (
        "Qwen2MoeConfig",
        {**QWEN_MOE, "norm_topk_prob": True, "mlp_only_layers": [1], "qkv_bias": False},
    ),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "qwen3-window": (
        "Qwen3Config",
        {"head_dim": 8, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    ),
    "qwen3-moe": (
        "Qwen3MoeConfig",
        {**QWEN_MOE, "head_dim": 16, "shared_expert_intermediate_size": ..., "mlp_only_layers": [0]},
    ),
    "qwen3-moe-norm": (
        "Qwen3MoeConfig",
        {**QWEN_MOE, "head_dim": 16, "shared_expert_intermediate_size": ..., "norm_topk_prob": True},
    ),
    "phi": ("PhiConfig", {"num_key_value_heads": 6}),
    "phi-grouped": ("PhiConfig", {"rope_parameters": {**ROPE, "partial_rotary_factor": 0.25}}),
    "phi3": ("Phi3Config", {"pad_token_id": None, "sliding_window": 7}),
    "phi3-longrope": ("Phi3Config", {**PHI3_LONG, "rope_parameters": LONG_ROPE}),
    "phi3-longrope-partial": (
        "Phi3Config",
        {
            **PHI3_LONG,
            "tie_word_embeddings": True,
            "rope_parameters": {
                **LONG_ROPE,
                **SHARE,
                "attention_factor": 1.4,
                "short_factor": [1.0, 1.5],
                "long_factor": [3.0, 9.0],
            },
        },
    ),
    "olmo": ("OlmoConfig", {"clip_qkv": 0.7}),
    "olmo-unclipped": ("OlmoConfig", {"num_key_value_heads": None, "tie_word_embeddings": True}),
    "olmo2": ("Olmo2Config", {"attention_bias": True}),
    "stablelm": ("StableLmConfig", {"rope_parameters": {**ROPE, **SHARE}}),
    "stablelm-biased": (
        "StableLmConfig",
        {"use_qkv_bias": True, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.25}},
    ),
    "stablelm-12b": (
        "StableLmConfig",
        {"qk_layernorm": True, "use_parallel_residual": True, "rope_parameters": {**ROPE, **SHARE}},
    ),
    "starcoder2": ("Starcoder2Config", {"sliding_window": 7}),
    "starcoder2-bare": ("Starcoder2Config", {"use_bias": False, "tie_word_embeddings": False}),
    "granite": (
        "GraniteConfig",
        {
            "embedding_multiplier": 3.0,
            "logits_scaling": 0.7,
            "residual_multiplier": 0.3,
            "attention_multiplier": 0.5,
            "tie_word_embeddings": True,
        },
    ),
    "granite-untied": ("GraniteConfig", {"logits_scaling": 1.3}),
    "cohere": ("CohereConfig", {"logit_scale": 0.8}),
    "cohere-plus": ("CohereConfig", {"logit_scale": 0.8, "use_qk_norm": True}),
    "smollm3": ("SmolLM3Config", {"no_rope_layer_interval": 2, "pad_token_id": None}),
    "glm": ("GlmConfig", {**GLM, "attention_bias": True}),
    "glm4": ("Glm4Config", {**GLM, "attention_bias": False}),
    "gpt2": ("GPT2Config", {**GPT2, "activation_function": "gelu_new"}),
    "falcon-7b": ("FalconConfig", {**FALCON, "num_kv_heads": ..., "multi_query": True}),
    "falcon-40b": ("FalconConfig", {**FALCON, "num_kv_heads": 2, "new_decoder_architecture": True}),
    "falcon-rw": (
        "FalconConfig",
        {
            **FALCON,
            "num_kv_heads": ...,
            "multi_query": False,
            "alibi": True,
            "parallel_attn": False,
            "bias": True,
        },
    ),
    "gemma": ("GemmaConfig", {"head_dim": 12}),
    "gemma-biased": ("GemmaConfig", {"head_dim": 8, "num_key_value_heads": 1, "attention_bias": True}),
    "gemma2": ("Gemma2Config", {"head_dim": 12, "query_pre_attn_scalar": 7, "sliding_window": 9}),
    "gemma2-uncapped": (
        "Gemma2Config",
        {
            "head_dim": 8,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "layer_types": [FULL, SLIDING, SLIDING],
            "sliding_window": 7,
        },
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {"head_dim": 12, "sliding_window": 9, "layer_types": [SLIDING, FULL, SLIDING]},
    ),
    "gemma3-long": (
        "Gemma3TextConfig",
        {
            "num_hidden_layers": 6,  # the sixth sees everything
            "head_dim": 8,
            "sliding_window": 7,
            "query_pre_attn_scalar": 5,
            "final_logit_softcapping": 20.0,
            "rope_parameters": {
                FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 500000.0},
                SLIDING: {"rope_type": "default", "rope_theta": 3000.0},
            },
        },
    ),
    "mpt": ("MptConfig", {**MPT, "n_heads": 6}),
    "mpt-clipped": (
        "MptConfig",
        {**MPT, "n_heads": 4, "attn_config": {"clip_qkv": 0.7, "softmax_scale": 0.4}},
    ),
    "openai-gpt": ("OpenAIGPTConfig", {**GPT2, "n_inner": ...}),
    "opt": ("OPTConfig", OPT),
    "opt-350m": ("OPTConfig", {**OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 24}),
    "opt-narrow-tokens": ("OPTConfig", {**OPT, "word_embed_proj_dim": 24, "tie_word_embeddings": False}),
    "opt-galactica": (
        "OPTConfig",
        {
            **OPT,
            "activation_function": "gelu",
            "enable_bias": False,
            "layer_norm_elementwise_affine": False,
        },
    ),
    "bloom": (
        "BloomConfig",
        {**dict.fromkeys(SIZES, ...), "hidden_size": 48, "n_layer": 3, "n_head": 6, "vocab_size": 130},
    ),
    "gpt-neox": ("GPTNeoXConfig", {**NEOX, "rotary_pct": 0.5}),
    "gpt-neox-sequential": (
        "GPTNeoXConfig",
        {**NEOX, "rotary_pct": 1.0, "use_parallel_residual": False, "attention_bias": False},
    ),
    "gptj": ("GPTJConfig", {**GPT2, "rotary_dim": 4}),
    "codegen": ("CodeGenConfig", {**GPT2, "n_head": 8, "rotary_dim": 4}),
}


# Where a whole text is read first: name -> (transformers' model class, what differs from SIZES).
BERT: dict[str, Any] = {"num_key_value_heads": ...}
NARROW: dict[str, Any] = {**BERT, "embedding_size": 24}
DISTILBERT: dict[str, Any] = {
    **dict.fromkeys(SIZES, ...), "vocab_size": 130, "max_position_embeddings": 64, "dim": 48,
    "hidden_dim": 96, "n_layers": 3, "n_heads": 6,
}  # fmt: skip
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertForMaskedLM", BERT),
    "bert-bare": ("BertModel", {**BERT, "hidden_act": "relu"}),
    "bert-pretraining": ("BertForPreTraining", {**BERT, "type_vocab_size": 3}),
    "bert-tanh": ("BertForNextSentencePrediction", {**BERT, "hidden_act": "gelu_new"}),
    "bert-texts": ("BertForSequenceClassification", {**BERT, "num_labels": 3}),
    "bert-tokens": ("BertForTokenClassification", {**BERT, "num_labels": 5}),
    "bert-spans": ("BertForQuestionAnswering", BERT),
    "roberta": ("RobertaForMaskedLM", BERT),
    "roberta-texts": ("RobertaForSequenceClassification", {**BERT, "num_labels": 3}),
    "xlm-roberta": ("XLMRobertaModel", BERT),
    "camembert": ("CamembertForMaskedLM", BERT),
    "mpnet": ("MPNetForMaskedLM", BERT),
    "distilbert": ("DistilBertForMaskedLM", DISTILBERT),
    "distilbert-texts": ("DistilBertForSequenceClassification", DISTILBERT),
    "electra": ("ElectraForPreTraining", NARROW),
    "electra-generator": ("ElectraForMaskedLM", NARROW),
    "electra-texts": ("ElectraForSequenceClassification", {**BERT, "embedding_size": 48}),
    "albert": ("AlbertForPreTraining", NARROW),
    "albert-groups": ("AlbertForMaskedLM", {**NARROW, "num_hidden_layers": 5, "num_hidden_groups": 3}),
}
T5: dict[str, Any] = {
    **dict.fromkeys(SIZES, ...), "vocab_size": 130, "d_model": 48, "d_ff": 96, "d_kv": 5, "num_heads": 6,
    "num_layers": 3, "decoder_start_token_id": 0, "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
}  # fmt: skip
BART: dict[str, Any] = {
    **dict.fromkeys(SIZES, ...), "vocab_size": 130, "max_position_embeddings": 64, "d_model": 48,
    "encoder_layers": 3, "encoder_attention_heads": 6, "encoder_ffn_dim": 96,
    "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 80,
    "pad_token_id": 1, "decoder_start_token_id": 2,
}  # fmt: skip
ENCODER_DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5ForConditionalGeneration", T5),
    "t5-deep-encoder": ("T5ForConditionalGeneration", {**T5, "num_decoder_layers": 2}),
    "t5-gated": (
        "T5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "mt5": (
        "MT5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-silu", "tie_word_embeddings": False, "num_decoder_layers": 4},
    ),
    "bart": ("BartForConditionalGeneration", BART),
    "mbart": ("MBartForConditionalGeneration", {**BART, "scale_embedding": True}),
    "plbart": ("PLBartForConditionalGeneration", BART),
    "marian": ("MarianMTModel", {**BART, "scale_embedding": True, "activation_function": "swish"}),
    "marian-apart": (
        "MarianMTModel",
        {**BART, "share_encoder_decoder_embeddings": False, "decoder_vocab_size": 140},
    ),
    "pegasus": ("PegasusForConditionalGeneration", {**BART, "activation_function": "relu"}),
    "m2m-100": ("M2M100ForConditionalGeneration", {**BART, "scale_embedding": True}),
}
ALL = {**MODELS, **ENCODERS, **ENCODER_DECODERS}


def make(name: str, folder: Path, *, seed: int = 0) -> Any:
    """Write a tiny random checkpoint into `folder` and return transformers' own model of it, float32."""
    kind, changes = ALL[name]
    sizes = {key: value for key, value in {**SIZES, **changes}.items() if value is not ...}
    named = getattr(transformers, kind)
    config = (named if name in MODELS else named.config_class)(**sizes)
    # Eager is the plainest, but transformers 5.23's eager Falcon adds its ALiBi twice.
    config._attn_implementation = "sdpa" if kind == "FalconConfig" else "eager"
    torch.manual_seed(seed)
    made = transformers.AutoModelForCausalLM.from_config(config) if name in MODELS else named(config)
    if name in ENCODER_DECODERS and sizes.get("tie_word_embeddings") is False:
        # transformers 5.23 ties what it makes, and unties what it reads.
        made.lm_head = torch.nn.Linear(config.d_model, config.vocab_size, bias=False)
    model = randomise(made.float().eval(), 0.2)
    model.save_pretrained(folder)
    if "tie_word_embeddings" in sizes:  # which it then forgets to write as it is published
        said = json.loads((folder / "config.json").read_text())
        said["tie_word_embeddings"] = sizes["tie_word_embeddings"]
        (folder / "config.json").write_text(json.dumps(said))
    return model


def randomise(model: Any, spread: float) -> Any:
    """Fill a model with weights large enough that a wrong layout moves logits by whole units; return it.

    Norms are spread around one instead of all ones. What is not trained, a table of positions, stays.
    """
    with torch.no_grad():
        for module in model.modules():
            norm = "norm" in type(module).__name__.lower()
            for name, p in module.named_parameters(recurse=False):
                if p.requires_grad:
                    torch.nn.init.normal_(p, 1.0 if norm and name == "weight" else 0.0, spread)
    return model

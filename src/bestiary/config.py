"""Read a published config.json, key by key, and refuse what nobody read.

A family asks for the keys it computes with; `finish` then raises for every key the file sets that was
neither asked for nor known to change nothing. So a file with a setting this package does not compute is
an error that names the key, never a wrong number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor

from .errors import ConfigError

Activation = Callable[[Tensor], Tensor]
Value = TypeVar("Value", bound=int | float | str)

_tanh_gelu = partial(F.gelu, approximate="tanh")

# The published spellings. gelu_new, gelu_fast and gelu_pytorch_tanh are three spellings of one equation.
ACTIVATIONS: dict[str, Activation] = {
    "silu": F.silu,
    "swish": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
}

# Keys that change no number of a forward pass: bookkeeping, training-time noise, and defaults of generation
# (which are read from generation_config.json). Anything else must be read by a family.
INERT = frozenset(
    """
    _num_labels architectures attention_dropout auto_map bos_token_id chunk_size_feed_forward dtype
    eos_token_id hidden_dropout id2label initializer_factor initializer_range is_encoder_decoder label2id
    max_length max_position_embeddings max_sequence_length model_max_length model_type name_or_path
    output_attentions output_hidden_states output_router_logits pad_token_id pretraining_tp problem_type
    return_dict return_dict_in_generate router_aux_loss_coef router_jitter_noise task_specific_params
    tokenizer_class torch_dtype transformers_version use_cache use_return_dict torchscript unsloth_version
    unsloth_fixed do_sample temperature top_p top_k num_return_sequences
    attn_pdrop embd_pdrop resid_pdrop dropout activation_dropout classifier_dropout embedding_dropout
    residual_dropout layerdrop gradient_checkpointing n_ctx seq_length
    summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
    attention_probs_dropout_prob hidden_dropout_prob init_std prefix custom_pipelines unk_token_id
    attention_softmax_in_fp32 bias_dropout_fusion masked_softmax_fusion n_positions offset_alibi
    apply_query_key_layer_scaling skip_bias_add slow_but_exact
    emb_pdrop init_config init_device max_seq_len embedding_fraction tokenizer_name verbose attn_impl
    attn_uses_sequence_id flash_attn cache_implementation
    attn_dropout_prob emb_dropout_prob bf16 fp16 fp32 onnx_safe use_flash_attn params_dtype tokenizer_type
    aux_loss_alpha seq_aux is_llama_config transformers.js_config
    softmax_in_fp32 use_cache_kernel attn_implementation z_loss_weight initializer_weight
    dropout_rate output_past num_beams length_penalty early_stopping no_repeat_ngram_size min_length
    sep_token sep_token_id eod_token_id mask_token_id use_loss_mask flash_atten flash_atten_llama_style
    init_method_std use_scaled_init_for_output_weights deep_init original_vocab_size fp32_layernorm
    fp32_embedding fp32_tokentypes lr lr_decay_style weight_decay clip_grad warmup
    encoder_layerdrop decoder_layerdrop classif_dropout forced_bos_token_id forced_eos_token_id bad_words_ids
    suppress_tokens begin_suppress_tokens force_bos_token_to_be_generated
    add_bias_logits replacing_rate student_encoder_layers student_decoder_layers
    num_labels finetuning_task summary_last_dropout classifier_dropout_prob qa_dropout seq_classif_dropout
    pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head
    sentence_transformers sbert_ce_default_activation_function
    arch source_lang target_lang left_pad_source left_pad_target bos unk
    """.split()
)

# Settings beyond these are no published model's; they bound the time that a hostile file can take.
MOST_LAYERS, MOST_SIZE = 1024, 1 << 24

_MISSING = object()


class Config:
    """A config.json that remembers which of its keys were read.

    `where` names the file or section in errors. Every reader raises ConfigError with the key, its value and
    what was wanted.
    """

    def __init__(self, raw: Mapping[str, object], where: str = "config.json") -> None:
        self.raw, self.where = raw, where
        self._read: set[str] = set()
        self._sections: dict[str, Config] = {}

    def __contains__(self, key: str) -> bool:
        return self.raw.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def get(self, key: str, default: object = _MISSING) -> object:
        """Return the value of `key`, or `default` when the file has none (or null)."""
        self._read.add(key)
        value = self.raw.get(key)
        if value is not None:
            return value
        if default is _MISSING:
            raise ConfigError(f"{self.where} has no {key!r}, and the model cannot be built without it")
        return default

    def either(self, *keys: str) -> str:
        """Return which of several spellings of one setting the file uses; the first when it uses none.

        Raises ConfigError when it uses two and they differ.
        """
        self._read.update(keys)
        used = [key for key in keys if key in self]
        if len({repr(self.raw[key]) for key in used}) > 1:
            said = ", ".join(f"{key} = {_short(self.raw[key])}" for key in used)
            raise ConfigError(f"{self.where} sets one thing in several ways: {said}. Keep the right one")
        return (used or list(keys))[0]

    def count(
        self, key: str, default: int | object = _MISSING, *, least: int = 1, most: int = MOST_SIZE
    ) -> int:
        """Return a size: a whole number from `least` to `most`."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ConfigError(
                f"{self.where}: {key} = {_short(value)} should be a whole number from {least} to {most}"
            )
        return value

    def number(self, key: str, default: float | object = _MISSING) -> float:
        """Return a finite number above zero."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ConfigError(f"{self.where}: {key} = {_short(value)} should be a number above zero")
        return float(value)

    def flag(self, key: str, default: bool | object = _MISSING) -> bool:
        """Return true or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise ConfigError(f"{self.where}: {key} = {_short(value)} should be true or false")
        return value

    def text(self, key: str, default: str | object = _MISSING) -> str:
        """Return a string."""
        value = self.get(key, default)
        if not isinstance(value, str):
            raise ConfigError(f"{self.where}: {key} = {_short(value)} should be a string")
        return value

    def optional(self, key: str) -> int | None:
        """Return a size, or None when the file has none."""
        if key in self:
            return self.count(key)
        self._read.add(key)
        return None

    def values(self, key: str, kind: type[Value]) -> list[Value] | None:
        """Return a list of values of one kind, or None when the file has none. Whole numbers are floats."""
        value = self.get(key, None)
        if value is None:
            return None
        allowed = (int, float) if kind is float else (kind,)
        if not isinstance(value, list) or not all(type(item) in allowed for item in value):
            raise ConfigError(f"{self.where}: {key} = {_short(value)} should be a list of {kind.__name__}")
        return [kind(item) for item in value]

    def activation(self, key: str, default: str | object = _MISSING) -> Activation:
        """Return the function that an activation's published name stands for."""
        name = self.text(key, default)
        if name not in ACTIVATIONS:
            known = ", ".join(sorted(ACTIVATIONS))
            raise ConfigError(
                f"{self.where}: {key} = {_short(name)} is no activation computed here; known: {known}"
            )
        return ACTIVATIONS[name]

    def must(self, key: str, *allowed: object) -> None:
        """Accept only what is computed: one of `allowed`, the first of which is what an absent key means."""
        value = self.get(key, allowed[0])
        if not any(type(value) is type(a) and value == a for a in allowed):
            wanted = " or ".join(map(repr, allowed))
            raise ConfigError(f"{self.where}: {key} = {_short(value)} is not computed here; only {wanted} is")

    def section(self, key: str) -> Config | None:
        """Return a nested object to be read and finished like the whole, or None when there is none."""
        value = self.get(key, None)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise ConfigError(f"{self.where}: {key} = {_short(value)} should be an object")
        # One object, whoever asks: what one reader leaves another may read.
        return self._sections.setdefault(key, Config(value, f"{self.where}: {key}"))

    def finish(self) -> None:
        """Raise ConfigError if the file sets a key that nobody read and that is not known to be inert."""
        for section in self._sections.values():
            section.finish()
        left = {
            key: value
            for key, value in self.raw.items()
            if value is not None and key not in self._read and key not in INERT and not key.startswith("_")
        }
        if left:
            named = ", ".join(f"{key[:80]} = {_short(value)}" for key, value in list(left.items())[:10])
            raise ConfigError(
                f"{self.where} sets {len(left)} key(s) that this family does not compute: {named}. "
                "Loading it anyway could give wrong numbers; remove a key only if you know it has no effect"
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

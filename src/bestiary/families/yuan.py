"""Yuan 2.0: Llama whose queries and keys look through two convolutions, and whose activation is on `up`."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from ..bricks import FilteredAttention, LocalFilter, Rotary
from ..config import Config
from ..context import Prompt
from ..models import Decoder, causal
from ..tensors import Drop, Layout, Rules, Stacked, Taps
from . import llama

_ATTN, _LOCAL = "model.layers.*.self_attn", "layers.*.attn.local"


def TENSORS(c: Config) -> Rules:  # noqa: N802  # a table in most families
    """Return the names of tensors: q_proj and k_proj are halves of one, a query and a key for each head."""
    heads = c.count("num_attention_heads")
    rules: dict[str | tuple[str, ...], str | Layout | Drop] = {
        (f"{_ATTN}.q_proj", f"{_ATTN}.k_proj"): Stacked(("layers.*.attn.q", "layers.*.attn.k"), heads),
        f"{_ATTN}.lf_gate.output_layernorm": f"{_LOCAL}.norm",
    }
    for theirs, ours in (("conv1", f"{_LOCAL}.first"), ("conv2", f"{_LOCAL}.second")):
        rules[f"{_ATTN}.lf_gate.{theirs}:weight"] = Taps((f"{ours}.before:weight", f"{ours}.now:weight"))
        rules[f"{_ATTN}.lf_gate.{theirs}:bias"] = f"{ours}.now:bias"
    rules |= llama.TENSORS
    for theirs, ours in (("gate_proj", "up"), ("up_proj", "gate")):
        rules[f"model.layers.*.mlp.{theirs}"] = f"layers.*.mlp.{ours}"
    return rules


def cut(tokens: Tensor, seen: Tensor | None = None, *, end: int) -> Prompt:
    """Read prompts in which no token sees an `end` before it, nor what is before that."""
    real = tokens.new_ones(tokens.shape) if seen is None else seen.long()
    after = real.cumsum(-1) * ((tokens == end) & real.bool())  # the position after each end, zero elsewhere
    since = tokens.new_zeros(len(tokens), tokens.shape[1] + 1).scatter(1, after, after).cummax(1).values
    return Prompt(causal(tokens, seen).length, since=since)


def build(c: Config) -> Decoder:
    """Compose the bricks that a Yuan config.json describes."""
    width, heads = llama.sizes(c)
    c.must("causal_mask", True)
    c.must("num_key_value_heads", heads.queries)

    def attention(make: llama.Make, index: int) -> nn.Module:
        local = LocalFilter(width, width // 2, nn.RMSNorm(width, 1e-6))
        return FilteredAttention(width, heads, local=local, position=Rotary(heads.dim))

    model = llama.build(c, attention=attention)
    # The authors' flash path takes no mask. Without it their code makes one from the tokens, if both are set.
    unmasked = c.flag("use_flash_attention", False)
    resets = c.flag("reset_attention_mask", True), c.flag("reset_position_ids", True)
    end = c.count("eod_token", 77_185, least=0)
    if all(resets) and not unmasked:
        model.reader = partial(cut, end=end)
    return model

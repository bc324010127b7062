"""The Transformer of 2017 by torch's own layers: random tensors, and what other code makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bestiary.context import Full
from bestiary.load import Loaded, load, published

WIDTH, HIDDEN, HEADS, LAYERS, WORDS, ANSWERS = 24, 40, 4, 2, 70, 61
PADDING = 5  # tokens of padding on the left of the first source
Tensors = dict[str, Tensor]
ATTENTIONS = {"encoder": ("self_attn",), "decoder": ("self_attn", "encoder_attn")}


def named(
    words: int, answers: int, *, bias: bool = True, learned: bool = False, last: bool = False
) -> Tensors:
    """Return random tensors by fairseq's names: both stacks, and three separate ends.

    bias: of the projections of attention. learned: positions are tensors. last: a norm ends each stack.
    """
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.embed_tokens.weight": (words, WIDTH),
        "decoder.embed_tokens.weight": (answers, WIDTH),
        "decoder.output_projection.weight": (answers, WIDTH),
    }
    if learned:
        shapes |= {
            "encoder.embed_positions.weight": (32, WIDTH),
            "decoder.embed_positions.weight": (22, WIDTH),
        }
    norms = [f"{stack}.layer_norm" for stack in ATTENTIONS if last]
    for stack, attentions in ATTENTIONS.items():
        for layer in (f"{stack}.layers.{i}" for i in range(LAYERS + (stack == "decoder"))):
            for attn in (f"{layer}.{attn}" for attn in attentions):
                for path in (f"{attn}.{name}_proj" for name in ("q", "k", "v", "out")):
                    shapes |= {f"{path}.weight": (WIDTH, WIDTH)} | (
                        {f"{path}.bias": (WIDTH,)} if bias else {}
                    )
            for path, shape in ((f"{layer}.fc1", (HIDDEN, WIDTH)), (f"{layer}.fc2", (WIDTH, HIDDEN))):
                shapes |= {f"{path}.weight": shape, f"{path}.bias": shape[:1]}
            norms += [f"{layer}.{name}_layer_norm" for name in (*attentions, "final")]
    tensors = {name: torch.randn(shape) * 0.25 for name, shape in shapes.items()}
    for norm in norms:
        tensors |= {f"{norm}.weight": 1 + torch.randn(WIDTH) * 0.2, f"{norm}.bias": torch.randn(WIDTH) * 0.2}
    return tensors


def stack_of(tensors: Tensors, stack: str, eps: float, before: bool) -> nn.Module:
    """Return torch's encoder or decoder with these tensors."""
    encoder = stack == "encoder"
    make: Any = nn.TransformerEncoderLayer if encoder else nn.TransformerDecoderLayer
    layer = make(WIDTH, HEADS, HIDDEN, 0.0, layer_norm_eps=eps, batch_first=True, norm_first=before)
    last = nn.LayerNorm(WIDTH, eps) if f"{stack}.layer_norm.weight" in tensors else None
    count = LAYERS if encoder else LAYERS + 1
    made: nn.Module
    if encoder:
        made = nn.TransformerEncoder(layer, count, last, enable_nested_tensor=False)
    else:
        made = nn.TransformerDecoder(layer, count, last)
    state = {name: t for i in range(count) for name, t in _layer(tensors, stack, i).items()}
    if last is not None:
        state |= {f"norm.{leaf}": tensors[f"{stack}.layer_norm.{leaf}"] for leaf in ("weight", "bias")}
    made.load_state_dict(state)
    return made.eval()


def _layer(tensors: Tensors, stack: str, index: int) -> Tensors:
    path, ours, state = f"{stack}.layers.{index}", f"layers.{index}", {}
    for leaf in ("weight", "bias"):
        for theirs, name in zip(ATTENTIONS[stack], ("self_attn", "multihead_attn"), strict=False):
            names = [f"{path}.{theirs}.{x}_proj.{leaf}" for x in ("q", "k", "v", "out")]
            parts = [tensors.get(name, torch.zeros(WIDTH)) for name in names]
            state[f"{ours}.{name}.in_proj_{leaf}"] = torch.cat(parts[:3])
            state[f"{ours}.{name}.out_proj.{leaf}"] = parts[3]
        for number, norm in enumerate((*ATTENTIONS[stack], "final"), 1):
            state[f"{ours}.norm{number}.{leaf}"] = tensors[f"{path}.{norm}_layer_norm.{leaf}"]
        for number in (1, 2):
            state[f"{ours}.linear{number}.{leaf}"] = tensors[f"{path}.fc{number}.{leaf}"]
    return state


def torch_logits(
    tensors: Tensors, text: tuple[Tensor, Tensor], places: tuple[Tensor, Tensor], *, eps: float, before: bool
) -> Tensor:
    """Return what torch makes of a source and its answer. places: rows of positions, from 0, of either."""
    source, answer = text
    seen = real(source)
    rows = places[0][(seen.cumsum(1) - 1).clamp_min(0)]
    x = tensors["encoder.embed_tokens.weight"][source] * WIDTH**0.5 + rows
    y = tensors["decoder.embed_tokens.weight"][answer] * WIDTH**0.5 + places[1][: answer.shape[1]]
    mask = torch.ones(answer.shape[1], answer.shape[1], dtype=torch.bool).triu(1)
    with torch.inference_mode():
        memory = stack_of(tensors, "encoder", eps, before)(x, src_key_padding_mask=~seen)
        decoder = stack_of(tensors, "decoder", eps, before)
        out = decoder(y, memory, tgt_mask=mask, memory_key_padding_mask=~seen)
    made: Tensor = out @ tensors["decoder.output_projection.weight"].T
    return made


def real(source: Tensor) -> Tensor:
    """Return which tokens of sources are real: all but the first PADDING of the first."""
    seen = torch.ones_like(source, dtype=torch.bool)
    seen[0, :PADDING] = False
    return seen


def texts() -> tuple[Tensor, Tensor]:
    """Return sources and answers."""
    return torch.randint(3, WORDS, (2, 13)), torch.randint(3, ANSWERS, (2, 9))


def logits(loaded: Loaded, text: tuple[Tensor, Tensor]) -> Tensor:
    """Return what the model makes of a source and its answer."""
    source, answer = text
    with torch.inference_mode():
        begin = loaded.model.prompt(source, real(source))
        return loaded.model(answer, Full.of(answer, None, begin))


def write(folder: Path, tensors: Tensors, config: Mapping[str, Any]) -> Loaded:
    """Write a checkpoint and load it."""
    folder.mkdir(exist_ok=True)
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return load(folder)


def assert_saved(loaded: Loaded, tensors: Tensors) -> None:
    """Compare what would be saved, to the bit."""
    back = published(loaded)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(back[name], tensor), name

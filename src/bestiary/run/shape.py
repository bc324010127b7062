"""The shape of a model from its config, as roster.published.shapes has those of published checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from ..bricks import Attention, MoE
from ..describe import context
from ..models import Encoder, EncoderDecoder, Model
from ..roster.published.shapes import Shape
from . import footprint

_BLOCK = 32  # elements of a block of Q8_0 and Q4_0


def shape(build: Callable[[], Model], config: Mapping[str, object]) -> Shape:
    """Return the shape of a model that `build` makes on `meta`, anew at each call."""
    model = build()
    stack = model.decoder if isinstance(model, EncoderDecoder) else model
    attention = next(module for module in model.modules() if isinstance(module, Attention))
    windows = [m.score.window for m in model.modules() if isinstance(m, Attention) and m.score.window]
    mixture = next((module for module in model.modules() if isinstance(module, MoE)), None)
    matrices = list(_matrices(model))
    lora, adapters = footprint.training(build, lora=True)
    return Shape(
        kind={Encoder: "encoder", EncoderDecoder: "encoder-decoder"}.get(type(model), "decoder"),
        whole=_is_whole(model),
        params=_count(model.parameters()),
        matrices=_count(matrices),
        odd=_count(weight for weight in matrices if weight.shape[1] % _BLOCK),
        largest=max(weight.numel() for weight in matrices),
        read=_read(model),
        layers=len(stack.layers),
        width=attention.q.in_features,
        heads=attention.q.out_features // attention.head_dim,
        kv_heads=attention.k.out_features // attention.head_dim,
        head_dim=attention.head_dim,
        feedforward=_feedforward(stack.layers[-1]),
        vocabulary=next(m.num_embeddings for m in stack.embed.modules() if isinstance(m, nn.Embedding)),
        cache=0 if isinstance(model, Encoder) else sum(slot.channels for slot in model.slots()),
        window=min(windows, default=None),
        experts=None if mixture is None else len(mixture.experts),
        chosen=None if mixture is None else _chosen(mixture),
        context=context(config),
        adapters=adapters,
        step=footprint.moments(build),
        half=footprint.moments(build, torch.bfloat16),
        full=footprint.training(build)[0],
        lora=lora,
    )


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in {id(tensor): tensor for tensor in parameters}.values())


def _matrices(model: nn.Module) -> Iterator[Tensor]:
    """What may be packed: the weights of linears and of tables."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            yield module.weight


def _read(model: Model) -> int:
    """How many parameters one more token of an answer needs; of an encoder, a text."""
    stack = model.decoder if isinstance(model, EncoderDecoder) else model
    used = [*stack.layers.parameters(), *stack.head.parameters(), *(stack.norm.parameters())]
    mixtures = [module for module in stack.modules() if isinstance(module, MoE)]
    idle = sum(
        _count(m.experts.parameters()) * (len(m.experts) - _chosen(m)) // len(m.experts) for m in mixtures
    )
    return _count(used) - idle


def _chosen(mixture: MoE) -> int:
    _, chosen = mixture.routing(torch.empty(1, len(mixture.experts), device="meta"))
    return chosen.shape[-1]


def _feedforward(layer: nn.Module) -> int:
    """The channels inside a feed-forward layer, of an expert where there are experts."""
    ups = [module for path, module in layer.named_modules() if path.endswith(".up")]
    return next((module.out_features for module in ups if isinstance(module, nn.Linear)), 0)


def _is_whole(model: Model) -> bool:
    if isinstance(model, Encoder | EncoderDecoder):
        return True
    return model.prompt(torch.empty(1, 8, dtype=torch.int64, device="meta")).prefix is not None

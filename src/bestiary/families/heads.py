"""Heads that a checkpoint may have beside or in place of its family's own: rewards, values, classes, masks.

The tensors tell, and `architectures` where they are not there: to name what is missing. A policy with values
calls itself LlamaForCausalLM, as does what ColossalChat saves.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..config import Config
from ..models import Model
from ..tensors import Rules

Build = Callable[[Config], Model]
# (config, model, whether the file has a bias): puts a head where it stands.
Attach = Callable[[Config, Any, bool], None]


@dataclass(frozen=True)
class Heads:
    """The heads of a class of models.

    attach: the published path of a head's matrix, or the whole name of a tensor -> what puts the head in
    place. named: how the name of an architecture ends -> the paths that it must have. rules: the names of
    their tensors, where a family's own rules do not have them. usual: as named, of paths that a file may do
    without, as encoders for vectors do without BERT's pooler.
    """

    attach: Mapping[str, Attach]
    named: Mapping[str, tuple[str, ...]]
    rules: Rules = field(default_factory=dict)
    usual: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def labels(c: Config) -> int:
    """Return how many classes there are; 2 where the file does not say, as in transformers."""
    named = c.get("id2label", None)
    return c.count("num_labels", len(named) if isinstance(named, dict) and named else 2)


def _classes(c: Config, model: Any, bias: bool) -> None:
    model.head = nn.Linear(_width(model), labels(c), bias)


def _scalar(ours: str) -> Attach:
    def attach(c: Config, model: Any, bias: bool) -> None:
        model.add_module(ours, nn.Linear(_width(model), 1, bias))

    return attach


def _width(model: Any) -> int:
    return next(part.in_features for part in model.head.modules() if isinstance(part, nn.Linear))


# What stands in place of a decoder's head, or beside it.
DECODERS = Heads(
    {
        "regression_head": _scalar("head"),  # UltraRM's LlamaRewardModel
        "score": _classes,  # transformers' ...ForSequenceClassification: StackLLaMA's reward model
        "value_head": _scalar("head"),  # ColossalChat's reward models and critics
        "v_head.summary": _scalar("value"),  # TRL's ...WithValueHead: StackLLaMA's policy
    },
    {"RewardModel": ("regression_head",), "ForSequenceClassification": ("score",)},
    {"regression_head": "head", "score": "head", "value_head": "head", "v_head.summary": "value"},
)


def headed(
    heads: Heads, rules: Rules, build: Build, names: Iterable[str], architectures: object = None
) -> tuple[Rules, Build]:
    """Return a family's rules and what builds its model, with the heads that a checkpoint has or should have.

    names: of the checkpoint's tensors. architectures: what config.json says.
    """
    known = set(names)
    expected = _expected({**heads.named, **({} if known else heads.usual)}, architectures)
    found = [path for path in heads.attach if path in expected or _given_away(known, path)]
    if not found:
        return rules, build

    def build_headed(c: Config) -> Model:
        model = build(c)
        for path in found:
            heads.attach[path](c, model, _has(known, f"{path}.bias"))
        return model

    # Without the rules of heads that are not there, what is missing bears the name of one that should be.
    absent = heads.attach.keys() - found
    return {k: ours for k, ours in {**heads.rules, **rules}.items() if k not in absent}, build_headed


def _expected(named: Mapping[str, tuple[str, ...]], architectures: object) -> Container[str]:
    """Return the paths of the heads that an architecture is named for."""
    said = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    return {path for end, paths in named.items() if said.endswith(end) for path in paths}


def _given_away(names: set[str], path: str) -> bool:
    return path in names or _has(names, f"{path}.weight") or _has(names, f"{path}.bias")


def _has(names: set[str], tensor: str) -> bool:
    return tensor in names or any(name.endswith(f".{tensor}") for name in names)

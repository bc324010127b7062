"""Heads in place of a language model's: rewards, values, classes.

The tensors tell, and `architectures` where they are not there: to name what is missing. A policy with values
calls itself LlamaForCausalLM, as does what ColossalChat saves.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from torch import nn

from ..config import Config
from ..models import Decoder
from ..tensors import Rules

# The published path of a head -> where it stands: in place of the language model's, or beside it.
HEADS = {
    "regression_head": "head",  # UltraRM's LlamaRewardModel
    "score": "head",  # transformers' ...ForSequenceClassification: StackLLaMA's reward model
    "value_head": "head",  # ColossalChat's reward models and critics
    "v_head.summary": "value",  # TRL's ...WithValueHead: StackLLaMA's policy
}

# How the name of an architecture ends -> the path of its head.
NAMED = {"RewardModel": "regression_head", "ForSequenceClassification": "score"}

Build = Callable[[Config], Decoder]


def headed(
    rules: Rules, build: Build, names: Container[str], architectures: object = None
) -> tuple[Rules, Build]:
    """Return a family's rules and what builds its model, with the heads that a checkpoint has or should have.

    names: of the checkpoint's tensors; a head has a bias if they say so. architectures: what config.json
    says.
    """
    said = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    named = [path for end, path in NAMED.items() if said.endswith(end)]
    found = [(path, ours) for path, ours in HEADS.items() if f"{path}.weight" in names or path in named]
    if not found:
        return rules, build

    def build_headed(c: Config) -> Decoder:
        model = build(c)
        width = next(part.in_features for part in model.head.modules() if isinstance(part, nn.Linear))
        for path, ours in found:
            outputs = _labels(c) if path == "score" else 1
            model.add_module(ours, nn.Linear(width, outputs, f"{path}.bias" in names))
        return model

    own: Rules = dict(found)
    return {**own, **rules}, build_headed


def _labels(c: Config) -> int:
    """Return how many classes there are; 2 where the file does not say, as in transformers."""
    labels = c.get("id2label", None)
    return c.count("num_labels", len(labels) if isinstance(labels, dict) else 2)

"""At full published size, built without memory, a model has as many parameters as its authors published."""

from __future__ import annotations

import ast
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from bestiary import families
from bestiary.config import Config
from bestiary.describe import empty
from bestiary.roster.published import Published, published

ROWS = published()
# Families of which no checkpoint was published: a paper, code for readers, and what came as TensorFlow's
# checkpoints of sizes that nobody wrote down.
UNPUBLISHED = {"metalm", "transformer_paper", "annotated_transformer", "tensor2tensor"}


def parameters(model: nn.Module) -> int:
    """Count a model's parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.ids[0])
def test_a_published_config_gives_the_published_number_of_parameters(row: Published) -> None:
    assert parameters(empty(row.config)) == row.params


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.ids[0])
def test_the_table_agrees_with_another_count(row: Published) -> None:
    assert (value(row.sum) if row.sum else counted_by_transformers(row.config)) == row.params


def value(text: str) -> int:
    """Return the value of a sum of products of whole numbers."""

    def walk(node: ast.expr) -> int:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        assert isinstance(node, ast.BinOp), ast.dump(node)
        left, right = walk(node.left), walk(node.right)
        assert isinstance(node.op, ast.Add | ast.Mult), ast.dump(node.op)
        return left + right if isinstance(node.op, ast.Add) else left * right

    return walk(ast.parse(text, mode="eval").body)


def counted_by_transformers(config: dict[str, Any]) -> int:
    import transformers

    # transformers writes into the rotary settings that it is given.
    given = {key: deepcopy(value) for key, value in config.items() if value is not None}
    with torch.device("meta"):
        made = transformers.AutoConfig.for_model(given.pop("model_type"), **given)
        named = getattr(transformers, str((made.architectures or [""])[0]), None)
        return parameters(named(made) if named else transformers.AutoModelForCausalLM.from_config(made))


def test_every_family_has_a_published_checkpoint_in_the_table() -> None:
    in_table = {families.family(Config(row.config)) for row in ROWS}
    names = {module.__name__.rpartition(".")[2] for module in in_table}  # type: ignore[attr-defined]  # modules
    every = {*families.FAMILIES.values(), *(name for *_, name in families.TELLING)}
    assert names == every - UNPUBLISHED


def test_no_checkpoint_is_listed_twice() -> None:
    ids = [name for row in ROWS for name in row.ids]
    assert len(ids) == len(set(ids))

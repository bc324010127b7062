"""What does not fit is refused by name, in every family: config keys, and tensors on either side."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bestiary.describe import empty
from bestiary.errors import CheckpointError, ConfigError
from bestiary.load import load
from bestiary.tensors import Use
from tests import tiny
from tests.goldens import case, hints
from tests.subjects import NAMES


@pytest.fixture(params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name = request.param
    if name in tiny.ALL:
        tiny.make(name, tmp_path)
    else:
        shutil.copytree(case(name), tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_key_that_nobody_reads_is_named(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attention_twist": 0.5}))
    with pytest.raises(ConfigError, match=r"attention_twist = 0\.5"):
        load(folder, config=hints(folder))


def test_a_tensor_too_many_is_named(folder: Path) -> None:
    original = load_file(folder / "model.safetensors")
    save_file({**original, "model.layers.0.attn.sink.weight": torch.ones(3)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"the model lacks 1: model\.layers\.0\.attn\.sink\.weight"):
        load(folder, config=hints(folder))


def one_of_each(uses: Iterable[Use]) -> Iterable[Use]:
    """Return one of those whose names differ in numbers alone: one rule names them in all layers."""
    return {re.sub(r"\d+", "*", use.published[0]): use for use in uses}.values()


# What some published files have and some do not, of as many rows as it has.
ABSENT = ("final_logits_bias", "encoder.prompt_embeds.weight")
# What files call by either name, beside the matrix that gives it the second.
EITHER = {"cls.predictions.bias": "cls.predictions.decoder.bias"}


def test_each_tensor_that_is_missing_is_named(folder: Path) -> None:
    loaded = load(folder, config=hints(folder))
    owners = [
        (use, {tensors(loaded.model)[name].data_ptr() for name in use.ours}) for use in loaded.match.uses
    ]
    original = load_file(folder / "model.safetensors")
    for use in one_of_each(loaded.match.uses):
        held = next(held for another, held in owners if another is use)
        if any(held & other for another, other in owners if another is not use):
            continue  # a tied tensor may be there once
        lost = use.published[-1]
        if lost in ABSENT:
            continue
        save_file({name: t for name, t in original.items() if name != lost}, folder / "model.safetensors")
        with pytest.raises(CheckpointError) as caught:
            load(folder, config=hints(folder), check_finite=False)
        assert "the file lacks" in str(caught.value)
        assert lost in str(caught.value) or EITHER.get(lost, lost) in str(caught.value)
        save_file(original, folder / "model.safetensors")


def tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    named = (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    return {name: tensor for each in named for name, tensor in each}


def test_each_tensor_of_another_shape_is_named(folder: Path) -> None:
    original = load_file(folder / "model.safetensors")
    for use in one_of_each(load(folder, config=hints(folder)).match.uses):
        if (name := use.published[0]) in ABSENT:
            continue
        longer = torch.cat((original[name], original[name][:1]))
        save_file({**original, name: longer}, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match="has shape") as caught:
            load(folder, config=hints(folder), check_finite=False)
        assert name in str(caught.value)
        save_file(original, folder / "model.safetensors")


ODD: tuple[object, ...] = (-1, 0, 1, 7, 2**40, float("nan"), 1e300, "x", [1], {"a": 1}, True, None)


def test_any_value_of_any_key_is_read_or_refused(folder: Path) -> None:
    """What is read builds a model at least; what is refused raises ConfigError."""
    config = {**json.loads((folder / "config.json").read_text()), **hints(folder)}
    built = 0
    for key, value in product(config, ODD):
        try:
            empty({**config, key: value})
        except ConfigError:
            continue
        built += 1
    assert 0 < built < len(config) * len(ODD)

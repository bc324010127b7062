"""How the vector of a text is made, by sentence-transformers' files, against plain loops over its tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bestiary.errors import BestiaryError, ConfigError, RequestError
from bestiary.run.pooling import open_pooling

WIDTH = 6
# From the states of a text's own tokens, (T, width), alone.
FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "cls": lambda own: own[0],
    "max": lambda own: torch.stack([max(own[:, i], key=float) for i in range(WIDTH)]),
    "mean": lambda own: own.sum(0) / len(own),
    "mean_sqrt_len_tokens": lambda own: own.sum(0) / len(own) ** 0.5,
    "weightedmean": lambda own: torch.arange(1.0, len(own) + 1) @ own / sum(range(1, len(own) + 1)),
    "lasttoken": lambda own: own[-1],
}
OLD = {mode: f"pooling_mode_{mode}" for mode in ("mean_sqrt_len_tokens", "lasttoken")} | {
    mode: f"pooling_mode_{mode}{'_token' if mode == 'cls' else '_tokens'}"
    for mode in ("cls", "max", "mean", "weightedmean")
}


def write(folder: Path, pooling: dict[str, Any], *then: str) -> Path:
    """Write a sentence-transformers folder: the transformer's place, its pooling, and what follows."""
    kinds = ["Transformer", "Pooling", *then]
    modules = [
        {"path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    put(folder / "modules.json", modules)
    put(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH, **pooling})
    return folder


def put(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


def dense(folder: Path, outputs: int, *, bias: bool = True, **settings: Any) -> torch.nn.Linear:
    linear = torch.nn.Linear(WIDTH, outputs, bias)
    put(folder / "config.json", {"in_features": WIDTH, "out_features": outputs, "bias": bias, **settings})
    save_file({f"linear.{n}": p.detach() for n, p in linear.named_parameters()}, folder / "model.safetensors")
    return linear


def batch() -> tuple[Tensor, Tensor]:
    """Return states, and which tokens are real: whole, padded on the right, on the left, a single token."""
    states, seen = torch.randn(4, 7, WIDTH), torch.ones(4, 7, dtype=torch.bool)
    seen[1, 4:] = seen[2, :3] = seen[3, :6] = False
    states[~seen] = torch.nan  # what padding holds is never read
    return states, seen


def expected(states: Tensor, seen: Tensor, *modes: str) -> Tensor:
    rows = [
        torch.cat([FORMULAS[mode](row[real]) for mode in modes])
        for row, real in zip(states, seen, strict=True)
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("mode", FORMULAS)
def test_each_mode_in_both_spellings(mode: str, tmp_path: Path) -> None:
    states, seen = batch()
    old = open_pooling(write(tmp_path / "old", dict.fromkeys(OLD.values(), False) | {OLD[mode]: True}))
    new = open_pooling(write(tmp_path / "new", {"pooling_mode": mode, "include_prompt": True}))
    torch.testing.assert_close(old(states, seen), expected(states, seen, mode))
    torch.testing.assert_close(new(states, seen), expected(states, seen, mode))
    assert not old.normalised
    assert not old.assumed


def test_several_modes_stand_side_by_side(tmp_path: Path) -> None:
    states, seen = batch()
    flags = open_pooling(write(tmp_path / "a", {OLD["mean"]: True, OLD["cls"]: True}))
    listed = open_pooling(write(tmp_path / "b", {"pooling_mode": ["mean", "cls"]}))
    torch.testing.assert_close(flags(states, seen), expected(states, seen, "cls", "mean"))
    torch.testing.assert_close(listed(states, seen), expected(states, seen, "mean", "cls"))


def test_where_nothing_is_said_the_mean_is_taken(tmp_path: Path) -> None:
    states, seen = batch()
    pooling = open_pooling(tmp_path)
    assert pooling.assumed
    torch.testing.assert_close(pooling(states, seen), expected(states, seen, "mean"))
    # A Pooling without a flag is a mean too, and is said.
    said = open_pooling(write(tmp_path, dict.fromkeys(OLD.values(), False)))
    assert not said.assumed
    torch.testing.assert_close(said(states, seen), expected(states, seen, "mean"))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "torch.nn.modules.activation.Tanh": torch.nn.Tanh(),
    "torch.nn.modules.linear.Identity": torch.nn.Identity(),
    "torch.nn.modules.activation.GELU": torch.nn.GELU(),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_steps_are_taken_in_order(name: str, tmp_path: Path) -> None:
    states, seen = batch()
    write(tmp_path, {"pooling_mode": "mean"}, "Dropout", "Dense", "Normalize")
    linear = dense(tmp_path / "3_Dense", 4, bias=name.endswith("Tanh"), activation_function=name)
    pooling = open_pooling(tmp_path)
    with torch.no_grad():
        want = ACTIVATIONS[name](linear(expected(states, seen, "mean")))
    torch.testing.assert_close(pooling(states, seen), want / want.norm(dim=-1, keepdim=True))
    assert pooling.normalised


def test_a_dense_layer_after_the_norm_undoes_it(tmp_path: Path) -> None:
    states, seen = batch()
    write(tmp_path, {"pooling_mode": "cls"}, "Normalize", "Dense")
    linear = dense(tmp_path / "3_Dense", 4)
    pooling = open_pooling(tmp_path)
    first = expected(states, seen, "cls")
    with torch.no_grad():
        want = torch.tanh(linear(first / first.norm(dim=-1, keepdim=True)))  # the default activation
    torch.testing.assert_close(pooling(states, seen), want)
    assert not pooling.normalised


def test_what_is_said_of_the_text(tmp_path: Path) -> None:
    write(tmp_path, {"pooling_mode": "mean"}, "Normalize")
    silent = open_pooling(tmp_path)
    assert (silent.max_tokens, silent.prompts, silent.prompt, silent.lower) == (None, {}, "", False)
    put(tmp_path / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": True})
    said: dict[str, Any] = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query"}
    put(tmp_path / "config_sentence_transformers.json", {"similarity_fn_name": "cosine", **said})
    pooling = open_pooling(tmp_path)
    assert (pooling.max_tokens, pooling.prompt, pooling.lower) == (256, "query: ", True)
    assert pooling.prompts == said["prompts"]


def test_half_precision_is_summed_in_float32(tmp_path: Path) -> None:
    states, seen = batch()
    assert torch.equal(
        open_pooling(tmp_path)(states.bfloat16(), seen),
        open_pooling(tmp_path)(states.bfloat16().float(), seen),
    )


REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "mode": ({"pooling_mode": "median"}, (), "median"),
    "flag": ({"pooling_mode_median_tokens": True}, (), "pooling_mode_median_tokens"),
    "prompt": ({"include_prompt": False}, (), "include_prompt"),
    "module": ({}, ("LSTM",), "LSTM"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_computed_is_refused_by_name(what: str, tmp_path: Path) -> None:
    config, then, named = REFUSED[what]
    with pytest.raises(ConfigError, match=named):
        open_pooling(write(tmp_path, config, *then))


def test_modules_are_refused_by_name(tmp_path: Path) -> None:
    own = [{"path": "", "type": "custom_st.Transformer"}]
    outside = [{"path": "../1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    words = [{"path": "0_BoW", "type": "sentence_transformers.models.BoW"}]
    for modules, named in ((own, "custom_st"), (outside, r"\.\./1_Pooling"), (words, "BoW"), ({}, "a list")):
        put(tmp_path / "modules.json", modules)
        with pytest.raises(BestiaryError, match=named):
            open_pooling(tmp_path)


def test_a_dense_layer_is_refused_where_it_is_another(tmp_path: Path) -> None:
    write(tmp_path, {}, "Dense")
    place = tmp_path / "2_Dense"
    for settings, named in (
        ({"activation_function": "own.Act"}, "own.Act"),
        ({"use_residual": True}, "use_residual"),
        ({"module_input_name": "token_embeddings"}, "token_embeddings"),
    ):
        dense(place, 4, **settings)
        with pytest.raises(ConfigError, match=named):
            open_pooling(tmp_path)
    dense(place, 4)
    put(place / "config.json", {"in_features": WIDTH, "out_features": 5})
    with pytest.raises(BestiaryError, match="other tensors"):
        open_pooling(tmp_path)


def test_a_text_without_tokens_has_no_vector(tmp_path: Path) -> None:
    states, seen = batch()
    seen[2] = False
    with pytest.raises(RequestError, match="text 2"):
        open_pooling(tmp_path)(states, seen)

"""What does not fit is refused by name: config keys, tensors missing, added, renamed, of another type."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bestiary.context import Full
from bestiary.errors import BestiaryError, CheckpointError, ConfigError, RequestError
from bestiary.load import load, published
from bestiary.quant.linear import PackedEmbedding, PackedLinear
from tests import tiny

NAMES = ["llama-mha-biased", "llama-mqa-tied", "mistral"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.make("llama", tmp_path)
    return tmp_path


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    file = folder / "model.safetensors"
    tensors = {name: t.clone() for name, t in load_file(file).items()}
    change(tensors)
    save_file(tensors, file)


Tensors = dict[str, Tensor]
Change = Callable[[Tensors], object]


def without(name: str) -> Change:
    return lambda tensors: tensors.pop(name)


def plus(name: str, tensor: Tensor) -> Change:
    return lambda tensors: tensors.update({name: tensor.clone()})


def renamed(name: str, to: str) -> Change:
    return lambda tensors: tensors.update({to: tensors.pop(name)})


def configure(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("name", NAMES)
def test_each_tensor_missing_added_renamed_or_misshapen_is_named(name: str, tmp_path: Path) -> None:
    tiny.make(name, tmp_path)
    original = {key: t.clone() for key, t in load_file(tmp_path / "model.safetensors").items()}

    def refused(change: Change, words: str) -> None:
        save_file(original, tmp_path / "model.safetensors")
        rewrite(tmp_path, change)
        with pytest.raises(CheckpointError) as caught:
            load(tmp_path)
        assert words in str(caught.value)
        assert "remedy" not in str(caught.value)
        assert caught.value.remedy

    for key, tensor in original.items():
        head, _, leaf = key.rpartition(".")
        refused(without(key), "the file lacks 1: ")
        refused(plus(f"{key}2", tensor), f"{key}2")
        refused(renamed(key, f"{head}x.{leaf}"), f"{head}x.{leaf}")
        refused(plus(key, torch.cat((tensor, tensor[:1]))), str(list(tensor.shape)))
        refused(plus(key, tensor.to(torch.int8)), "holds I8 where weights should be")
        refused(plus(key, tensor.double()), "holds F64 where weights should be")
        if tensor.ndim == 2 and tensor.shape[0] != tensor.shape[1]:
            refused(plus(key, tensor.T.contiguous()), repr(key))


def test_layers_too_few_and_too_many(folder: Path) -> None:
    configure(folder, num_hidden_layers=2)
    with pytest.raises(CheckpointError, match=r"the model lacks 9: .*model\.layers\.2\."):
        load(folder)
    configure(folder, num_hidden_layers=4)
    with pytest.raises(CheckpointError, match=r"the file lacks 9: .*layers\.3\."):
        load(folder)
    configure(folder, num_hidden_layers=1000)
    with pytest.raises(CheckpointError, match="asks for 1000 layers and there are only"):
        load(folder)


def test_tied_and_untied_are_told_apart(folder: Path) -> None:
    configure(folder, tie_word_embeddings=True)
    with pytest.raises(CheckpointError, match="differs from the tensor that the config ties it to"):
        load(folder)
    rewrite(folder, lambda t: t.pop("lm_head.weight"))
    model = load(folder).decoder
    assert model.head.weight is model.embed.weight
    configure(folder, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match=r"head\.weight"):
        load(folder)


def test_a_tied_head_may_be_stored_twice_if_equal(folder: Path) -> None:
    configure(folder, tie_word_embeddings=True)
    rewrite(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    model = load(folder).decoder
    assert model.head.weight is model.embed.weight


def test_unread_keys_are_refused_by_name(folder: Path) -> None:
    configure(folder, attn_logit_softcapping=50.0, attention_chunk_size=8192)
    with pytest.raises(
        ConfigError, match=r"sets 2 key\(s\).*attn_logit_softcapping = 50\.0, attention_chunk_size"
    ):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "no-such-model"}, "model_type = 'no-such-model' is not known here"),
        ({"model_type": None}, "has no 'model_type'"),
        ({"hidden_act": "gelu_9"}, "hidden_act = 'gelu_9' is no activation"),
        ({"num_attention_heads": 0}, "num_attention_heads = 0 should be a whole number from 1"),
        ({"num_attention_heads": 7, "head_dim": None}, "48 cannot be divided into 7 heads"),
        ({"num_key_value_heads": 4}, "6 query heads cannot share 4"),
        ({"head_dim": 7}, "an even number of channels a head, not 7"),
        ({"hidden_size": 2**40}, "hidden_size = 1099511627776 should be"),
        ({"num_hidden_layers": -1}, "num_hidden_layers = -1 should be"),
        ({"vocab_size": "130"}, "vocab_size = '130' should be"),
        ({"rms_norm_eps": True}, "rms_norm_eps = True should be a number above zero"),
        ({"attention_bias": "no"}, "attention_bias = 'no' should be true or false"),
        ({"rope_parameters": {"rope_type": "twisted"}}, "rope_type = 'twisted' is not computed"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "extra": 1}},
            r"sets 1 key\(s\).*extra = 1",
        ),
        ({"rope_parameters": {"rope_type": "linear", "type": "yarn", "factor": 2.0}}, "type = 'yarn'"),
        ({"rope_parameters": [1]}, r"rope_parameters = \[1\] should be an object"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_condense_ratio": 2}, "in two ways"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    ],
    ids=lambda v: str(next(iter(v.items())))[:40] if isinstance(v, dict) else "",
)
def test_settings_that_are_not_computed(folder: Path, changes: dict[str, Any], words: str) -> None:
    configure(folder, **changes)
    with pytest.raises(ConfigError, match=words):
        load(folder)


BOMBS: list[Any] = [
    0, -1, 1, 2, 3, 7, 2**31, 2**40, 2**63 - 1, 0.5, -0.0, 1e308, "", "8", "x" * 10_000, None, True, False,
    [], {}, [[]], {"rope_type": "linear"}, {"factor": 0}, {"rope_type": "yarn", "factor": 1e308}, "../etc",
]  # fmt: skip


def test_mutated_configs_raise_one_family_of_errors(folder: Path) -> None:
    """5,000 configs with one to three settings replaced: each is refused in our words, or computes."""
    original = json.loads((folder / "config.json").read_text())
    keys = [*original, "rope_scaling", "rope_theta", "sliding_window", "head_dim", "mlp_bias"]
    draw, accepted = random.Random(0), 0
    for _ in range(5000):
        changed = original | {draw.choice(keys): draw.choice(BOMBS) for _ in range(draw.randint(1, 3))}
        (folder / "config.json").write_text(json.dumps(changed))
        try:
            loaded = load(folder)
        except BestiaryError:
            continue
        tokens = torch.zeros(1, 2, dtype=torch.long)
        with torch.inference_mode():
            assert loaded.decoder(tokens, Full.of(tokens)).shape == (1, 2, 130)
        accepted += 1
    assert 0 < accepted < 2500


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_stay_sixteen_and_are_computed_in_float32(folder: Path, dtype: torch.dtype) -> None:
    rewrite(folder, lambda t: t.update({k: v.to(dtype) for k, v in t.items()}))
    narrow = load_file(folder / "model.safetensors")
    loaded = load(folder)
    assert isinstance(loaded.decoder.head, PackedLinear)
    assert isinstance(loaded.decoder.embed, PackedEmbedding)
    held = sum(t.nbytes for t in loaded.decoder.state_dict().values())
    assert held < 1.02 * sum(t.nbytes for t in narrow.values()), "only the norms are widened"
    tokens = torch.randint(130, (2, 9))
    with torch.inference_mode():
        got = loaded.decoder(tokens, Full.of(tokens))
        rewrite(folder, lambda t: t.update({k: v.float() for k, v in t.items()}))
        want = load(folder).decoder(tokens, Full.of(tokens))
    assert got.dtype == torch.float32
    assert (got - want).abs().max() <= 1e-5
    for name, tensor in published(loaded).items():
        assert torch.equal(tensor, narrow[name]), name


def test_dtype_as_asked(folder: Path) -> None:
    model = load(folder, dtype="bfloat16").decoder
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    with pytest.raises(RequestError, match="dtype = 'int4' is not known; choose auto"):
        load(folder, dtype="int4")


def test_loading_tells_how_far_it_is(folder: Path) -> None:
    calls: list[tuple[int, int]] = []
    load(folder, progress=lambda done, total: calls.append((done, total)))
    assert calls == sorted(calls)
    assert (
        calls[-1][0]
        == calls[-1][1]
        == sum(t.nbytes for t in load_file(folder / "model.safetensors").values())
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_named(folder: Path, value: float) -> None:
    rewrite(folder, lambda t: t["model.layers.1.mlp.up_proj.weight"][3, 5:6].fill_(value))
    with pytest.warns(
        UserWarning, match=r"1 tensor\(s\) hold NaN or infinity: model\.layers\.1\.mlp\.up_proj"
    ):
        load(folder)
    load(folder, check_finite=False)

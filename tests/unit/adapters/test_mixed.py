"""Adapters of single rows: each sequence of a batch as if its own adapter were on the model alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bestiary import adapters
from bestiary.adapters import mixed
from bestiary.adapters.mixed import Mix, Mixed
from bestiary.context import Paged, Pool
from bestiary.errors import BestiaryError, RequestError
from bestiary.load import Loaded, load
from bestiary.quant.fused import fuse
from tests import adapted, tiny

# A family, and the ends of the layers that an adapter changes: projections alone, fused ones, and of an MLP.
TARGETS = {
    "llama": ("q_proj", "v_proj", "down_proj"),
    "gpt2": ("c_attn", "c_proj"),
    "gpt-neox": ("query_key_value", "dense_4h_to_h"),
    "falcon-40b": ("query_key_value",),
    "bloom": ("query_key_value", "dense"),
}
LENGTHS = (5, 17, 1, 9)
WHOSE: tuple[str | None, ...] = ("a", None, "b", "a")


def saved(name: str, folder: Path) -> dict[str, Path]:
    """Two random adapters of a family, in PEFT's layout; the base lies in the folder."""
    made = {}
    for seed, one in enumerate(("a", "b")):
        reference = tiny.make(name, folder)
        ends = TARGETS[name][: 1 + seed * 2]
        made[one] = adapted.write(folder / one, adapted.of(reference, ends, seed=7 + seed * 50))
    return made


def paged(loaded: Loaded, ids: list[Tensor]) -> Tensor:
    """Logits of sequences end to end, each on pages of its own."""
    model, flat = loaded.decoder, torch.cat(ids)
    ends = torch.tensor([len(one) for one in ids]).cumsum(0).tolist()
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    pool = Pool.empty(model, 2 * len(ids), 16)
    tables = [torch.tensor([2 * i, 2 * i + 1]) for i in range(len(ids))]
    positions = torch.cat([torch.arange(len(one)) for one in ids])
    prompts = [model.prompt(one[None]) for one in ids]
    with torch.inference_mode():
        return model(flat, Paged(positions, pool, spans, tables, prompts))


def sequences() -> list[Tensor]:
    torch.manual_seed(3)
    return [torch.randint(3, 130, (length,)) for length in LENGTHS]


@pytest.mark.parametrize("name", TARGETS)
def test_each_sequence_is_as_with_its_own_adapter_alone(name: str, tmp_path: Path) -> None:
    folders, ids = saved(name, tmp_path), sequences()
    plain = paged(load(tmp_path), ids).split(LENGTHS)
    alone = {
        one: paged(adapters.attach(load(tmp_path), adapters.read(at)), ids) for one, at in folders.items()
    }
    base = load(tmp_path)
    mix = Mix(base)
    for one, at in folders.items():
        mix.attach(one, at)
    with mix.rows([who for who, count in zip(WHOSE, LENGTHS, strict=True) for _ in range(count)]):
        together = paged(base, ids).split(LENGTHS)
    for i, who in enumerate(WHOSE):
        want = plain[i] if who is None else alone[who].split(LENGTHS)[i]
        torch.testing.assert_close(together[i], want, atol=1e-5, rtol=1e-5)
        if who is not None:
            assert not torch.allclose(together[i], plain[i], atol=1e-3)


def test_without_adapters_the_model_is_as_it_was_loaded(tmp_path: Path) -> None:
    folders, ids = saved("llama", tmp_path), sequences()
    base = load(tmp_path)
    fuse(base.model)
    before, modules = paged(base, ids), dict(base.model.named_modules())
    mix = Mix(base)
    mix.attach("a", folders["a"])
    mix.attach("b", folders["b"])
    torch.testing.assert_close(paged(base, ids), before, atol=1e-5, rtol=1e-5)  # nobody asked for one
    mix.detach("a")
    assert mix.names == ("b",)
    mix.detach("b")
    assert dict(base.model.named_modules()) == modules
    assert torch.equal(paged(base, ids), before)


def unmixable(folder: Path) -> dict[str, Path]:
    """Return adapters that cannot be mixed, each by what its refusal says."""
    head = adapted.factors(130, 48, seed=1)
    q = adapted.factors(48, 48, seed=1)
    path = "model.layers.0.self_attn.q_proj"
    factors = {f"{path}.lora_A.weight": q[0], f"{path}.lora_B.weight": q[1]}
    narrow = {f"{path}.lora_A.weight": torch.ones(4, 32), f"{path}.lora_B.weight": torch.ones(32, 4)}
    of_head = {"lm_head.lora_A.weight": head[0], "lm_head.lora_B.weight": head[1]}
    dora = {**factors, f"{path}.lora_magnitude_vector": torch.ones(48)}
    return {
        "changes head": adapted.write(folder / "head", of_head),
        "changes layers.0.attn.q by more": adapted.write(folder / "dora", dora, use_dora=True),
        "changes norm by more": adapted.write(
            folder / "whole", {**factors, "model.norm.weight": torch.ones(48)}
        ),
        "channels": adapted.write(folder / "small", narrow),
    }


def test_what_cannot_be_mixed_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    folders, ids = saved("llama", tmp_path), sequences()
    base = load(tmp_path)
    mix = Mix(base)
    mix.attach("a", folders["a"])

    def state() -> tuple[dict[str, nn.Module], Tensor]:
        with mix.rows(["a"] * sum(LENGTHS)):
            return dict(base.model.named_modules()), paged(base, ids)

    modules, logits = state()
    for message, folder in unmixable(tmp_path).items():
        with pytest.raises(BestiaryError, match=message):
            mix.attach("b", folder)
        now, same = state()
        assert now == modules
        assert torch.equal(same, logits)


def test_names_that_cannot_be_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders, ids = saved("llama", tmp_path), sequences()
    base = load(tmp_path)
    mix = Mix(base)
    mix.attach("a", folders["a"])
    monkeypatch.setattr(mixed, "MOST", 1)
    for name, message in (("a", "already"), ("b", "1 adapters")):
        with pytest.raises(RequestError, match=message):
            mix.attach(name, folders[name])
    monkeypatch.undo()
    with pytest.raises(RequestError, match="no folder"):
        mix.attach("b", tmp_path / "absent")
    with pytest.raises(RequestError, match="no adapter 'b'"), mix.rows(["b"]):
        pass
    with pytest.raises(RequestError, match="no adapter 'b'"):
        mix.detach("b")
    with pytest.raises(RequestError, match="said of 3 rows"), mix.rows(["a"] * 3):
        paged(base, ids)


def test_only_layers_that_an_adapter_changes_are_mixed(tmp_path: Path) -> None:
    folders = saved("llama", tmp_path)
    base = load(tmp_path)
    mix = Mix(base)
    mix.attach("a", folders["a"])
    found = {path for path, module in base.model.named_modules() if isinstance(module, Mixed)}
    assert found == {f"layers.{i}.attn.q" for i in range(3)}
    assert mix.bytes == {"a": 3 * 2 * adapted.RANK * 48 * 4}

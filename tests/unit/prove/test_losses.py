"""Objectives against the numbers of published code; and that one number changed is seen."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bestiary import roster
from bestiary.prove import losses, row
from bestiary.prove.places import LOSSES, Places
from bestiary.train.scaling import CHINCHILLA, ScalingLaw
from tests.goldens import cases

PACKAGED = sorted(LOSSES.iterdir())
CASES = {case.name: case for case in [*cases("loss-*"), *PACKAGED]}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_case_holds(case: Path) -> None:
    found = losses.compare(case)
    assert found.holds, found


@pytest.mark.parametrize("case", PACKAGED, ids=lambda case: case.name)
def test_one_changed_number_is_seen(case: Path, tmp_path: Path) -> None:
    """A result that was changed differs; an input that was changed has other results."""
    copy = shutil.copytree(case, tmp_path / case.name)
    tensors = load_file(case / "expected.safetensors")
    names = [name for name in sorted(tensors) if not _is_beside(name)]
    unseen = [name for name in names[:: 1 + len(names) // 40] if not _is_seen(name, tensors, copy)]
    assert unseen == []


def _is_seen(name: str, tensors: dict[str, Tensor], case: Path) -> bool:
    """Change one number or another: some inputs hold a few on which nothing rests, as a row's last logits."""
    count = tensors[name].numel()
    for place in (count // 2, 0, count - 1, count // 3, count // 4, count // 5):
        changed = tensors[name].clone()
        number = changed.view(-1)[place]
        changed.view(-1)[place] = number + 1 if number else 1
        save_file({**tensors, name: changed}, case / "expected.safetensors")
        losses.compare.cache_clear()
        try:
            if losses.compare(case).holds is False:
                return True
        except (IndexError, RuntimeError):  # an input that is none
            return True
    return False


# Tokens beside logits, which are not read again; what was drawn for tokens that were not chosen; what was
# counted in a large sample, to a percent; scores that are handed on; words where pieces are masked; what a
# user says last, which is left out; lengths of texts, which fit with a token more.
_BESIDE = (
    "input_ids", "attention_mask", "draw_", "special_tokens", "stats.counts", "collate.scores",
    "2.word_start", "conv.2.2.", "multipack.lengths",
)  # fmt: skip


def _is_beside(name: str) -> bool:
    """Tell whether a tensor is not what the numbers rest on."""
    return any(part in name for part in _BESIDE)


def test_a_number_that_is_none_is_seen(tmp_path: Path) -> None:
    copy = shutil.copytree(LOSSES / "loss-reward", tmp_path / "loss-reward")
    tensors = load_file(copy / "expected.safetensors")
    tensors["rewards_chosen"][0] = torch.nan
    save_file(tensors, copy / "expected.safetensors")
    found = losses.compare(copy)
    assert found.holds is False
    assert found.error == math.inf


def test_a_result_that_nothing_computes_is_seen(tmp_path: Path) -> None:
    copy = shutil.copytree(LOSSES / "loss-reward", tmp_path / "loss-reward")
    tensors = load_file(copy / "expected.safetensors")
    save_file({**tensors, "plain.other": torch.zeros(1)}, copy / "expected.safetensors")
    found = losses.compare(copy)
    assert (found.holds, found.note) == (False, "never compared: plain.other")


def test_a_case_of_no_objective_is_open(tmp_path: Path) -> None:
    assert losses.compare(tmp_path / "loss-unheard-of").holds is None


def test_the_law_of_scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    assert losses.scaling_law().holds
    turned = ScalingLaw(CHINCHILLA.entropy, CHINCHILLA.a, CHINCHILLA.b, alpha=0.28, beta=0.34)
    monkeypatch.setattr("bestiary.prove.losses.law.CHINCHILLA", turned)
    assert losses.scaling_law().holds is False


def test_claims_of_losses_are_proven_by_what_is_packaged() -> None:
    """All but those on adapters and packed weights, which stand beside weights that are not packaged."""
    proven: set[str] = set()
    open_: set[str] = set()
    for entry in roster.entries().values():
        kept = [proof for proof in entry.claim.proof if proof.startswith("loss ")]
        for proof in kept:
            found = row._proven("loss", proof.removeprefix("loss "), Places.of(None))
            assert found.holds is not False
            (proven if found.holds else open_).add(proof.removeprefix("loss "))
    assert {"scaling-law", "loss-dpo", "loss-ppo", "loss-moe-aux", "loss-crlft"} <= proven
    assert all(name.startswith(("loss-lora-", "loss-qlora-")) for name in open_)

"""Certificates: what holds is shown to hold, and what was changed is shown to fail."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bestiary import roster
from bestiary.errors import RequestError
from bestiary.prove import model, places, prompts, reference, row
from bestiary.prove.finding import Certificate, Column, Finding, worst
from bestiary.prove.places import PACKAGED, TINY, Places
from tests.unit.text.chat_models import make
from tests.unit.text.chat_styles import STYLES

CASES = [*sorted(TINY.iterdir()), *sorted(PACKAGED.iterdir())]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_packaged_case_holds(case: Path) -> None:
    read, computed = reference.compare(case)
    assert [finding for finding in (*read, *computed) if finding.holds is False] == []
    assert len(computed) > 1 or case.name == "metalm-small"  # which has vectors between its tokens


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_one_changed_weight_is_seen(name: str, tmp_path: Path) -> None:
    case = shutil.copytree(TINY / name, tmp_path / name)
    tensors = load_file(case / "model.safetensors")
    key = next(key for key in tensors if "layer" in key or "block" in key)
    tensors[key].view(-1)[0] += 0.5
    save_file(tensors, case / "model.safetensors")
    read, computed = reference.compare(case)
    assert all(finding.holds for finding in read)
    wrong = [finding for finding in computed if not finding.holds]
    assert wrong
    assert all(finding.error is None or finding.error > 1e-3 for finding in wrong)


def test_a_lost_tensor_is_seen(tmp_path: Path) -> None:
    case = shutil.copytree(TINY / "llama", tmp_path / "llama")
    tensors = load_file(case / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, case / "model.safetensors")
    (found,), computed = reference.compare(case)
    assert (found.holds, computed) == (False, [])
    assert "model.norm.weight" in found.note


def test_a_checkpoint_that_is_here(tmp_path: Path, default_model: Path) -> None:
    found = model.certificate("smollm2", default_model)
    assert found.holds
    assert {column.name for column in found.columns} == {"load", "logits", "tokens", "prompt", "scale"}
    case = shutil.copytree(TINY / "gemma", tmp_path / "gemma")
    loaded = model.certificate("gemma", case)  # it has no tokenizer
    assert [column.name for column in loaded.columns if column.holds is False] == ["tokens"]
    tensors = load_file(case / "model.safetensors")
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, case / "model.safetensors")
    assert model.certificate("gemma", case).holds is False


def test_the_tokenizer_of_a_larger_model_is_seen(tmp_path: Path) -> None:
    case = shutil.copytree(TINY / "llama", tmp_path / "llama")
    make(STYLES["chatml"], "byte-level", case)  # 420 tokens, and the model has fewer
    found = {column.name: column for column in model.certificate("llama", case).columns}
    assert [one.what for one in found["tokens"].findings if not one.holds] == ["the model has every token"]


@pytest.mark.parametrize(
    ("format_", "holds", "said"),
    [
        ("chatml-smollm2", True, ""),
        ("alpaca", None, "a chat is written by its own template"),  # and has no second question
        ("mistral-v3", False, "needs the token '[INST]'"),
    ],
)
def test_a_template_and_the_format_of_the_roster(
    format_: str, holds: bool | None, said: str, default_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "published_format", lambda path: format_)
    columns = {column.name: column for column in model.certificate("smollm2", default_model).columns}
    (found,) = columns["prompt"].findings
    assert found.holds is holds
    assert said in found.note


def test_a_systems_row() -> None:
    """With the packaged results alone: what they show holds, and what is not at hand is open."""
    found = row.certificate(roster.entries()["llama2"], Places.of(None))
    columns = {column.name: column for column in found.columns}
    assert list(columns) == list(row.COLUMNS)
    assert columns["logits"].holds
    assert columns["scale"].holds
    assert columns["prompt"].holds
    assert columns["tokens"].holds is None
    assert found.holds is None


def test_a_format_that_writes_something_else_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "vicuna-v1.1"
    first, *rest = prompts.vectors()[name]
    assert prompts.rendered(name).holds
    changed = {name: (first, *rest[:-1], type(first)(first.messages, True, None, {}, "0" * 64))}
    monkeypatch.setattr(prompts, "vectors", lambda: changed)
    prompts.rendered.cache_clear()
    assert prompts.rendered(name).holds is False
    prompts.rendered.cache_clear()


def test_what_a_column_says() -> None:
    yes, no, unknown = (Finding("x", holds) for holds in (True, False, None))
    assert Column("a", (yes, yes)).holds is True
    assert Column("a", (yes, unknown)).holds is None
    assert Column("a", (unknown, no)).holds is False
    assert Column("a", ()).holds is None
    assert Column("a", (), "nothing to show").holds is True
    assert Certificate("c", (Column("a", (yes,)), Column("b", (no,)))).holds is False
    assert Finding.near("x", float("nan"), 1.0).holds is False


@pytest.mark.parametrize("errors", [(0.1, float("nan")), (float("nan"), 0.1)])
def test_a_difference_that_is_no_number_is_the_worst(errors: tuple[float, ...]) -> None:
    assert math.isnan(worst(errors))
    column = Column("logits", tuple(Finding.near("x", error, 1.0) for error in errors))
    assert column.holds is False
    said = json.loads(json.dumps(Certificate("c", (column,)).json(), allow_nan=False))
    assert said["columns"]["logits"]["error"] is None


def test_a_case_without_logits_proves_no_claim() -> None:
    entry = roster.entries()["metalm"]
    assert row._claim(entry, Places.of(None))[0].holds is not False


def test_a_folder_without_cases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no folder of reference results"):
        Places.of(str(tmp_path))
    with pytest.raises(RequestError, match="no folder of reference results"):
        Places.of(str(tmp_path / "none"))


def test_hints_of_a_case_are_read(tmp_path: Path) -> None:
    (tmp_path / "META.json").write_text(json.dumps({"hints": {"vocab_size": 7, "rope": {"rope_theta": 9.0}}}))
    assert places.hints(tmp_path) == {"vocab_size": 7, "rope_theta": 9.0}
    assert places.hints(tmp_path / "none") == {}

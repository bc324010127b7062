"""fit: what a model needs, in time, for a name, a folder and a config alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bestiary
from bestiary.cli import bandwidth
from bestiary.cli import fit as command
from bestiary.roster.published import by_id

from .conftest import Bestiary

SOURCE = str(Path(bestiary.__file__).parents[1])
SMOLLM = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight GiB, read at 10 GB/s, by two cores."""
    monkeypatch.setattr(command, "bandwidth", lambda folder: 10e9)
    monkeypatch.setattr(command, "_installed", lambda: 8 << 30)
    monkeypatch.setattr(command, "cores", lambda: 2)


def _model(bestiary: Bestiary, *arguments: object) -> dict[str, Any]:
    code, out, err = bestiary("fit", *arguments, "--json")
    assert (code, err) == (0, "")
    (found,) = json.loads(out)["models"]
    told: dict[str, Any] = found
    return told


def test_a_name(bestiary: Bestiary) -> None:
    told = _model(bestiary, "smollm2", "--context", "1K")
    params = by_id()[SMOLLM].params
    rows = {row["precision"]: row for row in told["precisions"]}
    assert told["shape"]["params"] == params
    assert rows["float32"]["weights"] == params * 4
    # 30 layers, 3 key heads of 64, keys and values, float32.
    assert rows["float32"]["cache"] == 1024 * 30 * 3 * 64 * 2 * 4
    assert rows["8-bit"]["weights"] == pytest.approx(params * 34 / 32, rel=0.01)
    assert rows["4-bit"]["weights"] == pytest.approx(params * 18 / 32, rel=0.01)
    totals = [row["total"] for row in told["precisions"]]
    assert totals == sorted(totals, reverse=True)
    assert all(row["fits"] and row["largest_context"] == 8192 for row in rows.values())
    speeds = [row["tokens_a_second"] for row in told["precisions"]]
    assert speeds == sorted(speeds)
    assert rows["float32"]["first_tokens_a_second"] == pytest.approx(10e9 / params / 4, rel=0.001)


def test_what_does_not_fit_is_said_with_what_it_needs(bestiary: Bestiary) -> None:
    code, out, _ = bestiary("fit", "huggyllama/llama-65b")
    assert code == 0
    assert "does not fit: 4-bit needs " in out
    told = _model(bestiary, "huggyllama/llama-7b", "--ram", "7g", "--context", "2048")
    fits = {row["precision"]: row["fits"] for row in told["precisions"]}
    assert fits == {"float32": False, "16-bit": False, "8-bit": False, "4-bit": True}
    short = _model(bestiary, "huggyllama/llama-7b", "--ram", "4500m")["precisions"][-1]
    assert not short["fits"]
    assert 0 < short["largest_context"] < 2048
    # What is said to be the largest fits, and one step of the cache more does not.
    for more, fits_too in ((0, True), (256, False)):
        asked = ("--ram", "4500m", "--context", short["largest_context"] + more)
        row = _model(bestiary, "huggyllama/llama-7b", *asked)["precisions"][-1]
        assert row["fits"] is fits_too


def test_training(bestiary: Bestiary) -> None:
    full = _model(bestiary, "smollm2", "--train", "full", "--context", "512")["precisions"][0]
    params = by_id()[SMOLLM].params
    assert full["optimizer"] == params * 8
    assert full["activations"] > params * 4
    lora = {row["precision"]: row for row in _model(bestiary, "smollm2", "--train", "lora")["precisions"]}
    qlora = {row["precision"]: row for row in _model(bestiary, "smollm2", "--train", "qlora")["precisions"]}
    assert list(lora) == ["float32", "16-bit"]
    assert list(qlora) == ["8-bit", "4-bit"]
    assert lora["float32"]["optimizer"] < full["optimizer"] / 10
    assert lora["float32"]["tokens_a_second"] is None


def test_a_gpu_holds_keys_and_values_in_half(bestiary: Bestiary) -> None:
    here = _model(bestiary, "smollm2", "--context", 512)["precisions"]
    there = _model(bestiary, "smollm2", "--context", 512, "--gpu", "24g")["precisions"]
    assert [row["cache"] for row in there] == [row["cache"] // 2 for row in here]
    assert there[1]["weights"] == by_id()[SMOLLM].params * 2
    assert there[0]["tokens_a_second"] is None


def test_batches_and_beyond_the_published_context(bestiary: Bestiary) -> None:
    one = _model(bestiary, "smollm2", "--context", 512)["precisions"][0]
    four = _model(bestiary, "smollm2", "--context", 512, "--batch", 4)["precisions"][0]
    assert four["cache"] == 4 * one["cache"]
    assert four["activations"] == 4 * one["activations"]
    assert "it was published for 8,192 tokens\n" in bestiary("fit", "smollm2", "-c", "16K").err


def test_a_folder_and_a_config_alone(bestiary: Bestiary, model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    told = [_model(bestiary, path, "-c", 64) for path in (model, tmp_path, tmp_path / "config.json")]
    assert told[0]["precisions"] == told[1]["precisions"] == told[2]["precisions"]
    assert told[0]["shape"]["layers"] == 2


def test_a_system_of_several_sizes(bestiary: Bestiary) -> None:
    told = json.loads(bestiary("fit", "smollm2", "--json", "--size", "135m").out)
    assert len(told["models"]) == 1
    ran = bestiary("fit", "llama")
    assert ran.code == 0
    assert "huggyllama/llama-65b" in ran.out
    assert "--size 7b, or a name from the first column" in ran.err
    assert "huggyllama/llama-7b: 6.7B parameters, 32 layers" in bestiary("fit", "llama", "--size", "7b").out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["smolm2"], 3, "Did you mean 'smollm2'"),
        (["smollm2", "--ram", "much"], 2, "--ram 'much' should be like 16g (GiB) or 900m (MiB)"),
        (["smollm2", "--ram", "0g"], 2, "--ram '0g' should be"),
        (["smollm2", "--gpu", "8g", "--ram", "8g"], 2, "two places for a model; name one"),
        (["smollm2", "--size", "7b"], 2, "smollm2 has no size '7b'\n  try: bestiary fit smollm2"),
        (["smollm2", "--size", "big"], 2, "should be like 7b"),
        (["smollm2", "--context", "0"], 2, "--context 0"),
        (["smollm2", "--batch", "0"], 2, "--batch 0"),
        (["smollm2", "--bandwidth", "0"], 2, "--bandwidth 0.0 should be in GB/s"),
        (["./none"], 3, "./none: no such file or folder"),
    ],
)
def test_mistakes(arguments: list[str], code: int, message: str, bestiary: Bestiary) -> None:
    ran = bestiary("fit", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err


def test_torch_is_not_needed_for_a_name(caches: Path) -> None:
    code = "import sys; from bestiary.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code, "fit", "smollm2", "--bandwidth", "10"],
        env={**os.environ, "PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.splitlines()[-1] == "False"


def test_bandwidth_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = bandwidth.measured()
    assert found is not None
    assert found > 1e8
    monkeypatch.setattr(bandwidth, "measured", lambda: 5e9)
    monkeypatch.setattr(bandwidth, "_is_busy", lambda: True)
    assert bandwidth.bandwidth(tmp_path / "cache") == 5e9
    assert not (tmp_path / "cache").exists()  # other programs had their share: it is no number to keep
    monkeypatch.setattr(bandwidth, "_is_busy", lambda: False)
    assert bandwidth.bandwidth(tmp_path / "cache") == 5e9
    monkeypatch.setattr(bandwidth, "measured", lambda: 7e9)
    assert bandwidth.bandwidth(tmp_path / "cache") == 5e9
    for damaged in ("{", "[]", '{"machine": "another", "bytes_a_second": 1}'):
        (tmp_path / "cache/bandwidth.json").write_text(damaged)
        assert bandwidth.bandwidth(tmp_path / "cache") == 7e9
    monkeypatch.setattr(bandwidth, "measured", lambda: None)
    assert bandwidth.bandwidth(tmp_path / "other") is None

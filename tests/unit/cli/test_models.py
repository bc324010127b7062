"""pull, list, show, tokenize, env: what is said of models and of this machine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tokenizers
import torch

from bestiary import hub, roster
from bestiary.errors import HubError
from bestiary.files import Entry
from bestiary.roster import File, Wheel
from tests import tiny

from .conftest import Bestiary, write_tokenizer


@pytest.fixture
def pulled(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A roster of one system, which was pulled."""
    data = b"GGUF and so on"
    sha256 = hashlib.sha256(data).hexdigest()
    wheel = Wheel("none==0", 1, "", (File("tiny.gguf", "tiny.gguf", len(data), sha256),))
    entry = dataclasses.replace(roster.entries()["smollm2"], id="tiny", name="Tiny", wheel=wheel)
    monkeypatch.setattr(roster, "entries", lambda: {"tiny": entry})
    monkeypatch.setattr(roster, "find", {"tiny": entry}.get)
    caches.mkdir()
    (caches / "tiny.gguf").write_bytes(data)
    return caches / "tiny.gguf"


def test_pull_of_what_is_here(bestiary: Bestiary, pulled: Path) -> None:
    ran = bestiary("pull", "tiny")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == f"licence: Apache-2.0\ntiny: 14 B in {pulled}\n"
    ran = bestiary("pull", "tiny", "--verify", "--json")
    assert json.loads(ran.out) == {"name": "tiny", "path": str(pulled), "nbytes": 14, "licence": "Apache-2.0"}
    assert ran.err == ""


def test_pull_passes_its_options_on(bestiary: Bestiary, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def pull(name: str, *, revision: str | None, verify: bool, progress: object) -> Path:
        asked.extend([name, revision, verify])
        return model

    monkeypatch.setattr(hub, "pull", pull)
    ran = bestiary("pull", "org/name", "--revision", "v1", "--verify")
    assert asked == ["org/name", "v1", True]
    assert ran.err.endswith("licence: cc0-1.0\n")


def test_pull_that_fails(bestiary: Bestiary, monkeypatch: pytest.MonkeyPatch) -> None:
    def pull(*arguments: object, **options: object) -> Path:
        raise HubError("the disk is full.\nTry: make room")

    monkeypatch.setattr(hub, "pull", pull)
    assert bestiary("pull", "org/name") == (3, "", "error: the disk is full.\n  try: make room\n")


def test_list(bestiary: Bestiary, caches: Path, pulled: Path) -> None:
    snapshot = Path(os.environ["HF_HOME"]) / "hub/models--org--name/snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model-00001-of-00002.safetensors").write_bytes(bytes(2_500_000))
    assert bestiary("list", "--here").out.splitlines() == [
        "NAME                                               KIND           SIZE",
        "tiny                                               gguf           14 B",
        f"org/name@{'a' * 40}  safetensors  2.5 MB  incomplete",
    ]
    first, second = json.loads(bestiary("list", "--here", "--json").out)
    assert first == {"name": "tiny", "path": str(pulled), "kind": "gguf", "nbytes": 14, "complete": True}
    assert second["complete"] is False


def test_list_of_nothing(bestiary: Bestiary) -> None:
    code, out, err = bestiary("list", "--here")
    assert (code, out) == (0, "")
    assert err.endswith("bestiary pull smollm2 gets the first\n")


def test_show_reads_headers_only(bestiary: Bestiary, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(entry: Entry) -> torch.Tensor:
        raise AssertionError(f"the weights of {entry.name} were read")

    monkeypatch.setattr(Entry, "read", read)
    code, out, err = bestiary("show", model, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    tensors = safetensors.torch.load_file(model / "model.safetensors")
    parameters, nbytes = sum(t.numel() for t in tensors.values()), sum(t.nbytes for t in tensors.values())
    assert told["licence"] == "cc0-1.0"
    assert told["weights"] == {
        "kind": "safetensors",
        "tensors": len(tensors),
        "parameters": parameters,
        "nbytes": nbytes,
        "types": {"F32": {"tensors": len(tensors), "parameters": parameters, "nbytes": nbytes}},
    }
    assert told["runs"] is True
    assert told["architecture"]["num_key_value_heads"] == 2
    # Two layers, keys and values, two heads of eight, four bytes each.
    assert told["memory"] == {"weights": nbytes, "kv_token": 256, "kv_context": 256 * 4096}
    assert told["text"]["tokens"] == 264
    assert told["text"]["template"] == "chatml"


def test_show_for_people(bestiary: Bestiary, model: Path) -> None:
    out = bestiary("show", model).out
    lines = {line[:17].strip(): line[17:].strip() for line in out.splitlines()[1:]}
    assert lines["layers"] == "2"
    assert lines["licence"] == "cc0-1.0"
    assert lines["chat template"] == "chatml"
    assert out.count(str(model)) == 1
    assert lines["weights"] == "35.5 k parameters, 142.0 kB, safetensors"
    assert "keys and values 256 B a token in float32, 1.0 MB for the whole context" in lines["memory"]


def test_show_counts_the_layers_of_both_stacks_and_those_that_share_weights(
    bestiary: Bestiary, tmp_path: Path
) -> None:
    tiny.make("t5", tmp_path / "t5")
    told = json.loads(bestiary("show", tmp_path / "t5", "--json").out)["architecture"]
    config = json.loads((tmp_path / "t5/config.json").read_text())
    assert told["encoder_layers"] == config["num_layers"]
    assert told["decoder_layers"] == config["num_decoder_layers"]
    assert "num_hidden_layers" not in told
    tiny.make("albert", tmp_path / "albert")
    told = json.loads(bestiary("show", tmp_path / "albert", "--json").out)["architecture"]
    config = json.loads((tmp_path / "albert/config.json").read_text())
    assert told["num_hidden_layers"] == config["num_hidden_layers"] > config["num_hidden_groups"]


def test_show_of_what_does_not_run(bestiary: Bestiary, tmp_path: Path) -> None:
    safetensors.torch.save_file({"x": torch.zeros(3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "unheard\\u001b[31m-of"}')
    code, out, err = bestiary("show", tmp_path)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert "no: " in out
    assert "unheard" in out
    assert "tokenizer" in out
    told = json.loads(bestiary("show", tmp_path, "--json").out)
    assert told["runs"] is False
    assert told["weights"]["parameters"] == 3


def test_tokenize_agrees_with_the_tokenizers_library(bestiary: Bestiary, model: Path) -> None:
    text = "hello world <|im_end|> €\n"
    reference = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    told = json.loads(bestiary("tokenize", model, text, "--control", "--json").out)
    assert told["ids"] == reference.encode(text).ids
    assert "".join(told["pieces"]) == "hello world <|im_end|> \\xe2\\x82\\xac\n"
    plain = json.loads(bestiary("tokenize", model, text, "--json").out)["ids"]
    assert 263 not in plain
    assert reference.decode(plain) == text


def test_tokenize_for_people(bestiary: Bestiary, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = bestiary("tokenize", model, "hello\n<|im_end|>", "--control", "--bos")
    assert code == 0
    assert out.splitlines() == ["261  '<|endoftext|>'", "259  'hello'", "198  '\\n'", "263  '<|im_end|>'"]
    assert err == "4 tokens, 16 characters\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = bestiary("tokenize", model, "hello he").out
    assert coloured.startswith("\x1b[30;46mhello\x1b[0m\x1b[30;43m \x1b[0m\x1b[30;42mhe\x1b[0m\n")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in bestiary("tokenize", model, "hello").out


def test_tokenize_reads_standard_input_and_needs_no_weights(bestiary: Bestiary, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    assert json.loads(bestiary("tokenize", tmp_path, "--json", stdin="he").out)["ids"] == [256]
    assert json.loads(bestiary("tokenize", tmp_path, "-", "--json", stdin="").out) == {
        "ids": [],
        "pieces": [],
    }
    assert bestiary("tokenize", tmp_path, stdin="").err == "0 tokens, 0 characters\n"


def test_env(bestiary: Bestiary, caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    code, out, _ = bestiary("env", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert int(told["processor"]["threads used"]) >= 1
    assert told["caches"]["bestiary"] == f"{caches} (not made yet)"
    assert told["variables"]["HF_TOKEN"] == "set"
    assert told["variables"]["HF_ENDPOINT"] == "https://hub.example"
    # The readable reference is always there, so something runs every operation.
    assert any(
        key.endswith(": reference") and value.startswith("runs") for key, value in told["kernels"].items()
    )
    plain = bestiary("env").out
    assert "hf_secret" not in plain + out
    assert plain.splitlines()[0] == "versions"

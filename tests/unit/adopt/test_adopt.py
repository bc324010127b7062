"""One command for every form: what it finds, what it refuses, and that it leaves no half of a folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bestiary.adopt import adopt, find
from bestiary.cli import main
from bestiary.context import Full
from bestiary.errors import BestiaryError, CheckpointError, RequestError
from bestiary.load import Loaded, load, published
from bestiary.text.templates import published_format
from tests import adapted, native, tiny

IDS = torch.arange(3, 23).view(2, 10)


def logits(loaded: Loaded) -> torch.Tensor:
    with torch.inference_mode():
        return loaded.decoder(IDS, Full.of(IDS))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tiny.make("llama", tmp_path / "base")
    (tmp_path / "base" / "tokenizer.model").write_bytes(b"base")
    return tmp_path / "base"


def adapter(folder: Path, **whole: torch.Tensor) -> Path:
    a, b = adapted.factors(48, 48, seed=1)
    path = "model.layers.1.self_attn.q_proj"
    return adapted.write(folder, {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b, **whole})


def test_an_adapter_and_its_base(base: Path, tmp_path: Path) -> None:
    """Merged a tensor at a time: the same bits as merged in memory; the tokenizer is the adapter's own."""
    from bestiary import adapters

    first, second = adapter(tmp_path / "a"), adapter(tmp_path / "b")
    (second / "tokenizer.model").write_bytes(b"adapter")
    done = []
    out = adopt(
        find(str(first), base=str(base), adapters=[str(second)]),
        tmp_path / "out",
        progress=lambda *bytes_: done.append(bytes_),
    )
    both = adapters.attach(adapters.attach(load(base), adapters.read(first)), adapters.read(second))
    want, got = published(adapters.merge(both)), load_file(out.path / "model.safetensors")
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], tensor) for name, tensor in want.items())
    assert (out.path / "tokenizer.model").read_bytes() == b"adapter"
    assert done[-1][0] == done[-1][1]
    said = json.loads((out.path / "adopted.json").read_text())
    weights = (second / "adapter_model.safetensors").read_bytes()
    assert said["from"]["adapter 2"]["adapter_model.safetensors"] == hashlib.sha256(weights).hexdigest()


def test_a_larger_vocabulary(base: Path, tmp_path: Path) -> None:
    ends = {name: torch.ones(140, 48) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    out = adopt(find(str(adapter(tmp_path / "a", **ends)), base=str(base)), tmp_path / "out")
    assert load(out.path).config["vocab_size"] == 140


def test_meta_s_own_files(base: Path, tmp_path: Path) -> None:
    """Under the names of the port, rows in its order: its very tensors."""
    own = native.write(base, tmp_path / "own")
    out = adopt(find(str(own)), tmp_path / "out")
    got, want = load_file(out.path / "model.safetensors"), load_file(base / "model.safetensors")
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], tensor) for name, tensor in want.items())
    assert torch.equal(logits(load(out.path)), logits(load(base)))


def test_pickled_weights(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "bin")
    tensors = load_file(tmp_path / "bin" / "model.safetensors")
    torch.save(tensors, tmp_path / "bin" / "pytorch_model.bin")
    (tmp_path / "bin" / "model.safetensors").unlink()
    out = adopt(find(str(tmp_path / "bin")), tmp_path / "out")
    got = load_file(out.path / "model.safetensors")
    assert all(torch.equal(got[name], tensor) for name, tensor in tensors.items())


def test_a_disk_that_refuses_leaves_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = find(str(adapter(tmp_path / "a")), base=str(base))
    full = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda _: type("", (), {"f_bavail": 10, "f_frsize": full.f_frsize}))
    with pytest.raises(CheckpointError, match=r"the disk has .* GB free"):
        adopt(job, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "base"}


def test_another_base(base: Path, tmp_path: Path) -> None:
    tiny.make("llama-head-dim", tmp_path / "delta")
    job = find(str(tmp_path / "delta"), base=str(base), how="vicuna")
    with pytest.raises(CheckpointError, match=r"attn\.k\.weight \[16, 48\].*LLaMA with 3 layers"):
        adopt(job, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_that_are_not_expected(base: Path, tmp_path: Path) -> None:
    """Vicuna's first version over the arithmetic of its second."""
    shutil.copytree(base, tmp_path / "delta")
    file = tmp_path / "delta" / "model.safetensors"
    tensors = load_file(file)
    ends = ("model.embed_tokens.weight", "lm_head.weight")
    save_file({**tensors, **{name: torch.ones(131, 48) for name in ends}}, file)
    said = json.loads((tmp_path / "delta" / "config.json").read_text()) | {"vocab_size": 131}
    (tmp_path / "delta" / "config.json").write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match=r"head\.weight \[130, 48\], and the difference makes it \[131"):
        find(str(tmp_path / "delta"), base=str(base), how="vicuna").check()


def test_types_that_are_not_added(base: Path, tmp_path: Path) -> None:
    tensors = {name: tensor.half() for name, tensor in load_file(base / "model.safetensors").items()}
    tensors["model.norm.weight"] = tensors["model.norm.weight"].double()
    save_file(tensors, base / "model.safetensors")
    with pytest.raises(BestiaryError, match="F64"):
        adopt(find(str(base), base=str(base), how="vicuna"), tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("base", {}, "form that every program reads already"),
        ("base", {"base": "base"}, "--how with one of vicuna"),
        ("base", {"how": "vicuna"}, "is a difference to LLaMA"),
        ("base", {"how": "magic"}, "no arithmetic known here"),
        ("a", {}, "goes on somebody/base, which is not on this machine"),
        ("a", {"base": "base", "how": "vicuna"}, "is an adapter, which --how vicuna says nothing of"),
        ("base", {"base": "base", "how": "vicuna", "adapter": "a"}, "is a difference, and no adapter goes"),
        ("base", {"base": "base", "adapter": "a"}, "cannot both be what the adapters go on"),
        ("vicuna-7b-delta-v1.1", {"adapter": "a"}, "is a difference, and no adapter goes on it"),
    ],
)
def test_what_is_missing_is_said(
    source: str, options: dict[str, str], said: str, base: Path, tmp_path: Path
) -> None:
    adapter(tmp_path / "a")
    shutil.copytree(base, tmp_path / "vicuna-7b-delta-v1.1")
    given = str(tmp_path / "base") if "base" in options else None
    more = [str(tmp_path / options["adapter"])] if "adapter" in options else []
    with pytest.raises(RequestError, match=said):
        find(str(tmp_path / source), base=given, adapters=more, how=options.get("how")).check()


def test_an_adapter_over_what_was_adopted(base: Path, tmp_path: Path) -> None:
    """A difference that was adopted is a model, whatever its folder is called."""
    how = find(str(shutil.copytree(base, tmp_path / "delta")), base=str(base), how="vicuna")
    made = adopt(how, tmp_path / "vicuna-7b-delta-v1.1").path
    out = adopt(find(str(made), adapters=[str(adapter(tmp_path / "a"))]), tmp_path / "out")
    q = "model.layers.1.self_attn.q_proj.weight"
    assert not torch.equal(*(load_file(path / "model.safetensors")[q] for path in (made, out.path)))


def test_an_empty_folder_that_cannot_be_replaced(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before anything is written, not when all of it was."""
    job = find(str(adapter(tmp_path / "a")), base=str(base))
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    with pytest.raises(RequestError, match="link is a link, which no new folder can replace"):
        adopt(job, tmp_path / "link")
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(RequestError, match="is the folder that this runs in"):
        adopt(job, ".")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "is_mount", lambda _: True)
    with pytest.raises(RequestError, match="is a mount point"):
        adopt(job, tmp_path / "empty")


def test_a_sum_that_float16_does_not_reach(base: Path, tmp_path: Path) -> None:
    file = base / "model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
    a, b = (factor * 1000 for factor in adapted.factors(48, 48, seed=1))
    path = "model.layers.1.self_attn.q_proj"
    adapted.write(tmp_path / "a", {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b})
    with pytest.raises(RequestError, match=r"layers\.1\.attn\.q would be .*, which float16 does not reach"):
        adopt(find(str(tmp_path / "a"), base=str(base)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Says what it found, writes nothing when it is tried, then the folder, and never into a full one."""
    wanted = ["adopt", str(adapter(tmp_path / "a")), "--base", str(base)]
    assert main([*wanted, "--dry-run"]) == 0
    told = capsys.readouterr().err
    assert "384 parameters: 1 layers" in told
    assert "nothing was written" in told
    assert main(wanted) == 2
    assert "--to FOLDER" in capsys.readouterr().err
    assert main([*wanted, "--to", str(tmp_path / "out"), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["path"] == str(tmp_path / "out")
    assert main([*wanted, "--to", str(tmp_path / "out")]) == 2
    assert "is not empty, and nothing is overwritten" in capsys.readouterr().err
    assert main(["adopt", str(tmp_path / "out"), "--to", str(tmp_path / "again")]) == 2
    assert "was adopted already" in capsys.readouterr().err


def test_what_was_pulled_is_asked_as_the_roster_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that was made of a checkpoint of the roster keeps its name, and with it its format."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub/models--lmsys--vicuna-7b-v1.3/snapshots/abc"
    tiny.make("llama", snapshot)
    torch.save(load_file(snapshot / "model.safetensors"), snapshot / "pytorch_model.bin")
    (snapshot / "model.safetensors").unlink()
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    adopt(find("lmsys/vicuna-7b-v1.3"), tmp_path / "made")
    assert json.loads((tmp_path / "made/adopted.json").read_text())["checkpoint"] == "lmsys/vicuna-7b-v1.3"
    assert published_format(tmp_path / "made") == published_format(snapshot) == "vicuna-v1.1"
    adopt(find(str(shutil.copytree(snapshot, tmp_path / "copy"))), tmp_path / "again")
    assert published_format(tmp_path / "again") is None

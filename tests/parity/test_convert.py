"""Models to other forms and back: the same numbers, by our own reading and by gguf-py's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bestiary.context import Full
from bestiary.convert import convert
from bestiary.convert import folder as folders
from bestiary.errors import CheckpointError, RequestError, TokenizerError
from bestiary.files import safetensors
from bestiary.load import Loaded, load
from bestiary.text.tokenizer import open_tokenizer
from tests import tiny
from tests.goldens import cases, decoders, meta
from tests.unit.text.tokenizers_made import byte_level_json, llama_json

# Tiny model -> the architecture that it is written as.
WRITTEN = {
    "llama": "llama", "llama-mha-biased": "llama", "llama-mqa-tied": "llama", "llama-head-dim": "llama",
    "llama-theta": "llama", "llama-linear": "llama", "llama-llama3": "llama", "llama-yarn": "llama",
    "mistral": "llama", "mistral-no-window": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3",
    "qwen3-moe-norm": "qwen3moe", "phi": "phi2", "phi-grouped": "phi2", "phi3": "phi3", "olmo": "olmo",
    "olmo-unclipped": "olmo", "stablelm": "stablelm", "stablelm-biased": "stablelm", "granite": "granite",
    "granite-untied": "granite", "cohere": "command-r", "starcoder2": "starcoder2", "gpt2": "gpt2",
    "falcon-7b": "falcon", "falcon-40b": "falcon", "gemma": "gemma", "mpt": "mpt", "bloom": "bloom",
    "gpt-neox": "gptneox", "glm": "chatglm",
}  # fmt: skip
# What llama.cpp does not compute -> what the refusal names.
REFUSED = {
    "llama-dynamic": "DynamicNTK", "llama-yarn-mscale": "Yarn", "qwen2-window": "window=7",
    "qwen2-moe": "GatedMLP", "phi3-longrope": "LongRope", "falcon-rw": "PreNorm",
    "stablelm-12b": r"q_norm\.weight", "mpt-clipped": "scale=0.4", "gemma2": "model_type = 'gemma2'",
    "starcoder2-bare": "bias", "opt": "model_type = 'opt'",
}  # fmt: skip


def logits(loaded: Loaded) -> Tensor:
    ids = torch.randint(3, 100, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return loaded.decoder(ids, Full.of(ids, None, loaded.decoder.prompt(ids)))


@pytest.mark.parametrize("name", WRITTEN)
def test_gguf_computes_the_same(name: str, tmp_path: Path) -> None:
    tiny.make(name, tmp_path)
    file = tmp_path / "model.gguf"
    done = convert(tmp_path, file, kind="f32", tokenizer=False)
    source, again = load(tmp_path / "model.safetensors"), load(file)
    assert done.architecture == WRITTEN[name]
    wanted = logits(source)
    # Where rows are put in another order, sums are too.
    turned = gguf.GGUFReader(file).tensors and again.config["model_type"] in TURNED
    torch.testing.assert_close(logits(again), wanted, rtol=0, atol=2e-5 if turned else 1e-6)
    assert_known_to_gguf_py(file)


# Those whose q and k are put in another order.
TURNED = ("llama", "mixtral", "olmo", "granite")


def assert_known_to_gguf_py(file: Path) -> None:
    """Every name of a tensor is one of its architecture, and every key one of the format."""
    reader = gguf.GGUFReader(file)
    kind = reader.fields["general.architecture"].contents()
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    shapes = {gguf.TENSOR_NAMES[tensor] for tensor in gguf.MODEL_TENSORS[arch]}
    # Embeddings are written as heads too where they differ (gguf-py has no row for Gemma's and the like).
    shapes |= {"output"}
    for tensor in reader.tensors:
        stem = tensor.name.rpartition(".")[0]
        parts = stem.split(".")
        assert (stem if parts[0] != "blk" else ".".join(["blk", "{bid}", *parts[2:]])) in shapes, tensor.name
    known = {
        value.replace("{arch}", str(kind))
        for section in (
            gguf.Keys.General,
            gguf.Keys.LLM,
            gguf.Keys.Attention,
            gguf.Keys.Rope,
            gguf.Keys.Tokenizer,
        )
        for key, value in vars(section).items()
        if isinstance(value, str) and key.isupper()
    }
    assert {key for key in reader.fields if not key.startswith("GGUF.")} <= known


# Ways to compute that transformers' defaults are not, and those that only reference cases have.
MADE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mixtures": ("qwen2moe", "Qwen2MoeConfig", tiny.QWEN_MOE),
    "behind": ("olmo2", "Olmo2Config", {}),
    "tied": ("gemma", "GemmaConfig", {"head_dim": 12, "tie_word_embeddings": True}),
}
REFERENCES = {
    "deepseek-moe-16b": "deepseek", "orion-14b": "orion", "chatglm2-6b": "chatglm",
    "internlm2-7b": "internlm2",
    "chatglm3-6b": "chatglm", "xverse-13b": "llama", "baichuan-7b": "llama",
    "aquila-7b": "llama", "mpt-30b": "mpt", "redpajama-3b": "gptneox", "falcon-40b-oldconfig": "falcon",
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_more_ways_to_compute(name: str, tmp_path: Path) -> None:
    kind, config, changes = MADE[name]
    tiny.MODELS[name] = tiny.ALL[name] = (config, changes)
    tiny.make(name, tmp_path)
    del tiny.MODELS[name], tiny.ALL[name]
    assert convert(tmp_path, tmp_path / "x.gguf", kind="f32", tokenizer=False).architecture == kind
    wanted = logits(load(tmp_path / "model.safetensors"))
    torch.testing.assert_close(logits(load(tmp_path / "x.gguf")), wanted, rtol=0, atol=1e-6)
    assert_known_to_gguf_py(tmp_path / "x.gguf")


@pytest.mark.parametrize(
    "case", [path for path in decoders() if path.name in REFERENCES], ids=lambda path: path.name
)
def test_reference_cases(case: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    assert convert(case, file, kind="f32", tokenizer=False).architecture == REFERENCES[case.name]
    want, loaded = load_file(case / "expected.safetensors"), load(file)
    ids = want["input_ids"]
    with torch.inference_mode():
        got = loaded.decoder(ids, Full.of(ids, None, loaded.decoder.prompt(ids)))
    torch.testing.assert_close(got, want["logits"], rtol=0, atol=2 * meta(case)["tolerance"])


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_architecture_computes_is_refused(name: str, tmp_path: Path) -> None:
    tiny.make(name, tmp_path)
    with pytest.raises(RequestError, match=REFUSED[name]):
        convert(tmp_path, tmp_path / "x.gguf", kind="f32", tokenizer=False)
    assert not list(tmp_path.glob("*.gguf"))


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_only_decoders_are_written_as_gguf(name: str, tmp_path: Path) -> None:
    tiny.make(name, tmp_path)
    with pytest.raises(RequestError, match="GGUF is written of decoders alone"):
        convert(tmp_path, tmp_path / "x.gguf")


WIDE: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 544,
    "num_attention_heads": 8,
    "vocab_size": 300,
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose rows fill blocks of 256, but for those of ffn_down."""
    folder = tmp_path_factory.mktemp("wide")
    tiny.MODELS["wide"] = tiny.ALL["wide"] = ("LlamaConfig", WIDE)
    try:
        tiny.make("wide", folder)
    finally:
        del tiny.MODELS["wide"], tiny.ALL["wide"]
    return folder


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q4_0", "q4_k"])
def test_packed_types(kind: str, wide: Path, tmp_path: Path) -> None:
    """gguf-py decodes what was written to what we compute with, which is near what was given."""
    file = tmp_path / "x.gguf"
    done = convert(wide, file, kind=kind, tokenizer=False)
    loaded, plain = load(file), load(wide)
    ours = dict(loaded.model.named_modules())
    for tensor in gguf.GGUFReader(file).tensors:
        theirs = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        (use,) = (use for use in loaded.match.uses if use.published == (tensor.name,))
        owner: Any = ours[use.ours[0].rpartition(".")[0]]
        held = owner.dequantize() if hasattr(owner, "dequantize") else owner.weight
        assert torch.equal(held, theirs)
    for path in ("layers.0.attn.v", "layers.2.mlp.down", "embed", "head"):
        now: Any = loaded.model.get_submodule(path)
        before = plain.model.get_parameter(f"{path}.weight")
        apart = (now.dequantize() - before).norm() / before.norm()
        assert 0 < apart < {"f16": 3e-4, "bf16": 3e-3, "q8_0": 0.01}.get(kind, 0.12)
    assert all(tensor.dtype == "F32" for tensor in done.tensors if len(tensor.shape) == 1)
    narrow = {name for name in done.fallen if "ffn_down" in name}
    assert set(done.fallen) == narrow
    assert bool(narrow) == (kind == "q4_k")


def test_q4_k_is_the_mixture_that_is_called_so(wide: Path) -> None:
    done = convert(wide, "x.gguf", kind="q4_k", tokenizer=False, dry_run=True)
    kinds = {tensor.name: tensor.dtype for tensor in done.tensors}
    assert kinds["output.weight"] == "Q6_K"
    assert kinds["token_embd.weight"] == kinds["blk.0.attn_q.weight"] == "Q4_K"
    assert [kinds[f"blk.{i}.attn_v.weight"] for i in range(3)] == ["Q4_K", "Q4_K", "Q6_K"]
    assert [kinds[f"blk.{i}.ffn_down.weight"] for i in range(3)] == ["Q5_0", "Q5_0", "Q8_0"]
    assert not Path("x.gguf").exists()


@pytest.mark.parametrize("kind", ["q8_0", None])
def test_packed_weights_stay_as_they_are(kind: str | None, wide: Path, tmp_path: Path) -> None:
    convert(wide, tmp_path / "a.gguf", kind="q8_0", tokenizer=False)
    convert(tmp_path / "a.gguf", tmp_path / "b.gguf", kind=kind, tokenizer=False)
    first, second = (gguf.GGUFReader(tmp_path / name) for name in ("a.gguf", "b.gguf"))
    for a, b in zip(first.tensors, second.tensors, strict=True):
        assert (a.name, a.tensor_type, a.data.tobytes()) == (b.name, b.tensor_type, b.data.tobytes())


@pytest.mark.parametrize("name", [name for name in WRITTEN if name not in ("llama-llama3", "glm")])
def test_gguf_back_to_safetensors(name: str, tmp_path: Path) -> None:
    """The tensors are those of the first folder, bit for bit, and so is what they compute."""
    tiny.make(name, tmp_path)
    convert(tmp_path, tmp_path / "x.gguf", kind="f32", tokenizer=False)
    convert(tmp_path / "x.gguf", tmp_path / "back")
    source, again = load(tmp_path / "model.safetensors"), load(tmp_path / "back")
    if source.config["model_type"] != "gemma":  # 1 + w rounds
        theirs = again.checkpoint.entries
        assert theirs.keys() <= source.checkpoint.entries.keys()
        assert all(torch.equal(theirs[n].read(), source.checkpoint.entries[n].read()) for n in theirs)
    torch.testing.assert_close(logits(again), logits(source), rtol=0, atol=1e-5)


# Weights that are packed, and forms of their authors' own.
FORMS = ("aquila-7b-native", "grok-1", "format-gptq-4bit-g128", "format-awq-gemm-g64", "chatglm2-6b-int4")


@pytest.mark.parametrize("case", cases(*FORMS), ids=lambda path: path.name)
def test_other_forms_as_safetensors(case: Path, tmp_path: Path) -> None:
    convert(case, tmp_path / "hf", kind="f32")
    entries = load(tmp_path / "hf").checkpoint.entries
    assert {entry.dtype for entry in entries.values()} == {"F32"}
    assert not any("qweight" in name or "weight_scale" in name for name in entries)
    torch.testing.assert_close(logits(load(tmp_path / "hf")), logits(load(case)), rtol=0, atol=2e-4)


@pytest.mark.parametrize("case", cases("aquila-7b-native"), ids=lambda path: path.name)
def test_params_json_becomes_a_config(case: Path, tmp_path: Path) -> None:
    convert(case, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert config["vocab_size"] == load(case).decoder.embed.get_parameter("weight").shape[0]


def test_packed_weights_need_a_type(wide: Path, tmp_path: Path) -> None:
    convert(wide, tmp_path / "x.gguf", kind="q8_0", tokenizer=False)
    with pytest.raises(RequestError, match="packed as Q8_0"):
        convert(tmp_path / "x.gguf", tmp_path / "out")


@pytest.mark.filterwarnings("ignore:.*hold NaN or infinity")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_numbers_that_a_type_does_not_reach_are_refused(value: float, tmp_path: Path) -> None:
    tiny.make("llama", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = value
    save_file(tensors, tmp_path / "model.safetensors")
    kind = "f16" if value == 1e6 else "q8_0"
    with pytest.raises(CheckpointError, match=r"blk\.0\.ffn_up\.weight.*(float16|NaN)"):
        convert(tmp_path, tmp_path / "x.gguf", kind=kind, tokenizer=False)
    assert not list(tmp_path.glob("*.gguf"))


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5", "mixtral"])
def test_safetensors_in_shards(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "SHARD", 30_000)
    tiny.make(name, tmp_path)
    done = convert(tmp_path, tmp_path / "out")
    assert sum(file.suffix == ".safetensors" for file in done.files) > 2
    before, after = load(tmp_path / "model.safetensors").checkpoint, load(tmp_path / "out").checkpoint
    assert before.entries.keys() - after.entries.keys() <= {n for n in before.entries if "position_ids" in n}
    assert all(torch.equal(entry.read(), before.entries[n].read()) for n, entry in after.entries.items())


@pytest.mark.parametrize("file", [byte_level_json(), llama_json()], ids=["byte-level", "llama"])
def test_a_tokenizer_goes_along(file: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    before = open_tokenizer(tmp_path)
    tiny.MODELS["spoken"] = tiny.ALL["spoken"] = ("LlamaConfig", {"vocab_size": before.vocab_size + 5})
    tiny.make("spoken", tmp_path)
    del tiny.MODELS["spoken"], tiny.ALL["spoken"]
    convert(tmp_path, tmp_path / "x.gguf")
    after = open_tokenizer(tmp_path / "x.gguf")
    for text in ("Hello world", "  two  spaces\n\nlines", "你好 🙂 é", "12345 it's"):
        assert after.encode(text) == before.encode(text)
        assert after.decode(after.encode(text)) == before.decode(before.encode(text))
    assert_known_to_gguf_py(tmp_path / "x.gguf")
    convert(tmp_path, tmp_path / "out")
    assert open_tokenizer(tmp_path / "out").encode("Hello") == before.encode("Hello")


def test_a_tokenizer_without_a_form_is_refused_with_the_remedy(tmp_path: Path) -> None:
    tiny.make("llama", tmp_path)
    with pytest.raises(TokenizerError, match="--no-tokenizer"):
        convert(tmp_path, tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"form": "onnx"}, "format = 'onnx' is not written"),
        ({"kind": "q3_k"}, "type = 'q3_k' is not written; choose f32"),
        ({"kind": "q8_0", "form": "safetensors"}, "safetensors has no type for q8_0"),
    ],
)
def test_bad_requests(arguments: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=said):
        convert(tmp_path, tmp_path / "x", **arguments)  # type: ignore[arg-type]


def test_a_folder_is_written_again_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over its own files, all at once; never beside others, which would be read for the new ones."""
    tiny.make("llama", tmp_path / "model")
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(folders, "SHARD", 30_000)
        convert(tmp_path / "model", out, kind="f16")
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        made = safetensors.write_planned

        def failing(path: Path, *rest: Any, **more: Any) -> None:
            if "00003" in path.name:
                raise OSError(28, "No space left on device")
            made(path, *rest, **more)

        patched.setattr(safetensors, "write_planned", failing)
        with pytest.raises(CheckpointError, match="out: cannot be written: No space left on device"):
            convert(tmp_path / "model", out, kind="bf16", overwrite=True)
        with pytest.raises(CheckpointError, match="cannot be written"):
            convert(tmp_path / "model", tmp_path / "new")
        patched.setattr(safetensors, "write_planned", made)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        convert(tmp_path / "model", out, kind="bf16", overwrite=True)
    assert {entry.dtype for entry in load(out).checkpoint.entries.values()} == {"BF16"}
    with pytest.raises(RequestError, match=r"out holds other weights .*index\.json\), which"):
        convert(tmp_path / "model", out, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "out"}


def test_the_disk_is_asked_for_room_for_all_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "SHARD", 30_000)
    tiny.make("llama", tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda _: type("", (), {"f_bavail": 200, "f_frsize": 1000}))
    with pytest.raises(CheckpointError, match=r"the disk has 0\.0 GB free"):
        convert(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.make("llama", tmp_path / "model")
    with pytest.raises(RequestError, match=r"config\.json is a file, and .* would lie in it"):
        convert(tmp_path / "model", tmp_path / "model/config.json/x.gguf", tokenizer=False)
    monkeypatch.chdir(tmp_path)
    done = convert("model", ".", form="gguf", tokenizer=False)
    assert [path.name for path in done.files] == [f"{tmp_path.name}.gguf"]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    tiny.make("llama", tmp_path)
    (tmp_path / "x.gguf").touch()
    with pytest.raises(RequestError, match=r"x\.gguf is there already"):
        convert(tmp_path, tmp_path / "x.gguf", tokenizer=False)
    convert(tmp_path, tmp_path / "x.gguf", tokenizer=False, overwrite=True)
    with pytest.raises(RequestError, match="is where the model is read from"):
        convert(tmp_path / "x.gguf", tmp_path / "x.gguf", tokenizer=False, overwrite=True)
    with pytest.raises(RequestError, match="is not empty"):
        convert(tmp_path / "x.gguf", tmp_path)
    (tmp_path / "y.gguf").mkdir()
    with pytest.raises(RequestError, match="is a folder, and a file is to be written"):
        convert(tmp_path / "x.gguf", tmp_path / "y.gguf", tokenizer=False)

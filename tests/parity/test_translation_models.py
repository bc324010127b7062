"""The Transformer's published forms against torch's own layers, and its relatives' files of other years."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bestiary.bricks import Sinusoids, SplitSinusoids, TimingSignal
from bestiary.context import Full
from bestiary.errors import CheckpointError, ConfigError
from bestiary.load import load
from tests import tiny
from tests.goldens import cases

from .test_references import assert_close
from .torch_layers import (
    ANSWERS,
    ATTENTIONS,
    HEADS,
    HIDDEN,
    LAYERS,
    WIDTH,
    WORDS,
    Tensors,
    assert_saved,
    logits,
    named,
    texts,
    torch_logits,
    write,
)

Row = Callable[[int, int], list[float]]

FAIRSEQ: dict[str, Any] = {
    "arch": "transformer_iwslt_de_en",
    **{f"{stack}_{key}": value for stack in ("encoder", "decoder") for key, value in {
        "embed_dim": WIDTH, "ffn_embed_dim": HIDDEN, "layers": LAYERS, "attention_heads": HEADS,
        "normalize_before": False, "learned_pos": False,
    }.items()},
    "decoder_layers": LAYERS + 1,
    "share_all_embeddings": False, "share_decoder_input_output_embed": False,
    "max_source_positions": 30, "max_target_positions": 20,
}  # fmt: skip
SEQUENCES = {True: ("n", "da"), False: ("none", "dan")}
T2T: dict[bool, dict[str, Any]] = {before: {
    "model_type": "tensor2tensor", "hidden_size": WIDTH, "filter_size": HIDDEN, "num_heads": HEADS,
    "num_hidden_layers": LAYERS, "num_decoder_layers": LAYERS + 1, "vocab_size": WORDS,
    "layer_preprocess_sequence": first, "layer_postprocess_sequence": then, "target_space_id": 9,
    "symbol_modality_num_shards": 4, "pos": "timing",
} for before, (first, then) in SEQUENCES.items()}  # fmt: skip
PAPER: dict[str, Any] = {
    "model_type": "transformer", "layout": "paper", "embed_dim": WIDTH, "ffn_embed_dim": HIDDEN,
    "layers": LAYERS, "decoder_layers": LAYERS + 1, "attention_heads": HEADS, "vocab_size": WORDS,
}  # fmt: skip


# Tables of positions, as each source writes them down, in float64.


def interleaved(position: int, width: int) -> list[float]:
    angles = [position / 10_000 ** (2 * i / width) for i in range(width // 2)]
    return [value for angle in angles for value in (math.sin(angle), math.cos(angle))]


def halves(position: int, width: int) -> list[float]:
    row = interleaved(position, width)
    return row[::2] + row[1::2]


def timing(position: int, width: int) -> list[float]:
    half = width // 2
    angles = [position * math.exp(-i * math.log(10_000) / (half - 1)) for i in range(half)]
    return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]


def table(row: Row, first: int = 0) -> Tensor:
    return torch.tensor([row(first + position, WIDTH) for position in range(40)], dtype=torch.float64).float()


@pytest.mark.parametrize(
    ("brick", "row"), [(Sinusoids(), interleaved), (TimingSignal(), timing), (SplitSinusoids(), halves)]
)
def test_tables(brick: Sinusoids, row: Row) -> None:
    assert_close(brick.table(torch.arange(40), WIDTH), table(row), 2e-6, "rows")


@pytest.mark.parametrize("case", cases("transformer2017-*"), ids=lambda p: p.name)
def test_published_tables(case: Path) -> None:
    want = load_file(case / "expected.safetensors")
    for key in (key for key in want if key.startswith("positions_table")):
        theirs, in_turn = want[key], key.endswith("interleaved") or "annotated" in case.name
        brick = Sinusoids() if in_turn else TimingSignal()
        ours = brick.table(torch.arange(12), theirs.shape[1])
        if "fairseq" in case.name:
            ours[1] = 0  # the row of the padding
        assert_close(ours, theirs, 4e-7, key)


# fairseq.

KINDS: dict[str, dict[str, bool]] = {
    "after": {},
    "before": {"before": True},
    "before-learned": {"before": True, "learned": True},
    "after-learned": {"learned": True},
}


def fairseq_config(before: bool = False, learned: bool = False) -> dict[str, Any]:
    changes = {
        f"{s}_{key}": on
        for s in ("encoder", "decoder")
        for key, on in (("normalize_before", before), ("learned_pos", learned))
    }
    return {
        **FAIRSEQ,
        **changes,
        "model_type": "transformer",
        "src_vocab_size": WORDS,
        "tgt_vocab_size": ANSWERS,
    }


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_fairseq(kind: dict[str, bool], tmp_path: Path) -> None:
    before, learned = kind.get("before", False), kind.get("learned", False)
    tensors = named(WORDS, ANSWERS, learned=learned, last=before)
    loaded = write(tmp_path, tensors, fairseq_config(**kind))
    computed = table(timing, first=2)
    places = [tensors[f"{s}.embed_positions.weight"][2:] if learned else computed for s in ATTENTIONS]
    text = texts()
    want = torch_logits(tensors, text, (places[0], places[1]), eps=1e-5, before=before)
    assert want.std() > 0.5, "too small to tell anything"
    assert_close(logits(loaded, text), want, 2e-5, "logits")
    assert_saved(loaded, tensors)


def old_names(tensors: Tensors) -> Tensors:
    """Return tensors as fairseq named and fused them before 2019."""
    old: Tensors = {"decoder.embed_out": tensors["decoder.output_projection.weight"]}
    numbers = {
        "encoder": ("self_attn", "final"),
        "decoder": ("self_attn", "encoder_attn", "final"),
    }
    for name, tensor in tensors.items():
        stack, leaf = name.split(".")[0], name.rpartition(".")[2]
        if ".q_proj." in name:
            parts = [tensors[name.replace(".q_proj.", f".{x}_proj.")] for x in "qkv"]
            old[name.replace(f".q_proj.{leaf}", f".in_proj_{leaf}")] = torch.cat(parts)
        elif "_layer_norm." in name:
            layer, norm = name.split(".")[2], name.split(".")[3].removesuffix("_layer_norm")
            old[f"{stack}.layers.{layer}.layer_norms.{numbers[stack].index(norm)}.{leaf}"] = tensor
        elif not any(part in name for part in (".k_proj.", ".v_proj.", "output_projection")):
            old[name] = tensor
    return old


def test_fairseq_of_old_names(tmp_path: Path) -> None:
    tensors = named(WORDS, ANSWERS)
    new = write(tmp_path / "new", tensors, fairseq_config())
    old = write(tmp_path / "old", old_names(tensors), fairseq_config())
    text = texts()
    assert torch.equal(logits(old, text), logits(new, text))
    assert_saved(old, old_names(tensors))


@pytest.mark.parametrize("form", ["args", "cfg"])
def test_fairseq_as_published(form: str, tmp_path: Path) -> None:
    """The arguments of training stand for a config.json, among some that shape nothing."""
    tensors = named(WORDS, ANSWERS)
    new = write(tmp_path / "new", tensors, fairseq_config())
    args = argparse.Namespace(**FAIRSEQ, lr=[0.1], max_epoch=3, encoder_layerdrop=0, encoder_embed_path=None)
    held = {"args": args} if form == "args" else {"args": None, "cfg": {"model": args, "task": {"data": "x"}}}
    (tmp_path / "old").mkdir()
    torch.save(
        {**held, "model": tensors, "optimizer_history": [{"num_updates": 7}]}, tmp_path / "old" / "model.pt"
    )
    old, text = load(tmp_path / "old"), texts()
    assert torch.equal(logits(old, text), logits(new, text))
    args.no_cross_attention = True
    torch.save({**held, "model": tensors}, tmp_path / "old" / "model.pt")
    with pytest.raises(ConfigError, match="no_cross_attention"):
        load(tmp_path / "old")
    args.arch = "transformer_lm_gpt"  # a decoder alone
    torch.save({**held, "model": tensors}, tmp_path / "old" / "model.pt")
    with pytest.raises(ConfigError, match="'transformer_lm_gpt' is not known here"):
        load(tmp_path / "old")


def test_a_context_is_that_of_the_shorter_stack(tmp_path: Path) -> None:
    """Learned positions of the source may end before those of the answer."""
    tensors = named(WORDS, ANSWERS, learned=True)
    rows = tensors["encoder.embed_positions.weight"][:9]
    shorter = {**fairseq_config(learned=True), "max_source_positions": 7}
    loaded = write(tmp_path, {**tensors, "encoder.embed_positions.weight": rows}, shorter)
    assert loaded.context == 7


# The paper, with fairseq's names.


def tied(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Return tensors with one matrix at all ends, and those of them that a file holds."""
    words = tensors["encoder.embed_tokens.weight"]
    ends = {"decoder.embed_tokens.weight": words, "decoder.output_projection.weight": words}
    return tensors | ends, {name: tensor for name, tensor in tensors.items() if name not in ends}


@pytest.mark.parametrize(("said", "row"), [("interleaved", interleaved), ("tensor2tensor", timing)])
def test_paper(said: str, row: Row, tmp_path: Path) -> None:
    whole, held = tied(named(WORDS, WORDS, bias=False))
    loaded = write(tmp_path, held, {**PAPER, "sinusoid": said})
    text, places = texts(), table(row)
    want = torch_logits(whole, text, (places, places), eps=1e-6, before=False)
    assert_close(logits(loaded, text), want, 2e-5, "logits")
    assert_saved(loaded, held)


# tensor2tensor.


def variables(tensors: Tensors, before: bool, shared: bool) -> Tensors:
    """Return tensors as tensor2tensor names, turns and cuts them."""
    place = "layer_prepostprocess" if before else "layer_postprocess"
    halves = {"self_attn": "self_attention", "encoder_attn": "encdec_attention", "final": "ffn"}
    parts = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "output_transform"}
    ends = {"encoder.embed_tokens": "input_emb", "decoder.embed_tokens": "target_emb"}
    out: Tensors = {}
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        stack, *inner = path.split(".")
        norm = "layer_norm/layer_norm_" + {"weight": "scale", "bias": "bias"}[leaf]
        body = f"transformer/body/{stack}"
        if inner[0] == "layer_norm":
            out[f"{body}/layer_prepostprocess/{norm}"] = tensor
        elif inner[0] != "layers":
            end = "shared" if shared else ends.get(path, "softmax")
            rows = f"transformer/symbol_modality_{len(tensor)}_{WIDTH}/{end}"
            out |= {f"{rows}/weights_{i}": piece for i, piece in enumerate(tensor.tensor_split(4))}
        elif inner[2].startswith("fc"):
            kind = {"weight": "kernel", "bias": "bias"}[leaf]
            out[f"{body}/layer_{inner[1]}/ffn/conv{inner[2][-1]}/{kind}"] = (
                tensor.T if tensor.ndim == 2 else tensor
            )
        elif inner[2].endswith("_layer_norm"):
            half = halves[inner[2].removesuffix("_layer_norm")]
            out[f"{body}/layer_{inner[1]}/{half}/{place}/{norm}"] = tensor
        else:
            half = f"{halves[inner[2]]}/multihead_attention"
            out[f"{body}/layer_{inner[1]}/{half}/{parts[inner[3]]}/kernel"] = tensor.T
    return out


@pytest.mark.parametrize("before", [True, False], ids=["norms before", "norms after"])
@pytest.mark.parametrize("shared", [True, False], ids=["one matrix", "three"])
def test_tensor2tensor(before: bool, shared: bool, tmp_path: Path) -> None:
    """70 rows in 4 shards are 18, 18, 17 and 17; the answer begins with padding, whose vector is zeros."""
    tensors = named(WORDS, WORDS if shared else ANSWERS, bias=False, last=before)
    whole, held = tied(tensors) if shared else (tensors, tensors)
    out = variables(held, before, shared)
    space = torch.randn(32, WIDTH)
    out["transformer/body/target_space_embedding/kernel"] = space
    loaded = write(
        tmp_path,
        out,
        {
            **T2T[before],
            "shared_embedding_and_softmax_weights": shared,
            "target_vocab_size": len(whole["decoder.embed_tokens.weight"]),
        },
    )
    text, places = texts(), table(timing)
    text[1][:, 0] = 0
    blank = whole["decoder.embed_tokens.weight"].clone()
    blank[0] = 0
    whole["decoder.embed_tokens.weight"] = blank
    want = torch_logits(whole, text, (places + space[9], places), eps=1e-6, before=before)
    assert_close(logits(loaded, text), want, 2e-5, "logits")
    assert_saved(loaded, out)


# BART and Marian, in files of other years than transformers 5 writes.


def rewritten(folder: Path, change: Callable[[str, Tensor], dict[str, Tensor]], **more: Tensor) -> None:
    """Write the tensors of a checkpoint again, each as what `change` makes of it, and more."""
    tensors = load_file(folder / "model.safetensors")
    out = {name: t for old, tensor in tensors.items() for name, t in change(old, tensor).items()}
    save_file(out | more, folder / "model.safetensors", {"format": "pt"})


def kept(name: str, tensor: Tensor) -> dict[str, Tensor]:
    return {name: tensor}


def answered(model: Any, text: tuple[Tensor, Tensor]) -> Tensor:
    """Return what a model of transformers makes of a source and its answer."""
    source, answer = text
    with torch.inference_mode():
        out: Tensor = model(input_ids=source, decoder_input_ids=answer).logits
    return out


def ours(folder: Path, text: tuple[Tensor, Tensor]) -> Tensor:
    model, (source, answer) = load(folder).model, text
    with torch.inference_mode():
        return model(answer, Full.of(answer, None, model.prompt(source)))


@pytest.mark.parametrize("name", ["bart", "marian"])
def test_a_bias_of_logits(name: str, tmp_path: Path) -> None:
    """Zeros in what transformers makes, and other numbers in what is published."""
    reference, text = tiny.make(name, tmp_path), texts()
    reference.final_logits_bias.normal_()
    rewritten(tmp_path, kept, final_logits_bias=reference.final_logits_bias)
    assert_close(ours(tmp_path, text), answered(reference, text), 1e-4, "logits")


def test_bart_without_its_head(tmp_path: Path) -> None:
    """As facebook/bart-base is published: no prefix, no bias, and the embedding under three names."""
    reference, text = tiny.make("bart", tmp_path), texts()
    words = reference.model.shared.weight.detach()
    names = ("shared", "encoder.embed_tokens", "decoder.embed_tokens")

    def bare(name: str, tensor: Tensor) -> dict[str, Tensor]:
        inner = name.removeprefix("model.")
        return {} if inner == "final_logits_bias" or inner == "shared.weight" else {inner: tensor}

    rewritten(tmp_path, bare, **{f"{name}.weight": words.clone() for name in names})
    assert_close(ours(tmp_path, text), answered(reference, text), 1e-4, "logits")


def test_marian_with_its_table(tmp_path: Path) -> None:
    """As Helsinki-NLP's are published: the computed positions lie in the file too, and the head."""
    reference, text = tiny.make("marian", tmp_path), texts()
    model = reference.model
    held = {
        f"model.{stack}.embed_positions.weight": getattr(model, stack).embed_positions.weight.detach()
        for stack in ATTENTIONS
    }
    held["lm_head.weight"] = model.shared.weight.detach().clone()
    rewritten(tmp_path, kept, **{name: t.clone() for name, t in held.items()})
    assert_close(ours(tmp_path, text), answered(reference, text), 1e-4, "logits")


def test_marian_without_its_bias(tmp_path: Path) -> None:
    tiny.make("marian", tmp_path)
    rewritten(tmp_path, lambda name, tensor: {} if name == "final_logits_bias" else {name: tensor})
    with pytest.raises(CheckpointError, match="the file lacks 1: final_logits_bias"):
        load(tmp_path)


def test_a_form_that_is_not_computed(tmp_path: Path) -> None:
    """transformers computes BART in one form, whatever a config.json of 2020 asks for."""
    tiny.make("bart", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "normalize_before": True}))
    with pytest.raises(ConfigError, match="normalize_before"):
        load(tmp_path)

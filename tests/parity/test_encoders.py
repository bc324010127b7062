"""BERT and its relatives against transformers, live: every head, padding on both sides, segments."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from bestiary.context import Full, Prompt
from bestiary.errors import CheckpointError, ConfigError
from bestiary.load import Loaded, load, published, save
from bestiary.models import Encoder
from tests import tiny

from .test_references import assert_close

Tensors = dict[str, Tensor]
SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "vocab_size": 130,
    "max_position_embeddings": 64,
}
DISTIL: dict[str, Any] = {
    "dim": 48, "hidden_dim": 96, "n_layers": 3, "n_heads": 6, "vocab_size": 130,
    "max_position_embeddings": 64,
}  # fmt: skip
T5: dict[str, Any] = {
    "d_model": 48, "d_ff": 96, "d_kv": 10, "num_heads": 6, "num_layers": 3, "vocab_size": 130,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
}  # fmt: skip
NARROW = {**SIZES, "embedding_size": 24}
COMMON = (
    "Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering",
    "ForMultipleChoice",
)  # fmt: skip
MORE: dict[str, tuple[str, ...]] = {
    "Bert": ("ForPreTraining", "ForNextSentencePrediction"),
    "Electra": ("ForPreTraining",),
    "Albert": ("ForPreTraining",),
}
FAMILIES = {
    "Bert": SIZES, "Roberta": SIZES, "XLMRoberta": SIZES, "Camembert": SIZES, "MPNet": SIZES,
    "DistilBert": DISTIL, "Electra": NARROW, "Albert": NARROW,
}  # fmt: skip
# name -> (transformers' model class, its config)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    f"{family}{head}": (f"{family}{head}", sizes)
    for family, sizes in FAMILIES.items()
    for head in (*COMMON, *MORE.get(family, ()))
} | {
    "Bert-tanh": ("BertForMaskedLM", {**SIZES, "hidden_act": "gelu_new", "layer_norm_eps": 1e-5}),
    "Bert-labels": (
        "BertForSequenceClassification",
        {**SIZES, "num_labels": 4, "problem_type": "multi_label_classification"},
    ),
    "Roberta-one-segment": ("RobertaForMaskedLM", {**SIZES, "type_vocab_size": 1, "pad_token_id": 4}),
    "DistilBert-relu": ("DistilBertForMaskedLM", {**DISTIL, "activation": "relu"}),
    "Electra-wide": ("ElectraForMaskedLM", {**SIZES, "embedding_size": 48, "hidden_act": "relu"}),
    "Electra-wide-tells": ("ElectraForPreTraining", {**SIZES, "embedding_size": 48, "hidden_act": "relu"}),
    "Albert-groups": ("AlbertForMaskedLM", {**NARROW, "num_hidden_layers": 5, "num_hidden_groups": 3}),
    "T5EncoderModel": ("T5EncoderModel", T5),
    "T5-gated": ("T5EncoderModel", {**T5, "feed_forward_proj": "gated-gelu"}),
    "MT5EncoderModel": ("MT5EncoderModel", T5),
    "UMT5EncoderModel": ("UMT5EncoderModel", T5),
}
# A text of 17 tokens and two shorter ones.
LENGTHS = (17, 12, 8)
# How the name of a class ends whose logits are of whole texts.
OF_TEXTS = ("SequenceClassification", "MultipleChoice", "NextSentencePrediction")


def make(name: str, folder: Path) -> Any:
    """Write a tiny random checkpoint into the folder, and return transformers' model of it."""
    kind, sizes = VARIANTS[name]
    named = getattr(transformers, kind)
    config = named.config_class(**sizes)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = tiny.randomise(named(config).float().eval(), 0.2)
    model.save_pretrained(folder)
    return model


def batch(theirs: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return tokens (B, T) padded on the right, which are real, and segments where there are any."""
    seen = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(5, 130, seen.shape)
    kinds = getattr(theirs.config, "type_vocab_size", 1)
    segments = torch.randint(kinds, seen.shape) if kinds > 1 else None
    return torch.where(seen, ids, theirs.config.pad_token_id), seen, segments


def run(loaded: Loaded, ids: Tensor, seen: Tensor, segments: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the last states, what is said of each token, and what is said of each text."""
    model = loaded.model
    assert isinstance(model, Encoder)
    with torch.inference_mode():
        begin = Prompt(seen.sum(-1, keepdim=True), segments=segments)
        states = model.hidden(ids, Full.of(ids, seen, begin))
        return states, model.head(states), model.verdict(states, seen)


def theirs_of(model: Any, ids: Tensor, seen: Tensor, segments: Tensor | None) -> Any:
    given = {"input_ids": ids, "attention_mask": seen.long()}
    if segments is not None:
        given["token_type_ids"] = segments
    if type(model).__name__.endswith("MultipleChoice"):  # one choice a text
        given = {key: value[:, None] for key, value in given.items()}
    with torch.inference_mode():
        return model(**given, output_hidden_states=True)


def pairs(kind: str, want: Any, tokens: Tensor, texts: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield each result of theirs, and ours."""
    for key in set(want) - {"hidden_states", "last_hidden_state"}:
        ours = {
            "start_logits": tokens[..., :1].squeeze(-1),
            "end_logits": tokens[..., -1],
            "prediction_logits": tokens,
            "logits": texts if kind.endswith(OF_TEXTS) else tokens,
        }.get(key, texts)
        yield key, ours.squeeze(-1) if kind == "ElectraForPreTraining" else ours, want[key]


@pytest.mark.parametrize("name", VARIANTS)
def test_equal(name: str, tmp_path: Path) -> None:
    reference = make(name, tmp_path)
    ids, seen, segments = batch(reference)
    want = theirs_of(reference, ids, seen, segments)
    states, tokens, texts = run(load(tmp_path), ids, seen, segments)
    assert_close(states[seen], want.hidden_states[-1][seen], 1e-4, "states")
    kind = VARIANTS[name][0]
    for key, got, expected in pairs(kind, want, tokens, texts):
        assert expected.std() > 0.05, f"{key}: too alike to tell anything"
        real = seen if expected.shape[:2] == seen.shape else slice(None)
        assert_close(got[real], expected[real], 1e-4, key)


@pytest.mark.parametrize("name", VARIANTS)
def test_padding_may_stand_on_either_side(name: str, tmp_path: Path) -> None:
    ids, seen, segments = batch(make(name, tmp_path))
    loaded = load(tmp_path)
    left = torch.stack([row.roll(-length) for row, length in zip(ids, LENGTHS, strict=True)])
    other = seen.flip(1)
    got, want = run(loaded, left, other, segments), run(loaded, ids, seen, segments)
    for ours, right in zip(got[:2], want[:2], strict=True):
        assert_close(ours[other], right[seen], 1e-4, "by token")
    assert_close(got[2], want[2], 1e-4, "by text")


@pytest.mark.parametrize("name", VARIANTS)
def test_saved_and_read_again(name: str, tmp_path: Path) -> None:
    reference = make(name, tmp_path / "a")
    loaded, original = load(tmp_path / "a"), load_file(tmp_path / "a" / "model.safetensors")
    saved = published(loaded)
    assert saved.keys() == original.keys()
    assert all(torch.equal(saved[key], tensor) for key, tensor in original.items())
    save(loaded, tmp_path / "b")
    again = type(reference).from_pretrained(tmp_path / "b", attn_implementation="eager")
    given = batch(reference)
    want, got = theirs_of(reference, *given), theirs_of(again, *given)
    assert torch.equal(got.hidden_states[-1], want.hidden_states[-1])


def test_a_choice_is_made_among_texts(tmp_path: Path) -> None:
    reference = make("BertForMultipleChoice", tmp_path)
    ids, seen, segments = batch(reference)
    assert segments is not None
    given = {"input_ids": ids, "attention_mask": seen.long(), "token_type_ids": segments}
    with torch.inference_mode():
        want = reference(**{key: value[None] for key, value in given.items()}).logits
    assert_close(run(load(tmp_path), ids, seen, segments)[2].T, want, 1e-4, "choices")


def vector(tensors: Tensors, path: str) -> Tensors:
    """Return a dense layer, as wide as the stream, under a name."""
    width = SIZES["hidden_size"]
    return tensors | {f"{path}.weight": torch.randn(width, width), f"{path}.bias": torch.randn(width)}


def first_release(tensors: Tensors) -> Tensors:
    """Return them as bert-base-uncased's first file has them."""
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].clone()
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
    tensors["bert.embeddings.position_ids"] = torch.arange(64)[None]
    norms = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    return {renamed(key, norms): tensor for key, tensor in tensors.items()}


def renamed(key: str, names: dict[str, str]) -> str:
    for theirs, other in names.items():
        key = key.replace(theirs, other)
    return key


# How files were published that hold what a variant's file holds: (variant, its tensors, keys of config.json).
CHINESE = {
    "directionality": "bidi", "pooler_fc_size": 768, "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3, "pooler_size_per_head": 128, "pooler_type": "first_token_transform",
}  # fmt: skip
ALBERT = {"down_scale_factor": 1, "gap_size": 0, "net_structure_type": 0, "num_memory_blocks": 0}
PUBLISHED: dict[str, tuple[str, Callable[[Tensors], Tensors], dict[str, Any]]] = {
    "bert-base-uncased": ("BertForPreTraining", first_release, {"architectures": ["BertForMaskedLM"]}),
    "bert-base-chinese": ("BertForMaskedLM", dict, CHINESE),
    "contriever": ("BertModel", dict, {"architectures": ["Contriever"]}),
    "prefixed": ("BertModel", lambda held: {f"bert.{key}": held[key] for key in held}, {}),
    "dslim-bert-base-ner": (
        "BertForTokenClassification", partial(vector, path="bert.pooler.dense"), {},
    ),
    "ms-marco-minilm": (
        "BertForSequenceClassification", dict,
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0.1"}},
    ),
    "roberta-base": ("RobertaForMaskedLM", partial(vector, path="roberta.pooler.dense"), {}),
    "twitter-roberta-base-sentiment": (
        "RobertaForSequenceClassification", partial(vector, path="roberta.pooler.dense"), {},
    ),
    "distilbert-base-uncased": (
        "DistilBertForMaskedLM", dict, {"tie_weights_": True, "sinusoidal_pos_embds": False},
    ),
    "albert-base-v2": ("AlbertForMaskedLM", dict, ALBERT),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_forms(name: str, tmp_path: Path) -> None:
    """What stands beside a file's own changes nothing that is computed, and is saved with it."""
    kind, change, config = PUBLISHED[name]
    given = batch(make(kind, tmp_path))
    states, *said = run(load(tmp_path), *given)
    tensors = change(load_file(tmp_path / "model.safetensors"))
    save_file(tensors, tmp_path / "model.safetensors")
    about = json.loads((tmp_path / "config.json").read_text()) | config
    (tmp_path / "config.json").write_text(json.dumps(about))
    loaded = load(tmp_path)
    got, *now = run(loaded, *given)
    assert torch.equal(got, states)
    judged = kind.endswith(OF_TEXTS)
    assert torch.equal(now[judged], said[judged])
    saved, kept = published(loaded), tensors.keys() - {"bert.embeddings.position_ids"}
    assert saved.keys() == kept
    assert all(torch.equal(saved[key], tensors[key]) for key in kept)


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "decoder": ("BertForMaskedLM", {"is_decoder": True}),
    "relative": ("BertForMaskedLM", {"position_embedding_type": "relative_key"}),
    "direction": ("BertForMaskedLM", {"directionality": "left"}),
    "buckets": ("MPNetForMaskedLM", {"relative_attention_num_buckets": 16}),
    "inner": ("AlbertForMaskedLM", {"inner_group_num": 2}),
    "groups": ("AlbertForMaskedLM", {"num_hidden_groups": 1 << 24}),
    "summary": ("ElectraForMultipleChoice", {"summary_type": "last"}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_computed_is_refused(name: str, tmp_path: Path) -> None:
    variant, config = REFUSED[name]
    make(variant, tmp_path)
    about = json.loads((tmp_path / "config.json").read_text()) | config
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(ConfigError, match=next(iter(config))):
        load(tmp_path)


def test_a_head_that_is_missing_bears_its_own_name(tmp_path: Path) -> None:
    """Other heads of a BERT stand in the same place under other names."""
    make("BertForSequenceClassification", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier")}
    save_file(body, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"the file lacks 2: classifier\.weight, classifier\.bias"):
        load(tmp_path)


def test_a_context_ends_where_the_positions_do(tmp_path: Path) -> None:
    make("RobertaForMaskedLM", tmp_path / "roberta")
    make("BertForMaskedLM", tmp_path / "bert")
    assert load(tmp_path / "roberta").context == SIZES["max_position_embeddings"] - 2
    assert load(tmp_path / "bert").context == SIZES["max_position_embeddings"]


def test_umt5_answers_as_it_was_published(tmp_path: Path) -> None:
    """Its head reads states as they are; transformers 5.23 calls it tied, and scales them like T5's first."""
    sizes = {**T5, "feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0}
    made = transformers.UMT5ForConditionalGeneration(transformers.UMT5Config(**sizes))
    made.lm_head = torch.nn.Linear(T5["d_model"], T5["vocab_size"], bias=False)
    reference: Any = tiny.randomise(made.float().eval(), 0.2)
    reference.save_pretrained(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    about |= {"tie_word_embeddings": False, "scalable_attention": True}
    (tmp_path / "config.json").write_text(json.dumps(about))
    model, ids, answer = load(tmp_path).model, torch.randint(3, 130, (2, 11)), torch.randint(3, 130, (2, 7))
    with torch.inference_mode():
        want = reference(input_ids=ids, decoder_input_ids=answer, output_hidden_states=True)
        ctx = Full.of(answer, None, model.prompt(ids))
        assert_close(model.hidden(answer, ctx), want.decoder_hidden_states[-1], 1e-4, "states")
        assert_close(model(answer, ctx), want.logits * T5["d_model"] ** 0.5, 1e-4, "logits")

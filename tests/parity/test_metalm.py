"""MetaLM, of which no code came: against torchscale, its authors' stacks, and kosmos-2's layout of spans."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from transformers import Kosmos2TextConfig
from transformers.models.kosmos2.modeling_kosmos2 import Kosmos2TextTransformer

from bestiary.bricks import Docks, TimingSignal
from bestiary.context import Cache, Full, Paged, Pool, Prompt, Stream
from bestiary.errors import ConfigError, RequestError
from bestiary.load import load
from bestiary.models import SemiCausal
from bestiary.prompt import Docked
from tests.goldens import STORED
from tests.parity.test_references import Reference, assert_close, greedy, greedy_again, reference

CASE = STORED / "metalm-small"


@pytest.fixture(name="ref")
def _ref() -> Reference:
    return reference(CASE)


def model(ref: Reference) -> SemiCausal:
    assert isinstance(ref.loaded.model, SemiCausal)
    return ref.loaded.model


def read(ref: Reference, rows: slice = slice(None)) -> Prompt:
    with torch.inference_mode():
        return model(ref).prompt(ref.want["input_ids"][rows], None, ref.want["spans"][rows])


def test_spans_are_encoded_in_place(ref: Reference) -> None:
    ids = ref.want["input_ids"]
    states: list[Tensor] = []
    hooks = [model(ref).layers[0].register_forward_pre_hook(lambda _, args: states.append(args[0]))]
    hooks += [x.register_forward_hook(lambda *args: states.append(args[2])) for x in model(ref).layers]
    with torch.inference_mode():
        got = model(ref)(ids, Full.of(ids, None, read(ref)))
    for hook in hooks:
        hook.remove()
    assert_close(got, ref.want["docked.logits"], ref.tolerance, "logits")
    for i, state in enumerate(states):
        assert_close(state, ref.want[f"docked.hidden_states.{i}"], ref.tolerance, f"state {i}")
    assert (got - ref.want["logits"]).abs().max() > 1  # the spans matter


def test_the_encoder_reads_a_span_as_a_whole(ref: Reference) -> None:
    span = ref.want["input_ids"][0][ref.want["spans"][0] == 2][None]
    with torch.inference_mode():
        got = model(ref).encoder.hidden(span, Full.of(span))
    assert_close(got, ref.want["encoder.hidden_states.3"], ref.tolerance, "states")


def test_text_goes_on_after_spans(ref: Reference) -> None:
    ids, spans = ref.want["input_ids"][0, :41], ref.want["spans"][:1, :41]
    with torch.inference_mode():
        begin = model(ref).prompt(ids[None], None, spans)
    want = ref.want["docked.greedy"].tolist()
    assert greedy(ref.loaded, ids, len(want), begin) == want
    assert greedy_again(ref.loaded, ids, len(want), begin) == want


def test_the_same_in_every_context(ref: Reference) -> None:
    """In chunks that cut spans, in pages beside a text without spans, and padded on the left."""
    ids, want, it = ref.want["input_ids"], ref.want["docked.logits"], model(ref)
    begin, cache, pool = read(ref), Cache.empty(it, 2, 44), Pool.empty(it, 22, 4)
    with torch.inference_mode():
        steps = [(a, b, Stream.at(cache, a, b - a, begin)) for a, b in pairwise((0, 6, 25, 26, 44))]
        chunks = torch.cat([it(ids[:, a:b], step) for a, b, step in steps], 1)
        tables, begins = torch.randperm(22).split(11), [read(ref, slice(0, 1)), it.prompt(ids[1:])]
        places, spans = torch.arange(44).repeat(2), [(0, 44), (44, 88)]
        paged = it(ids.flatten(), Paged(places, pool, spans, tables, begins))
        padded, seen = torch.cat((torch.zeros_like(ids[:, :5]), ids), 1), torch.arange(49).repeat(2, 1) >= 5
        moved = torch.cat((torch.zeros_like(ids[:, :5]), ref.want["spans"]), 1)
        left = it(padded, Full.of(padded, seen, it.prompt(padded, seen, moved)))
        beams = it(ids.repeat_interleave(3, 0), Full.of(ids.repeat_interleave(3, 0), None, begin.repeated(3)))
    assert_close(chunks, want, ref.tolerance, "chunks")
    assert_close(paged[:44], want[0], ref.tolerance, "pages")
    assert_close(paged[44:], ref.want["logits"][1], ref.tolerance, "pages of a text without spans")
    assert_close(left[:, 5:], want, ref.tolerance, "padding")
    assert_close(beams, want.repeat_interleave(3, 0), ref.tolerance, "three rows each")


def test_a_span_that_is_too_long_is_refused(ref: Reference) -> None:
    ids = torch.ones(1, 80, dtype=torch.int64)
    with pytest.raises(RequestError, match="a span of 80 tokens is longer than the 64"):
        model(ref).prompt(ids, None, ids)


def test_vectors_stand_where_kosmos_2_puts_them() -> None:
    """The same embeddings, vectors and positions in both: what enters the first block is equal."""
    config = Kosmos2TextConfig(vocab_size=40, embed_dim=32, layers=1, attention_heads=2, ffn_dim=8)
    theirs = Kosmos2TextTransformer(config).eval()
    ids, where = torch.randint(3, 40, (2, 12)), torch.zeros(2, 12, dtype=torch.bool)
    where[:, 2:7] = True
    vectors = torch.randn(2, 12, 32)
    with torch.inference_mode():
        want = theirs.forward_embedding(ids, image_embeds=vectors[where], img_input_mask=where)
        scale = theirs.embed_scale  # Kosmos-2 scales words and vectors alike
        ctx = Full.of(ids, None, Prompt(torch.tensor([[12]]), docked=Docked(vectors * scale, where)))
        got = Docks(TimingSignal(offset=2))(theirs.embed_tokens(ids) * scale, ctx)
    assert_close(got, want, 1e-6, "the stream")


def test_a_config_without_a_part_is_refused() -> None:
    with pytest.raises(ConfigError, match="a section 'encoder' and a section 'decoder'"):
        load(CASE, config={"encoder": None})


def test_distances_that_leave_no_range_to_grow_are_refused(ref: Reference) -> None:
    """Of 32 ranges, 8 on a side are one distance each: the others must lie beyond, or divide by log 1."""
    inner = ref.loaded.config["encoder"]
    assert isinstance(inner, dict)
    changed = {**inner, "rel_pos_buckets": 32, "max_rel_pos": 8}
    with pytest.raises(ConfigError, match="max_rel_pos = 8 should be a whole number from 9"):
        load(CASE, config={"encoder": changed})

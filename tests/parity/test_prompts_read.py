"""What prefix language models read from a prompt, against what their authors' code read from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bestiary.bricks import BlankReader
from bestiary.bricks.blanks import in_blank, in_text
from bestiary.context import Full
from bestiary.describe import empty
from bestiary.errors import RequestError
from bestiary.families.ptuning import PrefixTuned
from bestiary.kernels.attention import Score, Sight
from tests.goldens import decoders

from .test_references import reference

CASES = decoders(with_key="position_ids")


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_where_tokens_stand_and_what_they_see(case: Path) -> None:
    ref = reference(case)
    tokens, want, model = ref.want["input_ids"], ref.want["position_ids"], ref.loaded.model
    ctx = Full.of(tokens, None, model.prompt(tokens))
    if want.ndim == 3:  # ChatGLM-6B's two dimensions
        assert torch.equal(in_blank(ctx), want[:, 1])
        want = want[:, 0]
    assert torch.equal(in_text(ctx), want)
    assert ctx.prompt is not None
    sight = Sight(ctx.positions, ctx.positions, prefix=ctx.prompt.prefix)
    lead = model.prefix(tokens.device)[0] if isinstance(model, PrefixTuned) else None
    mask = sight.mask(Score(lead=lead), torch.float32)
    assert mask is not None
    assert torch.equal(mask < 0, ref.want["attention_mask"].bool())


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_a_longer_text_and_a_padded_one_begin_alike(case: Path) -> None:
    """What is generated changes nothing, masks among it neither; places count from the first real token."""
    ref = reference(case)
    tokens, model = ref.want["input_ids"], ref.loaded.model
    begin, reader = model.prompt(tokens), model.reader
    assert isinstance(reader, BlankReader)
    longer = torch.cat((tokens, torch.tensor([[*reader.masks, reader.start]] * len(tokens))), 1)
    padded = torch.cat((torch.full((len(tokens), 4), reader.start), tokens), 1)
    seen = torch.arange(padded.shape[1]).expand_as(padded) >= 4
    for other in (model.prompt(longer), model.prompt(padded, seen)):
        assert other.continues(begin)


@pytest.mark.parametrize("case", CASES[:1] + CASES[-1:], ids=lambda p: p.name)
def test_a_prompt_without_start_or_mask_is_refused(case: Path) -> None:
    ref = reference(case)
    tokens, model = ref.want["input_ids"].clone(), ref.loaded.model
    reader = model.reader
    assert isinstance(reader, BlankReader)
    with pytest.raises(RequestError, match=rf"no <sop> \(token {reader.start}\)"):
        model.prompt(tokens.where(tokens != reader.start, 5))
    with pytest.raises(RequestError, match=r"no mask \(token \d+ or \d+"):
        model.prompt(tokens.where(~torch.isin(tokens, torch.tensor(reader.masks)), 5))
    with pytest.raises(RequestError, match=r"prompt=model\.prompt\(tokens\)"):
        model(tokens, Full.of(tokens))


def test_ids_that_a_config_leaves_out() -> None:
    """Those of the vocabulary of March 2023, and of icetk-glm-130B."""
    sizes = {
        "num_layers": 1, "hidden_size": 8, "num_attention_heads": 1, "inner_hidden_size": 8,
        "vocab_size": 150_528,
    }  # fmt: skip
    assert empty({"model_type": "chatglm", **sizes}).reader == BlankReader(150_004, (150_001, 150_000))
    masks = (150_000, 150_002, 150_001)
    assert empty(sizes).reader == BlankReader(150_004, masks, onward=150_001)
    named = {"bos_token_id": 130_004, "gmask_token_id": 130_001, "mask_token_id": 130_000}
    later = empty({"model_type": "chatglm", **sizes, "vocab_size": 130_528, **named})
    assert later.reader == BlankReader(130_004, (130_001, 130_000))

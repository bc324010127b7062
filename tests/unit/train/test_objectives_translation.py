"""Losses against other implementations; and a Transformer that learns by them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bestiary.config import Config
from bestiary.context import Cache, Stream
from bestiary.errors import RequestError
from bestiary.families import transformer_paper
from bestiary.train.objectives.translation import Pairs, smoothed_cross_entropy, translation


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.6])
def test_the_target_has_all_but_epsilon_and_the_others_share_it(epsilon: float) -> None:
    logits, targets = torch.randn(4, 7, 23), torch.randint(23, (4, 7))
    shares = torch.full((4, 7, 23), epsilon / 22).scatter(-1, targets[..., None], 1 - epsilon)
    want = F.cross_entropy(logits.flatten(0, 1), shares.flatten(0, 1), reduction="none")
    torch.testing.assert_close(smoothed_cross_entropy(logits, targets, epsilon).flatten(), want)


@pytest.mark.parametrize("epsilon", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(epsilon: float) -> None:
    with pytest.raises(RequestError, match="should be from 0 to below 1"):
        smoothed_cross_entropy(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64), epsilon)


def test_padding_changes_neither_loss_nor_gradients() -> None:
    model = transformer_paper.build(Config(SIZES))
    source, answer = torch.randint(3, 20, (2, 9)), torch.randint(3, 20, (2, 7))
    lengths = ((9, 7), (5, 4))
    real = [
        torch.arange(n) < torch.tensor([pair[i] for pair in lengths])[:, None] for i, n in ((0, 9), (1, 7))
    ]
    loss, _ = translation(model, Pairs(source, answer, *real))
    loss.backward()
    ones, _ = translation(model, Pairs(source, answer, *(mask.long() for mask in real)))
    assert torch.equal(ones, loss)
    together = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    total = torch.zeros(())
    for row, (s, a) in enumerate(lengths):
        alone, _ = translation(model, Pairs(source[row : row + 1, :s], answer[row : row + 1, :a]))
        total = total + alone * a
    (total / 11).backward()
    torch.testing.assert_close(loss, total / 11)
    apart = [p.grad for p in model.parameters() if p.grad is not None]
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-4)


SIZES = {
    "layout": "paper", "vocab_size": 20,
    "embed_dim": 32, "ffn_embed_dim": 64, "attention_heads": 4, "layers": 2,
}  # fmt: skip


def test_a_transformer_learns_to_turn_texts_around() -> None:
    """Through both stacks and the source's memory; what it then writes over a cache is the turned text."""
    torch.manual_seed(0)
    model = transformer_paper.build(Config(SIZES))
    source = torch.randint(3, 20, (16, 6))
    answer = torch.cat((source.flip(1), torch.full((16, 1), 2)), 1)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3, betas=(0.9, 0.98))
    for _ in range(400):
        optimiser.zero_grad()
        loss, told = translation(model, Pairs(source, answer))
        loss.backward()
        optimiser.step()
    # The likeliest that smoothing wants is 0.9, whose loss is 0.105; a guess among 17 has 2.8.
    assert told["nll"] < 0.25
    with torch.inference_mode():
        prompt, cache = model.prompt(source), Cache.empty(model, 16, 8)
        step = torch.full((16, 1), model.start[0])
        written = []
        for at in range(7):
            step = model(step, Stream.at(cache, at, 1, prompt)).argmax(-1)
            written.append(step)
    assert torch.equal(torch.cat(written, 1), answer)

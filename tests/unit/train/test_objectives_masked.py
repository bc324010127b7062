"""What is hidden from a model: masks, spans, blanks. What is said again is what was hidden."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from transformers import DataCollatorForLanguageModeling

from bestiary.errors import RequestError
from bestiary.train.objectives import blanks, masked, spans
from bestiary.train.objectives.next_token import IGNORED


def test_masks_as_transformers_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own draws, taken down as it makes them."""
    drawn: list[torch.Tensor] = []

    def noted(draw: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def made(*args: object, **how: object) -> torch.Tensor:
            drawn.append(draw(*args, **how))
            return drawn[-1]

        return made

    monkeypatch.setattr(torch, "bernoulli", noted(torch.bernoulli))
    monkeypatch.setattr(torch, "randint", noted(torch.randint))
    torch.manual_seed(0)
    tokens, special = torch.arange(20, 80).view(3, 20), torch.zeros(3, 20, dtype=torch.bool)
    special[:, 0] = True
    collator = DataCollatorForLanguageModeling(_Words(), mlm_probability=0.4)  # type: ignore[arg-type]
    read, labels = collator.torch_mask_tokens(tokens.clone(), special)
    chosen, hidden, changed, words = drawn
    draws = masked.Draws(chosen.bool(), hidden.bool(), changed.bool(), words)
    ours = masked.masked(tokens, draws, _Words.mask_token_id)
    assert torch.equal(ours[0], read)
    assert torch.equal(ours[1], labels)


class _Words:
    mask_token, mask_token_id = "[MASK]", 7
    pad_token, pad_token_id = "[PAD]", 0

    def __len__(self) -> int:
        return 100

    def convert_tokens_to_ids(self, _: str) -> int:
        return self.mask_token_id


def test_the_loss_is_of_what_was_chosen() -> None:
    logits, labels = torch.randn(2, 9, 13), torch.randint(13, (2, 9))
    labels[:, ::2] = IGNORED
    want = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(masked.masked_lm(logits, labels), want)


def test_whole_words_are_hidden_whole() -> None:
    starts = [True, True, False, False, True, True, False, True, True, True, False, True]
    words = masked.words(starts=starts, special=[place in (0, 11) for place in range(12)])
    assert words == [[1, 2, 3], [4], [5, 6], [7], [8], [9, 10]]
    choose = masked.WordMasks(vocabulary=50, mask=3, share=0.4)
    for seed in range(50):
        read, places = choose(list(range(20, 32)), words, random.Random(seed))
        assert 0 < len(places) <= 5
        assert all(set(word) <= set(places) or not set(word) & set(places) for word in words)
        assert all(token == 20 + place for place, token in enumerate(read) if place not in places)


@pytest.mark.parametrize("length", [2, 7, 40, 512])
def test_spans_give_the_text_back(length: int) -> None:
    law = spans.SpanNoise()
    tokens = torch.arange(100, 100 + length)
    noise = law.draw(length, torch.Generator().manual_seed(length))
    count, parts = law.counts(length)
    assert int(noise.sum()) == count
    source, answer = spans.corrupted(tokens, noise, 1000)
    sentinels = [token for token in source.tolist() if token > 900]
    assert sentinels == list(range(999, 999 - parts, -1))
    filled: dict[int, list[int]] = {}
    for token in answer.tolist():
        if token > 900:
            filled[token] = []
        else:
            filled[list(filled)[-1]].append(token)
    # A text begins with the rest, which the answer's first sentinel stands for.
    back = [x for token in source.tolist() for x in (filled[token] if token > 900 else [token])]
    assert back == tokens.tolist()


def test_a_source_is_filled() -> None:
    assert spans.SpanNoise().fill(512) == (568, 114)
    for source in (32, 100, 1000):
        tokens, _ = spans.SpanNoise(0.3, 5).fill(source)
        noise = round(tokens * 0.3)
        assert tokens - noise + round(noise / 5) + 1 <= source


def test_what_a_decoder_reads() -> None:
    assert spans.shifted_right(torch.tensor([[5, 6, 1]])).tolist() == [[0, 5, 6]]


def test_blanks_as_the_paper_draws_them() -> None:
    """Figure 2 of the paper: x1..x6, of which x3 and x5 x6 are taken out, the last first."""
    made = blanks.blanked(torch.arange(1, 7), [(4, 6), (2, 3)], blanks.Marks(90, 91, 92))
    x = IGNORED
    assert made.ids.tolist() == [1, 2, 90, 4, 90, 91, 5, 6, 91, 3]
    assert made.labels.tolist() == [x, x, x, x, x, 5, 6, 92, 3, 92]
    assert made.positions.tolist() == [[0, 1, 2, 3, 4, 4, 4, 4, 2, 2], [0, 0, 0, 0, 0, 1, 2, 3, 1, 2]]
    assert made.text == 5
    seen = made.seen
    assert seen[:, :5].all()
    assert torch.equal(seen[5:, 5:], torch.ones(5, 5).tril().bool())
    assert not seen[:5, 5:].any()
    assert blanks.without_order(made).positions[1].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]


def test_a_batch_is_padded() -> None:
    marks = blanks.Marks(90, 91, 92)
    made = [blanks.blanked(torch.arange(9), [(2, 4)], marks), blanks.continued(torch.arange(5), 2, marks)]
    both = blanks.batch(made)
    assert both.ids.tolist() == [[0, 1, 90, 4, 5, 6, 7, 8, 91, 2, 3], [0, 1, 90, 91, 2, 3, 0, 0, 0, 0, 0]]
    assert both.labels[1, 3:].tolist() == [2, 3, 4] + [IGNORED] * 5
    assert both.text.tolist() == [8, 3]
    assert both.seen.shape == (2, 11, 11)
    assert torch.equal(both.seen[0], made[0].seen)


@pytest.mark.parametrize("seed", range(20))
def test_drawn_blanks_fit_and_stand_apart(seed: int) -> None:
    length = 30 + seed
    drawn = sorted(blanks.draw_blanks(length, random.Random(seed)))
    assert drawn
    assert all(a[1] < b[0] for a, b in pairwise(drawn))
    assert drawn[0][0] >= 1
    assert drawn[-1][1] < length
    assert sum(end - start for start, end in drawn) >= int(0.15 * length)


def test_sentences_are_taken_whole() -> None:
    tokens = [1, 5, 6, 20, 7, 20, 8, 9, 9, 20, 2]
    for seed in range(20):
        drawn = blanks.draw_sentences(tokens, {20}, 2, random.Random(seed), share=0.3)
        assert set(drawn) <= {(1, 4), (4, 6), (6, 10)}
        assert sum(end - start for start, end in drawn) >= 3


@pytest.mark.parametrize("made", [
    lambda: blanks.blanked(torch.arange(5), [(1, 3), (2, 4)], blanks.Marks(7, 8, 9)),
    lambda: blanks.blanked(torch.arange(5), [(2, 2)], blanks.Marks(7, 8, 9)),
    lambda: blanks.blanked(torch.arange(5), [(3, 6)], blanks.Marks(7, 8, 9)),
    lambda: blanks.continued(torch.arange(5), 5, blanks.Marks(7, 8, 9)),
    lambda: blanks.batch([]),
    lambda: blanks.draw_places([4, 4], 9, random.Random(0)),
    lambda: spans.corrupted(torch.arange(5), torch.ones(4).bool(), 100),
    lambda: spans.SpanNoise(1.5),
    lambda: spans.SpanNoise().draw(1, torch.Generator()),
    lambda: masked.draw(torch.zeros(2, 3).bool(), 9, torch.Generator(), share=1.5),
    lambda: masked.masked(torch.zeros(2, 3), masked.Draws(*[torch.zeros(2, 4)] * 4), 1),
])  # fmt: skip
def test_what_does_not_fit_is_refused(made: object) -> None:
    with pytest.raises(RequestError):
        made()  # type: ignore[operator]

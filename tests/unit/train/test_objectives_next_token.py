"""The next token and its labels, packed rows: against torch's own loss, and documents alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bestiary.context import Full
from bestiary.errors import RequestError
from bestiary.load import load
from bestiary.prove.places import TINY
from bestiary.train.objectives import next_token, packing
from bestiary.train.objectives.next_token import IGNORED


def example() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    labels = torch.randint(11, (3, 8))
    labels[0, :5] = IGNORED
    labels[2, 6:] = IGNORED
    return torch.randn(3, 8, 11, requires_grad=True), labels


def test_the_loss_is_torchs_of_the_token_that_follows() -> None:
    logits, labels = example()
    loss = next_token.next_token(logits, labels)
    want = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(loss, want)
    torch.testing.assert_close(*(torch.autograd.grad(each, logits) for each in (loss, want)))


def test_an_answer_is_the_sum_of_its_tokens() -> None:
    logits, labels = example()
    sums, means = next_token.answer_sum(logits, labels), next_token.answer_mean(logits, labels)
    for row in range(3):
        said = [
            logits[row, t].log_softmax(-1)[labels[row, t + 1]] for t in range(7) if labels[row, t + 1] >= 0
        ]
        torch.testing.assert_close(sums[row], torch.stack(said).sum())
        torch.testing.assert_close(means[row], torch.stack(said).mean())


def test_labels_of_prompts_and_turns() -> None:
    ids = torch.tensor([1, 5, 6, 7, 2, 8, 9, 2, 4])
    x = IGNORED
    assert next_token.completion(ids, 3).tolist() == [x, x, x, 7, 2, 8, 9, 2, 4]
    assert next_token.completion(ids, 20).tolist() == [x] * 9
    assert next_token.by_turns(ids, [3, 1], 2).tolist() == [x, x, x, 7, 2, x, 9, 2, x]
    assert next_token.by_role(ids[:3], [False, True, False]).tolist() == [x, 5, x]


def test_what_does_not_fit_is_refused() -> None:
    logits, labels = example()
    with pytest.raises(RequestError, match=r"logits \(3, 8, 11\) are not those of labels \(3, 7\)"):
        next_token.next_token(logits, labels[:, 1:])
    with pytest.raises(RequestError, match="2 turns end with token 2, and 1 prompts"):
        next_token.by_turns(torch.tensor([5, 2, 6, 2]), [1], 2)
    with pytest.raises(RequestError, match="no negative length"):
        next_token.completion(labels[0], -1)
    with pytest.raises(RequestError, match=r"ids \(8,\), learned \(2,\)"):
        next_token.by_role(labels[0], [True, False])


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "falcon"])
def test_packed_documents_are_as_alone(family: str) -> None:
    """Positions that are turned, learned and those of a bias: the logits of each, and one loss of all."""
    model = load(TINY / family).decoder
    torch.manual_seed(0)
    documents = [torch.randint(3, 90, (length,)) for length in (7, 1, 5)]
    row = packing.pack(documents)
    logits = model(row.ids, row.context())
    alone = [model(document[None], Full.of(document[None])) for document in documents]
    torch.testing.assert_close(logits, torch.cat(alone, 1), atol=1e-4, rtol=1e-4)
    total = sum(
        next_token.next_token(said, document[None]) * (len(document) - 1)
        for said, document in zip(alone, documents, strict=True)
        if len(document) > 1
    )
    assert torch.is_tensor(total)
    torch.testing.assert_close(next_token.next_token(logits, row.labels), total / 10)


def test_a_packed_row() -> None:
    row = packing.pack([torch.tensor([5, 6, 7]), torch.tensor([8, 9])])
    assert row.ids.tolist() == [[5, 6, 7, 8, 9]]
    assert row.labels.tolist() == [[IGNORED, 6, 7, IGNORED, 9]]
    assert row.positions.tolist() == [[0, 1, 2, 0, 1]]
    assert row.bounds.tolist() == [0, 3, 5]
    assert row.seen[0].long().tolist() == [
        [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 1],
    ]  # fmt: skip


def test_no_row_of_nothing() -> None:
    for documents in ([], [torch.tensor([1]), torch.tensor([], dtype=torch.int64)]):
        with pytest.raises(RequestError, match="none of them is empty"):
            packing.pack(documents)
    with pytest.raises(RequestError, match=r"document \(2,\), labels \(3,\)"):
        packing.pack([torch.tensor([1, 2])], [torch.tensor([1, 2, 3])])

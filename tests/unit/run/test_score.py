"""Scores against transformers' loss, and divergences against torch's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from bestiary.errors import RequestError
from bestiary.load import load
from bestiary.run import score
from tests import tiny


@pytest.mark.parametrize("name", ["llama", "llama-dynamic"])
def test_log_likelihoods_are_transformers_loss(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = tiny.make(name, tmp_path)
    model = load(tmp_path).decoder
    ids = torch.randint(130, (50,))
    monkeypatch.setattr(score, "ROWS", 16)  # several pieces, the last one short
    ours = score.log_likelihoods(model, ids.tolist())
    with torch.no_grad():
        logits = reference(ids[None]).logits[0].double()
        loss = reference(ids[None], labels=ids[None]).loss.item()
    theirs = logits.log_softmax(-1)[:-1].gather(-1, ids[1:, None])[:, 0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert score.perplexity(model, ids.tolist()) == pytest.approx(math.exp(loss), rel=1e-5)


def test_perplexity_by_windows(tmp_path: Path) -> None:
    reference = tiny.make("llama", tmp_path)
    model = load(tmp_path).decoder
    ids = torch.randint(130, (41,))
    losses = []
    for window in ids[:40].split(20):  # the last window has one token, and nothing to score
        with torch.no_grad():
            losses.append(reference(window[None], labels=window[None]).loss.item())
    assert score.perplexity(model, ids.tolist(), window=20) == pytest.approx(
        math.exp(sum(losses) / 2), rel=1e-5
    )


@pytest.mark.parametrize("ids", [[], [3]])
def test_too_few_tokens_are_refused(ids: list[int], tmp_path: Path) -> None:
    tiny.make("llama", tmp_path)
    model = load(tmp_path).decoder
    with pytest.raises(RequestError, match="nothing to score"):
        score.log_likelihoods(model, ids)
    with pytest.raises(RequestError, match="nothing to score"):
        score.perplexity(model, ids)


def test_kl_divergence_is_torchs() -> None:
    p, q = torch.randn(300, 40), torch.randn(300, 40)
    wanted = torch.nn.functional.kl_div(
        q.double().log_softmax(-1), p.double().log_softmax(-1), reduction="batchmean", log_target=True
    )
    assert score.kl_divergence(p, q) == pytest.approx(wanted.item(), rel=1e-12)
    assert score.kl_divergence(p, p) == 0
    assert score.kl_divergence(p, p + 5) == pytest.approx(0, abs=1e-6)  # a shift of logits is no difference


def test_top1_agreement_counts_rows() -> None:
    p = torch.randn(300, 40)
    q = p.clone()
    q[::3] = -q[::3]
    assert score.top1_agreement(p, q) == pytest.approx(200 / 300)


@pytest.mark.parametrize(
    ("p", "q"),
    [(torch.zeros(2, 3), torch.zeros(3, 3)), (torch.zeros(3), torch.zeros(3)), (torch.zeros(0, 3),) * 2],
)
def test_unlike_logits_are_refused(p: torch.Tensor, q: torch.Tensor) -> None:
    for compare in (score.kl_divergence, score.top1_agreement):
        with pytest.raises(RequestError, match="should both be"):
            compare(p, q)

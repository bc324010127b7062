"""Chinchilla's law, against numbers of its paper and against a search for its minimum."""

from __future__ import annotations

import pytest

from bestiary.errors import RequestError
from bestiary.train.scaling import CHINCHILLA


def test_chinchilla_beats_gopher_with_the_same_computation() -> None:
    """70B with 1.4T tokens against 280B with 300B, of the paper's table 1; its formula, by hand."""
    chinchilla, gopher = CHINCHILLA.loss(70e9, 1.4e12), CHINCHILLA.loss(280e9, 300e9)
    assert chinchilla < gopher
    assert chinchilla == pytest.approx(1.69 + 406.4 / 70e9**0.34 + 410.7 / 1.4e12**0.28, rel=1e-12)


@pytest.mark.parametrize("operations", [1e18, 5.76e23, 1e26])
def test_nothing_near_the_best_is_better(operations: float) -> None:
    parameters, tokens = CHINCHILLA.best(operations)
    assert 6 * parameters * tokens == pytest.approx(operations, rel=1e-12)
    least = CHINCHILLA.loss(parameters, tokens)
    for factor in (0.5, 0.99, 1.01, 2.0):
        assert least < CHINCHILLA.loss(parameters * factor, tokens / factor)


def test_parameters_and_tokens_grow_nearly_alike() -> None:
    """The printed constants give the exponents 0.45 and 0.55; the paper has 0.46 and 0.54."""
    small, large = CHINCHILLA.best(1e20), CHINCHILLA.best(1e22)
    assert large[0] / small[0] == pytest.approx(100**0.45, rel=0.01)
    assert large[1] / small[1] == pytest.approx(100**0.55, rel=0.01)


@pytest.mark.parametrize("numbers", [(0, 1e9), (1e9, -1), (float("nan"), 1e9)])
def test_impossible_numbers_are_refused(numbers: tuple[float, float]) -> None:
    with pytest.raises(RequestError, match="not a positive number"):
        CHINCHILLA.loss(*numbers)
    with pytest.raises(RequestError, match="operations: 0"):
        CHINCHILLA.best(0)

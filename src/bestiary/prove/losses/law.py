"""Chinchilla's law against what its paper prints."""

from __future__ import annotations

from ...train.scaling import CHINCHILLA
from ..finding import Finding

# Hoffmann et al., 2022, table 2: the best number of parameters grows as C^a, by the law (approach 3).
_EXPONENT = 0.46


def scaling_law() -> Finding:
    """Return whether the law says what the paper claims.

    70B with 1.4T tokens beat 280B with 300B (table 1); parameters grow with computation to the power that
    table 2 prints; and no other size of the same budget has a lower loss.
    """
    chinchilla, gopher = CHINCHILLA.loss(70e9, 1.4e12), CHINCHILLA.loss(280e9, 300e9)
    parameters, tokens = CHINCHILLA.best(5.76e23)  # Gopher's own budget
    least = CHINCHILLA.loss(parameters, tokens)
    around = [CHINCHILLA.loss(parameters * way, tokens / way) for way in (0.5, 0.9, 1.1, 2.0)]
    exponent = CHINCHILLA.beta / (CHINCHILLA.alpha + CHINCHILLA.beta)
    holds = chinchilla < gopher and least < min(around)
    note = f"70B with 1.4T tokens: {chinchilla:.3f}; 280B with 300B: {gopher:.3f}"
    found = Finding.near("loss scaling-law", abs(exponent - _EXPONENT), 0.01, note)
    return found if holds else Finding(found.what, False, found.error, found.allowed, note)

"""Chinchilla's law: the loss that a number of parameters and tokens gives, and the best of both for a budget.

Hoffmann et al., 2022, arXiv 2203.15556, section 3.3 (the parametric fit) and equation 4. The constants are
the printed ones; Besiroglu et al., 2024, arXiv 2404.10102, find that the paper's own data fit others better.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RequestError


@dataclass(frozen=True)
class ScalingLaw:
    """loss(N, D) = entropy + a / N^alpha + b / D^beta, in nats a token: N parameters, D tokens read."""

    entropy: float
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Return the loss at the end of training. Raises RequestError for numbers that are not positive."""
        _check(parameters=parameters, tokens=tokens)
        return float(self.entropy + self.a / parameters**self.alpha + self.b / tokens**self.beta)

    def best(self, operations: float) -> tuple[float, float]:
        """Return the parameters and the tokens that make the loss least for a budget of computation.

        operations: floating-point operations of the whole training, 6 for each parameter and token.
        Raises RequestError for a number that is not positive.
        """
        _check(operations=operations)
        ratio = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        parameters = ratio * (operations / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, operations / 6 / parameters


CHINCHILLA = ScalingLaw(entropy=1.69, a=406.4, b=410.7, alpha=0.34, beta=0.28)


def _check(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise RequestError(f"{name}: {number} is not a positive number")

"""A multilayer perceptron."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from bmtl.trunks._base import ACTIVATIONS, layers


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron with ``Normal(0, 1/fan-in)`` weights and ``Normal(0, 1)`` biases.

    The scaling keeps the prior over functions independent of the widths (Neal, Bayesian Learning for Neural Networks,
    1996, chapter 2).

    Parameters
    ----------
    widths : tuple of int
        Width of each hidden layer; the last is the number of features.
    activation : {"tanh", "relu"}
    """

    widths: tuple[int, ...] = (32, 32)
    activation: str = "tanh"

    linear: ClassVar[bool] = False
    learned: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"MLP needs at least one width, all ≥ 1, got {self.widths}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.activation!r}; known: {', '.join(ACTIVATIONS)}")

    def wider(self, times: int) -> MLP:
        """The same with so many times as many units in every layer."""
        return replace(self, widths=tuple(times * width for width in self.widths))

    def sample(self, e: Any, x: Any, copies: int) -> Any:
        return layers(e, "trunk_", x[None], copies, self.widths, self.activation)

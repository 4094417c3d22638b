"""A shared subspace of the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from bmtl.trunks._base import weights


@dataclass(frozen=True)
class Linear:
    """``φ(x) = x V`` with ``V ~ Normal(0, 1/d)``: a shared low-dimensional subspace of the inputs.

    Parameters
    ----------
    features : int
        Dimensions of the subspace, ≥ 1.
    """

    features: int

    linear: ClassVar[bool] = True
    learned: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.features < 1:
            raise ValueError(f"Linear needs features ≥ 1, got {self.features}")

    def wider(self, times: int) -> Linear:
        """A subspace of so many times as many dimensions."""
        return Linear(times * self.features)

    def sample(self, e: Any, x: Any, copies: int) -> Any:
        return x[None] @ weights(e, "trunk_w", copies, x.shape[-1], self.features)

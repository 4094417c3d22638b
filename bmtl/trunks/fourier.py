"""Random features of a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True)
class Fourier:
    """Random Fourier features of a squared-exponential kernel with a lengthscale per input.

    ``φ(x) = √2 [cos(Ωx/ℓ), sin(Ωx/ℓ)]`` with fixed ``Ω ~ Normal(0, 1)`` and ``log ℓ ~ Normal(log √(2d), 1)``: a
    Gaussian process whose relevant inputs the tasks share (Rahimi & Recht, 2007).

    Parameters
    ----------
    features : int
        Number of features, even and ≥ 2.
    seed : int
        Of the frequencies, which are part of the specification.
    """

    features: int = 64
    seed: int = 0

    linear: ClassVar[bool] = False
    learned: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.features < 2 or self.features % 2:
            raise ValueError(f"Fourier needs an even number of features ≥ 2, got {self.features}")

    def sample(self, e: Any, x: Any, copies: int) -> Any:
        d = x.shape[-1]
        frequencies = e.asarray(np.random.default_rng(self.seed).standard_normal((d, self.features // 2)))
        loc, one = e.asarray(0.5 * np.log(2.0 * d)), e.asarray(1.0)
        lengthscale = e.sample("trunk_lengthscale", e.dist.LogNormal(loc, one).expand([copies, d]).to_event(2))
        angle = (x / lengthscale[..., None, :]) @ frequencies
        return np.sqrt(2.0).item() * e.xp.concat([e.xp.cos(angle), e.xp.sin(angle)], axis=-1)

"""Gaussian-like outcomes whose tails are heavier."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bmtl.families._located import Located

Array = NDArray[np.float64]


class Tailed(Located):
    """u has heavy tails: a normal of random precision.

    A family says what ψ(u), the negative derivative of the log-density of u, is made of.
    """

    noise_name = "scale"

    def intercept(self, y, exposure=1.0):
        # Outliers are why the family was chosen.
        return float(np.median(y)), 1.0

    @property
    def information(self) -> float:
        """Expected Fisher information of one u about its location."""
        raise TypeError(f"{type(self).__name__} does not define its information")

    @property
    def scale_information(self) -> float:
        """Expected Fisher information of one u about the logarithm of its scale."""
        raise TypeError(f"{type(self).__name__} does not define its information about the scale")

    def pull(self, u: Array, least: float) -> Array:
        """Expected precision given u in the mixture of normals, ψ(u)/u: weights of expectation and maximisation.

        Parameters
        ----------
        least : float
            Where the precision has no bound it is that of residuals of at least this size.
        """
        raise TypeError(f"{type(self).__name__} does not define its weights")

    def bend(self, u: Array) -> Array | None:
        """ψ'(u); None where ψ jumps, and only its expectation is of use."""
        raise TypeError(f"{type(self).__name__} does not define its curvature")

    def weight(self, xp, eta, noise, exposure):
        return self.information * noise**-2 + 0.0 * eta

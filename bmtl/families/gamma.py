"""Positive outcomes whose standard deviation grows with their mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from bmtl.families._base import Family
from bmtl.families._single import LARGEST, SMALLEST

# Leaves room in float32 for a mean to be divided by the dispersion.
LOG_MEAN_LIMIT = 60.0
MIN_DISPERSION = 1e-4


@dataclass(frozen=True)
class Gamma(Family):
    """``y ~ Gamma`` with mean μ = exp(eta) and variance noise · μ².

    The noise is the dispersion, 1 / shape: the squared coefficient of variation, down to 1e-4. The weight is
    1 / noise.
    """

    name = "gamma"
    link = "log"
    noise_name = "dispersion"
    support = "numbers > 0"
    dispersed = True

    def valid(self, y):
        return (y >= SMALLEST) & (y <= LARGEST)

    def reference(self, y, exposure=1.0):
        # The squared coefficient of variation, as if nothing depended on the inputs.
        squared = float(np.var(y / np.mean(y)))
        return np.array([squared if squared > 0 else 1.0])

    def spread(self, y, exposure=1.0):
        # The standard deviation of the log, were the outcomes lognormal.
        return float(np.sqrt(np.log1p(self.reference(y)[0])))

    def intercept(self, y, exposure=1.0):
        return float(np.log(np.mean(y))), 1.5 * self.spread(y)

    def distribution(self, e: Any, eta, noise, exposure):
        shape = self._shape(e.xp, noise)
        # Not shape over mean: the derivative of that would be infinite in float32 where the mean is tiny.
        return e.dist.Gamma(shape, shape * self.mean(e.xp, -eta, noise, exposure))

    def mean(self, xp, eta, noise, exposure):
        return xp.exp(xp.clip(eta, -LOG_MEAN_LIMIT, LOG_MEAN_LIMIT))

    def weight(self, xp, eta, noise, exposure):
        return self._shape(xp, noise) + 0.0 * eta

    def score(self, y, eta, noise, exposure=1.0):
        return self._shape(np, noise) * (y / self.mean(np, eta, noise, exposure) - 1.0)

    def log_prob(self, y, eta, noise, exposure=1.0):
        shape = self._shape(np, noise)
        return stats.gamma.logpdf(y, shape, scale=self.mean(np, eta, noise, exposure) / shape)

    def estimate_noise(self, y, eta, exposure=1.0):
        return float(np.clip(np.mean((y / self.mean(np, eta, 1.0, exposure) - 1.0) ** 2), MIN_DISPERSION, 1e2))

    def draw(self, rng, eta, noise, exposure=1.0):
        shape = self._shape(np, noise)
        drawn = rng.gamma(shape, self.mean(np, eta, noise, exposure) / shape)
        return np.maximum(drawn, SMALLEST)

    def _shape(self, xp, noise):
        return 1.0 / xp.clip(noise, MIN_DISPERSION, None)

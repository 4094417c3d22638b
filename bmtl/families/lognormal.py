"""Positive outcomes with multiplicative noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from bmtl.families._base import Family
from bmtl.families._single import LARGEST, SMALLEST

# e^80 is still finite in float32.
LOG_MEAN_LIMIT = 80.0


@dataclass(frozen=True)
class LogNormal(Family):
    """``log y ~ Normal(eta, noise)``; the noise is the standard deviation of log y, the weight is 1 / noise²."""

    name = "lognormal"
    link = "log"
    noise_name = "standard deviation of the log"
    noise_is_scale = True
    support = "numbers > 0"

    def valid(self, y):
        return (y >= SMALLEST) & (y <= LARGEST)

    def spread(self, y, exposure=1.0):
        sd = float(np.std(np.log(y)))
        return sd if sd > 0 else self.amplitude

    def intercept(self, y, exposure=1.0):
        return float(np.mean(np.log(y))), self.spread(y)

    def reference(self, y, exposure=1.0):
        return np.array([self.spread(y)])

    def distribution(self, e: Any, eta, noise, exposure):
        return e.dist.LogNormal(eta, noise)

    def mean(self, xp, eta, noise, exposure):
        return xp.exp(xp.clip(eta + 0.5 * noise**2, -LOG_MEAN_LIMIT, LOG_MEAN_LIMIT))

    def weight(self, xp, eta, noise, exposure):
        return noise**-2 + 0.0 * eta

    def score(self, y, eta, noise, exposure=1.0):
        return (np.log(y) - eta) / np.square(noise)

    def log_prob(self, y, eta, noise, exposure=1.0):
        return stats.norm.logpdf(np.log(y), eta, noise) - np.log(y)

    def draw(self, rng, eta, noise, exposure=1.0):
        return np.exp(rng.normal(eta, noise).clip(-LOG_MEAN_LIMIT, LOG_MEAN_LIMIT))

    def entering(self, xp, y):
        return xp.log(y)

    def gaussian_scale(self, y):
        return np.log(y)

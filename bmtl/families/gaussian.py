"""Gaussian outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from bmtl.families._located import Located


@dataclass(frozen=True)
class Gaussian(Located):
    """``y ~ Normal(eta, noise)``; the noise is the standard deviation, the weight is 1 / noise²."""

    name = "gaussian"
    noise_name = "standard deviation"

    def intercept(self, y, exposure=1.0):
        return float(np.mean(y)), 1.0

    def distribution(self, e: Any, eta, noise, exposure):
        return e.dist.Normal(eta, noise)

    def weight(self, xp, eta, noise, exposure):
        return noise**-2 + 0.0 * eta

    def score(self, y, eta, noise, exposure=1.0):
        return (y - eta) / np.square(noise)

    def log_prob(self, y, eta, noise, exposure=1.0):
        return stats.norm.logpdf(y, eta, noise)

    def draw(self, rng, eta, noise, exposure=1.0):
        return rng.normal(eta, noise)

    def gaussian_scale(self, y):
        return y

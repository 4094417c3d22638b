"""Counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import stats

from bmtl.families._base import Family

# Rates beyond e^30 overflow float32 sums long before they describe data.
LOG_RATE_LIMIT = 30.0


@dataclass(frozen=True)
class Poisson(Family):
    """``y ~ Poisson(exposure · exp(eta))``; no noise parameter, the weight is the mean."""

    name = "poisson"
    link = "log"
    noise_name: ClassVar[str | None] = None
    takes_exposure = True
    support = "whole numbers ≥ 0"
    dispersed = True

    def valid(self, y):
        return np.isfinite(y) & (y >= 0) & (y == np.floor(y))

    def intercept(self, y, exposure=1.0):
        exposed = np.sum(np.broadcast_to(exposure, np.shape(y)))
        return float(np.log((np.sum(y) + 0.5) / exposed)), 1.5

    def distribution(self, e: Any, eta, noise, exposure):
        return e.dist.Poisson(self.mean(e.xp, eta, noise, exposure))

    def mean(self, xp, eta, noise, exposure):
        return exposure * xp.exp(xp.clip(eta, -LOG_RATE_LIMIT, LOG_RATE_LIMIT))

    def weight(self, xp, eta, noise, exposure):
        return self.mean(xp, eta, noise, exposure)

    def score(self, y, eta, noise=1.0, exposure=1.0):
        return y - self.mean(np, eta, noise, exposure)

    def log_prob(self, y, eta, noise=1.0, exposure=1.0):
        return stats.poisson.logpmf(y, self.mean(np, eta, noise, exposure))

    def draw(self, rng, eta, noise=1.0, exposure=1.0):
        return rng.poisson(self.mean(np, eta, noise, exposure)).astype(float)

"""Gaussian-like outcomes around a median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from bmtl.families._tailed import Tailed


@dataclass(frozen=True)
class Laplace(Tailed):
    """``y ~ Laplace(eta, noise)``; the noise is the scale b, the mean absolute deviation, the weight is 1 / b².

    Its mode is least absolute deviations: a regression of the median (Koenker, Quantile Regression, 2005).
    """

    name = "laplace"

    def distribution(self, e: Any, eta, noise, exposure):
        return e.dist.Laplace(eta, noise)

    @property
    def information(self):
        return 1.0

    @property
    def scale_information(self):
        return 1.0

    def pull(self, u, least):
        return 1.0 / np.maximum(np.abs(u), least)

    def bend(self, u):
        return None

    def score(self, y, eta, noise, exposure=1.0):
        return np.sign(y - eta) / noise

    def log_prob(self, y, eta, noise, exposure=1.0):
        return stats.laplace.logpdf(y, eta, noise)

    def draw(self, rng, eta, noise, exposure=1.0):
        return rng.laplace(eta, noise)

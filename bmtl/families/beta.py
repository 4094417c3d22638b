"""Shares: outcomes between 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

from bmtl.families._base import Family
from bmtl.families._single import BELOW_ONE, SMALLEST, trigamma

# Beyond, one of the beta's two parameters would be too small for its gamma function in float32.
LOGIT_LIMIT = 20.0
MIN_DISPERSION = 1e-4


@dataclass(frozen=True)
class Beta(Family):
    """``y ~ Beta(μ / noise, (1 − μ) / noise)`` with mean μ = logistic(eta).

    The variance is μ (1 − μ) · noise / (1 + noise): the mean and precision parametrisation of Ferrari & Cribari-Neto
    ("Beta regression for modelling rates and proportions", 2004), with the noise as the dispersion, 1 / precision,
    down to 1e-4. Fits are in single precision, which holds few digits of 1 − y where that is below about 1e-5: model
    the other share where many are. The weight is [μ (1 − μ) / noise]² [ψ′(μ / noise) + ψ′((1 − μ) / noise)].
    """

    name = "beta"
    link = "logit"
    noise_name = "dispersion"
    support = "numbers between 0 and 1, neither of them included"
    amplitude = 1.5
    dispersed = True
    filler = 0.5

    def valid(self, y):
        return (y >= SMALLEST) & (y <= BELOW_ONE)

    def reference(self, y, exposure=1.0):
        # The dispersion, as if nothing depended on the inputs.
        mean = float(np.mean(y))
        share = float(np.var(y)) / (mean * (1.0 - mean))
        return np.array([share / (1.0 - share) if 0 < share < 1 else 1.0])

    def spread(self, y, exposure=1.0):
        # Seen from the mean, a spread of the outcomes is this much on the logit scale.
        mean = float(np.mean(y))
        spread = float(np.std(y)) / (mean * (1.0 - mean))
        return min(spread, self.amplitude) if spread > 0 else self.amplitude

    def intercept(self, y, exposure=1.0):
        return float(special.logit(np.mean(y))), self.spread(y)

    def distribution(self, e: Any, eta, noise, exposure):
        return e.dist.Beta(*self._parameters(e.xp, eta, noise))

    def mean(self, xp, eta, noise, exposure):
        return 1.0 / (1.0 + xp.exp(-xp.clip(eta, -LOGIT_LIMIT, LOGIT_LIMIT)))

    def weight(self, xp, eta, noise, exposure):
        a, b = self._parameters(xp, eta, noise)
        # Each trigamma times the square of the harmonic part, so that neither overflows where its parameter is small.
        half = a * b / (a + b)
        return half**2 * (trigamma(a) + trigamma(b))

    def score(self, y, eta, noise, exposure=1.0):
        a, b = self._parameters(np, eta, noise)
        return a * b / (a + b) * (special.logit(y) - special.digamma(a) + special.digamma(b))

    def log_prob(self, y, eta, noise, exposure=1.0):
        return stats.beta.logpdf(y, *self._parameters(np, eta, noise))

    def estimate_noise(self, y, eta, exposure=1.0):
        mean = self.mean(np, eta, 1.0, exposure)
        share = np.sum((y - mean) ** 2) / np.sum(mean * (1.0 - mean))
        return float(np.clip(share / max(1.0 - share, 1e-2), MIN_DISPERSION, 1e2))

    def draw(self, rng, eta, noise, exposure=1.0):
        return rng.beta(*self._parameters(np, eta, noise)).clip(SMALLEST, BELOW_ONE)

    def _parameters(self, xp, eta, noise):
        precision = 1.0 / xp.clip(noise, MIN_DISPERSION, None)
        return self.mean(xp, eta, noise, 1.0) * precision, self.mean(xp, -eta, noise, 1.0) * precision

"""Overdispersed counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from bmtl.families.poisson import Poisson


@dataclass(frozen=True)
class NegativeBinomial(Poisson):
    """Poisson counts with gamma-distributed rates (the "NB2" form).

    With mean μ = exposure · exp(eta) the variance is μ + noise · μ²: the noise is the overdispersion, 0 would be
    Poisson. The weight is μ / (1 + noise · μ).
    """

    name = "negative_binomial"
    noise_name = "overdispersion"

    def distribution(self, e: Any, eta, noise, exposure):
        mean = self.mean(e.xp, eta, noise, exposure)
        # Floored so that overdispersion near zero does not overflow the gamma's parameters in float32.
        concentration = 1.0 / e.xp.clip(noise, 1e-4, None)
        return e.dist.GammaPoisson(concentration, concentration / mean)

    def weight(self, xp, eta, noise, exposure):
        mean = self.mean(xp, eta, noise, exposure)
        return mean / (1.0 + noise * mean)

    def score(self, y, eta, noise=1.0, exposure=1.0):
        mean = self.mean(np, eta, noise, exposure)
        return (y - mean) / (1.0 + noise * mean)

    def log_prob(self, y, eta, noise=1.0, exposure=1.0):
        mean = self.mean(np, eta, noise, exposure)
        concentration = 1.0 / np.maximum(noise, 1e-4)
        return stats.nbinom.logpmf(y, concentration, concentration / (concentration + mean))

    def estimate_noise(self, y, eta, exposure=1.0):
        # By moments: Σ (y − μ)² = Σ μ + noise Σ μ².
        mean = self.mean(np, eta, 1.0, exposure)
        return float(np.clip(np.sum((y - mean) ** 2 - mean) / np.sum(mean**2), 1e-3, 1e2))

    def draw(self, rng, eta, noise=1.0, exposure=1.0):
        concentration = 1.0 / np.maximum(noise, 1e-4)
        mean = self.mean(np, eta, noise, exposure)
        shape = np.broadcast_shapes(np.shape(mean), np.shape(concentration))
        return rng.poisson(mean / concentration * rng.gamma(concentration, size=shape)).astype(float)

"""Counts with more zeros than their rate explains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from bmtl.families.poisson import Poisson

# A gate of exactly 0 or 1 has a log-density of −∞ somewhere.
MIN_GATE = 1e-6


@dataclass(frozen=True)
class ZeroInflatedPoisson(Poisson):
    """Zero with probability ``noise``, else ``Poisson(exposure · exp(eta))`` (Lambert, Technometrics, 1992).

    The noise is the probability of an extra zero, uniform a priori whatever the model's prior on noises. The weight
    is (1 − noise) λ (1 − noise λ exp(−λ) / p₀) with the rate λ and the probability p₀ of any zero.
    """

    name = "zero_inflated_poisson"
    noise_name = "probability of an extra zero"

    def intercept(self, y, exposure=1.0):
        exposure = np.broadcast_to(exposure, np.shape(y))
        loc, scale = super().intercept(y, exposure)
        # Moments with extra zeros: Σ y = (1 − noise) rate Σ exposure, Σ y (y − 1) = (1 − noise) rate² Σ exposure².
        pairs = np.sum(y * (y - 1.0)) / np.sum(exposure**2)
        if pairs > 0:
            loc = max(loc, float(np.log(pairs * np.sum(exposure) / np.sum(y))))
        return loc, scale

    def sample_noise(self, e: Any, name, prior, unit, reference):
        one = e.asarray(np.ones(len(unit)))
        return e.sample(name, e.dist.Beta(one, one).to_event(1))

    def distribution(self, e: Any, eta, noise, exposure):
        gate = e.xp.clip(noise, MIN_GATE, 1.0 - MIN_GATE)
        rate = super().mean(e.xp, eta, noise, exposure)
        # Both of one shape: Pyro's draws do not broadcast.
        return e.dist.ZeroInflatedPoisson(rate=rate + 0.0 * gate, gate=gate + 0.0 * rate)

    def mean(self, xp, eta, noise, exposure):
        return (1.0 - noise) * super().mean(xp, eta, noise, exposure)

    def weight(self, xp, eta, noise, exposure):
        rate = super().mean(xp, eta, noise, exposure)
        kept = (1.0 - noise) * xp.exp(-rate)
        return (1.0 - noise) * rate * (1.0 - noise * rate * xp.exp(-rate) / (noise + kept + MIN_GATE**2))

    def score(self, y, eta, noise=0.0, exposure=1.0):
        rate = super().mean(np, eta, noise, exposure)
        kept = (1.0 - noise) * np.exp(-rate)
        return np.where(y == 0, -rate * kept / np.maximum(noise + kept, MIN_GATE**2), y - rate)

    def log_prob(self, y, eta, noise=0.0, exposure=1.0):
        noise = np.clip(noise, MIN_GATE, 1.0 - MIN_GATE)
        usual = np.log1p(-noise) + stats.poisson.logpmf(y, super().mean(np, eta, noise, exposure))
        return np.where(y == 0, np.logaddexp(np.log(noise), usual), usual)

    def estimate_noise(self, y, eta, exposure=1.0):
        # Zeros seen = Σ noise + (1 − noise) exp(−λ).
        usual = np.sum(np.exp(-super().mean(np, eta, 0.0, exposure)))
        return float(np.clip((np.sum(y == 0) - usual) / max(np.size(y) - usual, 1e-6), 1e-3, 0.99))

    def draw(self, rng, eta, noise=0.0, exposure=1.0):
        usual = rng.poisson(super().mean(np, eta, noise, exposure) + 0.0 * np.asarray(noise))
        return np.where(rng.random(usual.shape) < noise, 0.0, usual)

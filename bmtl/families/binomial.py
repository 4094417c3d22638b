"""Numbers of successes in known numbers of trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

from bmtl.families._base import Family
from bmtl.families._single import logistic


@dataclass(frozen=True)
class Binomial(Family):
    """``y ~ Binomial(trials, logistic(eta))``; no noise parameter, the weight is trials · p (1 − p).

    The exposure of an outcome is its number of trials. It has to be given.
    """

    name = "binomial"
    link = "logit"
    noise_name = None
    takes_exposure = True
    needs_exposure = True
    support = "whole numbers ≥ 0"
    exposures = "the number of trials: whole, ≥ 1 and not below the outcome"
    amplitude = 1.5
    dispersed = True

    def valid(self, y):
        return np.isfinite(y) & (y >= 0) & (y == np.floor(y))

    def valid_exposure(self, y, exposure):
        return np.isfinite(exposure) & (exposure >= 1) & (exposure == np.floor(exposure)) & (y <= exposure)

    def intercept(self, y, exposure=1.0):
        trials = np.sum(np.broadcast_to(exposure, np.shape(y)))
        # Half a success and half a failure keep the logit finite for rare outcomes.
        return float(special.logit((np.sum(y) + 0.5) / (trials + 1.0))), 1.5

    def distribution(self, e: Any, eta, noise, exposure):
        # NumPyro draws only from integers.
        return e.dist.Binomial(total_count=e.xp.astype(exposure, e.xp.int32), logits=eta)

    def mean(self, xp, eta, noise, exposure):
        return exposure * logistic(xp, eta)

    def weight(self, xp, eta, noise, exposure):
        return exposure * logistic(xp, eta) * logistic(xp, -eta)

    def score(self, y, eta, noise=1.0, exposure=1.0):
        return y - exposure * special.expit(eta)

    def log_prob(self, y, eta, noise=1.0, exposure=1.0):
        return stats.binom.logpmf(y, exposure, special.expit(eta))

    def draw(self, rng, eta, noise=1.0, exposure=1.0):
        return rng.binomial(np.asarray(exposure, dtype=np.int64), special.expit(eta)).astype(float)

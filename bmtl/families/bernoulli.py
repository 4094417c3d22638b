"""Yes/no outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from bmtl.families._base import Family


@dataclass(frozen=True)
class Bernoulli(Family):
    """``y ~ Bernoulli(logistic(eta))``; no noise parameter, the weight is p (1 - p)."""

    name = "bernoulli"
    link = "logit"
    noise_name = None
    support = "0 or 1"
    amplitude = 1.5

    def valid(self, y):
        return (y == 0) | (y == 1)

    def intercept(self, y, exposure=1.0):
        # Half a success and half a failure keep the logit finite for rare outcomes.
        return float(special.logit((np.sum(y) + 0.5) / (np.size(y) + 1.0))), 1.5

    def distribution(self, e: Any, eta, noise, exposure):
        return e.dist.Bernoulli(logits=eta)

    def mean(self, xp, eta, noise, exposure):
        return 1.0 / (1.0 + xp.exp(-eta))

    def weight(self, xp, eta, noise, exposure):
        p = self.mean(xp, eta, noise, exposure)
        return p * (1.0 - p)

    def score(self, y, eta, noise=1.0, exposure=1.0):
        return y - special.expit(eta)

    def log_prob(self, y, eta, noise=1.0, exposure=1.0):
        return special.log_expit(np.where(y == 1, eta, -eta))

    def draw(self, rng, eta, noise=1.0, exposure=1.0):
        return (rng.random(np.shape(eta)) < special.expit(eta)).astype(float)

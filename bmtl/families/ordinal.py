"""Outcomes that are one of several levels in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from bmtl.families._labelled import Labelled, pick
from bmtl.families._single import log_logistic, logistic

# Levels whose cutpoints meet would have probability zero.
MIN_GAP = 1e-6


@dataclass(frozen=True)
class Ordinal(Labelled):
    """``P(y ≤ k) = logistic(c_k − eta)`` with cutpoints 0 = c_0 < c_1 < … (McCullagh, JRSS B, 1980).

    The first cutpoint is 0 because the intercept is free. The noise is the vector of gaps between cutpoints, one fewer
    than there are cutpoints, lognormal a priori around the gaps that the shares of the levels have without inputs,
    whatever the model's prior on noises. The weight is Σ_k p_k (d log p_k / d eta)².

    Parameters
    ----------
    levels : tuple of str
        At least three, in ascending order, which is that of the outcomes' codes 0, 1, …. Default: those found in the
        data.
    """

    levels: tuple[str, ...] = ()

    name = "ordinal"
    link = "logit"
    noise_name = "gaps between cutpoints"
    noise_dims = 1
    ordered = True
    field = "levels"

    def intercept(self, y, exposure=1.0):
        return -float(special.logit(self.shares(y)[0])), 1.5

    def reference(self, y, exposure=1.0):
        return np.diff(special.logit(np.cumsum(self.shares(y))[:-1]))

    def sample_noise(self, e: Any, name, prior, unit, reference):
        scale = e.asarray(np.ones(reference.shape))
        return e.sample(name, e.dist.LogNormal(e.xp.log(e.asarray(reference)), scale).to_event(2))

    def log_pmf(self, xp: Any, eta, noise):
        gaps = xp.clip(noise, MIN_GAP, None)
        below = _logits_below(xp, eta, gaps)
        at_most, above = log_logistic(xp, below), log_logistic(xp, -below)
        # σ(b) − σ(a) = σ(b) σ(−a) (1 − exp(a − b)): no difference of nearly equal numbers.
        inner = at_most[..., 1:] + above[..., :-1] + xp.log(-xp.expm1(-gaps))
        return xp.concat([at_most[..., :1], inner, above[..., -1:]], axis=-1)

    def weight(self, xp, eta, noise, exposure):
        return xp.sum(xp.exp(self.log_pmf(xp, eta, noise)) * self._scores(xp, eta, noise) ** 2, axis=-1)

    def score(self, y, eta, noise, exposure=1.0):
        return pick(self._scores(np, eta, np.asarray(noise)), y)

    def estimate_noise(self, y, eta, exposure=1.0):
        # Each cutpoint where the expected share of outcomes up to its level is the observed one, by bisection.
        share = np.cumsum(self.shares(y))[:-1]
        low, high = np.full(len(share), np.min(eta) - 40.0), np.full(len(share), np.max(eta) + 40.0)
        for _ in range(60):
            middle = 0.5 * (low + high)
            few = np.mean(special.expit(middle - np.asarray(eta)[:, None]), axis=0) < share
            low, high = np.where(few, middle, low), np.where(few, high, middle)
        return np.maximum(np.diff(0.5 * (low + high)), MIN_GAP)

    def _scores(self, xp, eta, noise):
        """d log p_k / d eta = σ(c_{k−1} − eta) + σ(c_k − eta) − 1 of every level."""
        at_most = logistic(xp, _logits_below(xp, eta, xp.clip(noise, MIN_GAP, None)))
        none = 0.0 * at_most[..., :1]
        padded = xp.concat([none, at_most, none + 1.0], axis=-1)
        return padded[..., :-1] + padded[..., 1:] - 1.0


def _logits_below(xp: Any, eta: Any, gaps: Any) -> Any:
    """c_k − eta for every cutpoint, in the last dimension."""
    cuts = [0.0 * gaps[..., 0]]
    for k in range(gaps.shape[-1]):
        cuts.append(cuts[-1] + gaps[..., k])
    return xp.stack(cuts, axis=-1) - eta[..., None]

"""Outcomes that are one of several categories without an order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bmtl.families._labelled import Labelled

# Below it, one category has all the probability in float32.
MIN_TEMPERATURE = 1e-2


@dataclass(frozen=True)
class Categorical(Labelled):
    """``P(y = k) ∝ exp(eta_k / noise)``, one linear predictor a category; the noise is the temperature.

    The temperature is what a classification task's cross-entropy is weighted by in Kendall, Gal & Cipolla (CVPR 2018,
    equation 7). The weight is the mean over the predictors of p_k (1 − p_k) / noise². All categories are treated
    alike: what is added to all predictors cancels, and only the priors hold it.

    Parameters
    ----------
    categories : tuple of str
        At least three, in the order of the outcomes' codes 0, 1, …. Default: those found in the data.
    """

    categories: tuple[str, ...] = ()

    name = "categorical"
    link = "softmax"
    noise_name = "temperature"
    noise_is_scale = True
    ordered = False
    field = "categories"

    @property
    def n_predictors(self) -> int:
        return len(self.categories)

    def intercept(self, y, exposure=1.0):
        loc = np.log(self.shares(y))
        return loc - np.mean(loc), 1.5

    def log_pmf(self, xp: Any, eta, noise):
        z = eta / xp.clip(noise, MIN_TEMPERATURE, None)[..., None]
        z = z - xp.max(z, axis=-1, keepdims=True)
        return z - xp.log(xp.sum(xp.exp(z), axis=-1, keepdims=True))

    def identified(self, xp, eta, noise):
        return self.log_pmf(xp, eta, noise)

    def weight(self, xp, eta, noise, exposure):
        p = self.mean(xp, eta, noise, exposure)
        # Σ p (1 − p) = 2 Σ_{j<k} p_j p_k, which holds in float32 where a p is close to 1 too.
        pairs, before = 0.0, 0.0 * p[..., 0]
        for k in range(self.n_predictors):
            pairs = pairs + p[..., k] * before
            before = before + p[..., k]
        return 2.0 / self.n_predictors * pairs / xp.clip(noise, MIN_TEMPERATURE, None) ** 2

    def score(self, y, eta, noise=1.0, exposure=1.0):
        own = np.asarray(y)[..., None] == np.arange(self.n_predictors)
        noise = np.maximum(np.asarray(noise), MIN_TEMPERATURE)
        return (own - self.mean(np, eta, noise, exposure)) / noise[..., None]

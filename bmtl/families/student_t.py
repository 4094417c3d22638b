"""Gaussian-like outcomes with heavy tails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from bmtl.families._base import Family


@dataclass(frozen=True)
class StudentT(Family):
    """``y ~ StudentT(dof, eta, noise)``; the noise is the scale, the weight is (ν+1) / ((ν+3) noise²).

    Parameters
    ----------
    dof : float
        Degrees of freedom ν, > 2 so that the variance exists. The default of 4 is the usual robust choice
        (Gelman et al., Bayesian Data Analysis, 3rd ed., section 17.2).
    """

    dof: float = 4.0

    name = "student_t"
    link = "identity"
    noise_name = "scale"
    noise_is_scale = True
    standardised = True
    support = "finite numbers"

    def __post_init__(self) -> None:
        if not self.dof > 2:
            raise ValueError(f"StudentT needs dof > 2 for a finite variance, got {self.dof}")

    def valid(self, y):
        return np.isfinite(y)

    def intercept(self, y, exposure=1.0):
        return float(np.median(y)), 1.0

    def distribution(self, e: Any, eta, noise, exposure):
        return e.dist.StudentT(e.asarray(self.dof), eta, noise)

    def mean(self, xp, eta, noise, exposure):
        return eta

    def weight(self, xp, eta, noise, exposure):
        return (self.dof + 1) / (self.dof + 3) * noise**-2 + 0.0 * eta

    def score(self, y, eta, noise, exposure=1.0):
        residual = y - eta
        return (self.dof + 1) * residual / (self.dof * np.square(noise) + residual**2)

    def log_prob(self, y, eta, noise, exposure=1.0):
        return stats.t.logpdf(y, self.dof, eta, noise)

    def draw(self, rng, eta, noise, exposure=1.0):
        shape = np.broadcast_shapes(np.shape(eta), np.shape(noise))
        return eta + noise * rng.standard_t(self.dof, size=shape)

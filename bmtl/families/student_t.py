"""Gaussian-like outcomes with outliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from bmtl.families._tailed import Tailed


@dataclass(frozen=True)
class StudentT(Tailed):
    """``y ~ StudentT(dof, eta, noise)``; the noise is the scale, the weight is (ν+1) / ((ν+3) noise²).

    Parameters
    ----------
    dof : float
        Degrees of freedom ν, > 2 so that the variance exists. The default of 4 is the usual robust choice
        (Gelman et al., Bayesian Data Analysis, 3rd ed., section 17.2).
    """

    dof: float = 4.0

    name = "student_t"

    def __post_init__(self) -> None:
        if not self.dof > 2:
            raise ValueError(f"StudentT needs dof > 2 for a finite variance, got {self.dof}")

    def distribution(self, e: Any, eta, noise, exposure):
        return e.dist.StudentT(e.asarray(self.dof), eta, noise)

    @property
    def information(self):
        return (self.dof + 1) / (self.dof + 3)

    @property
    def scale_information(self):
        return 2 * self.dof / (self.dof + 3)

    def pull(self, u, least):
        return (self.dof + 1) / (self.dof + u**2)

    def bend(self, u):
        return (self.dof + 1) * (self.dof - u**2) / (self.dof + u**2) ** 2

    def score(self, y, eta, noise, exposure=1.0):
        residual = y - eta
        return (self.dof + 1) * residual / (self.dof * np.square(noise) + residual**2)

    def log_prob(self, y, eta, noise, exposure=1.0):
        return stats.t.logpdf(y, self.dof, eta, noise)

    def draw(self, rng, eta, noise, exposure=1.0):
        shape = np.broadcast_shapes(np.shape(eta), np.shape(noise))
        return eta + noise * rng.standard_t(self.dof, size=shape)

"""Heads around a common mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bmtl.arrangement import Plan
from bmtl.data import Design
from bmtl.noise import Scale
from bmtl.relations._base import Gaussian, Heads


@dataclass(frozen=True)
class Exchangeable:
    """The hierarchical model: intercept and head of each task scatter around a common mean with a full covariance.

        β_h = (b_h, w_h) = μ + diag(s) L z_h,   z_h ~ Normal(0, I),   L Lᵀ ~ LKJ(concentration)

    for heads on the same trunk. The prior on the scales s is the model's ``amplitude``, on the scale of standardised
    outcomes; the intercepts lie around the mean intercept of the tasks of a family (Gelman & Hill, Data Analysis
    Using Regression and Multilevel/Hierarchical Models, 2007, section 13.3). Made for many tasks of one kind, such as
    those of `Tasks.from_groups`.

    Sites: ``head`` is z, ``head_mean`` μ, ``head_scale`` s and ``head_correlation`` L, intercepts first.

    Parameters
    ----------
    concentration : float
        > 0. Of the LKJ prior; 1 is uniform over correlation matrices, more favours weak correlations.
    """

    concentration: float = 2.0

    def __post_init__(self) -> None:
        if not self.concentration > 0:
            raise ValueError(f"Exchangeable needs a concentration > 0, got {self.concentration}")

    def sample(self, e: Any, plan: Plan, design: Design, k: int, amplitude: Scale) -> Heads:
        mean, factor = self._hyper(e, plan, design, k, amplitude)
        z = e.sample("head", e.dist.Normal(e.asarray(0.0), e.asarray(1.0)).expand([plan.n_heads, k + 1]).to_event(2))
        beta = mean + (factor @ z[..., None])[..., 0]
        centre, size = _family_scale(e, plan, design)
        return Heads(
            w=beta[..., 1:],
            intercept=centre + size * e.take(beta[..., 0], plan.head_of, -1),
            amplitude=e.asarray(design.amplitude_scale),
        )

    def gaussian(self, e: Any, plan: Plan, design: Design, k: int, amplitude: Scale) -> Gaussian:
        mean, factor = self._hyper(e, plan, design, k, amplitude)
        centre, size = _family_scale(e, plan, design)
        first = np.arange(k + 1) == 0
        scale = size[:, None] * e.asarray(np.where(first, 1.0, plan.sign[:, None]))
        loc = scale * e.take(mean, plan.head_of, -2) + centre[:, None] * e.asarray(first)
        return Gaussian(loc, scale[..., None] * e.take(factor, plan.head_of, -3))

    def sites(self, plan: Plan, design: Design, z: Any) -> dict[str, Any]:
        return {"head": z[..., np.argsort(plan.head_of), :]}

    def _hyper(self, e: Any, plan: Plan, design: Design, k: int, amplitude: Scale) -> tuple[Any, Any]:
        """Mean, ``heads × (k + 1)``, and factor of the covariance, ``heads × (k + 1) × (k + 1)``."""
        trunks, q = plan.n_trunks, k + 1
        size = design.intercept_scale.mean() / design.amplitude_scale.mean()
        first = np.arange(q) == 0
        sd = e.asarray(first * size + ~first) * e.asarray(np.ones((trunks, 1)))
        mean = e.sample("head_mean", e.dist.Normal(0.0 * sd, sd).to_event(2))
        flat = amplitude.sample(e, "head_scale", np.ones(trunks * q), np.ones(trunks * q))
        scale = flat.reshape(*flat.shape[:-1], trunks, q)
        prior = e.dist.LKJCholesky(q, e.asarray(self.concentration))
        tril = e.sample("head_correlation", prior.expand([trunks]).to_event(1))
        factor = scale[..., None] * tril
        return e.take(mean, plan.trunk_of_head, -2), e.take(factor, plan.trunk_of_head, -3)


def _family_scale(e: Any, plan: Plan, design: Design) -> tuple[Any, Any]:
    """Mean intercept over the tasks of its family, and amplitude, of each linear predictor."""
    places, means = [], []
    for members in design.groups.values():
        own = np.flatnonzero(np.isin(plan.task_of, members)).reshape(len(members), -1)
        places.append(own.ravel())
        mean = e.asarray(design.intercept_loc[own].mean(axis=0))
        means.append(e.take(mean, np.arange(own.size) % own.shape[1], -1))
    centre = e.take(e.xp.concat(means), np.argsort(np.concatenate(places)), -1)
    return centre, e.asarray(design.amplitude_scale[plan.task_of])

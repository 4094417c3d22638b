"""Heads that are correlated with each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmtl.arrangement import Plan
from bmtl.data import Design
from bmtl.noise import Scale
from bmtl.relations._base import Gaussian, Heads, free_amplitude, free_intercept, free_scale, free_sites


@dataclass(frozen=True)
class Correlated:
    """Matrix-normal heads: ``W = L Z`` with ``L Lᵀ ~ LKJ(concentration)`` a correlation between the heads of a trunk.

    The task relationships of Zhang & Yeung ("A convex formulation for learning task relationships in multi-task
    learning", UAI 2010) with a posterior. A negative correlation is as useful as a positive one.

    Sites: ``head`` is Z, ``head_correlation`` L (of the second trunk ``head_correlation_1``, and so on).

    Parameters
    ----------
    concentration : float
        > 0. Of the LKJ prior; 1 is uniform over correlation matrices, more favours weak correlations.
    """

    concentration: float = 1.0

    def __post_init__(self) -> None:
        if not self.concentration > 0:
            raise ValueError(f"Correlated needs a concentration > 0, got {self.concentration}")

    def sample(self, e: Any, plan: Plan, design: Design, k: int, amplitude: Scale) -> Heads:
        tril = self._tril(e, plan)
        z = e.sample("head", e.dist.Normal(e.asarray(0.0), e.asarray(1.0)).expand([plan.n_heads, k]).to_event(2))
        return Heads(
            tril @ z, amplitude=free_amplitude(e, design, amplitude), intercept=free_intercept(e, design)
        )

    def gaussian(self, e: Any, plan: Plan, design: Design, k: int, amplitude: Scale) -> Gaussian:
        tril = e.take(e.take(self._tril(e, plan), plan.head_of, -2), plan.head_of, -1)
        loc, scale = free_scale(e, plan, design, k, amplitude)
        n, q = len(plan.head_of), k + 1
        # Coefficients of one feature are correlated over the tasks; intercepts, which come first, are not.
        first = e.asarray(np.arange(q) == 0)[:, None, None] > 0
        between = e.xp.moveaxis(e.xp.where(first, e.asarray(np.eye(n)), tril[..., None, :, :]), -3, -2)
        factor = scale[..., None, None] * between[..., None] * e.asarray(np.eye(q))[:, None, :]
        return Gaussian(loc, factor.reshape(*factor.shape[:-2], n * q), coupled=True)

    def sites(self, plan: Plan, design: Design, z: Any) -> dict[str, Any]:
        return free_sites(plan, design, z)

    def pairs(self, sites: Mapping[str, Any], plan: Plan) -> dict[str, np.ndarray]:
        """``rho``: the prior correlation of two linear predictors' heads, signs included, ``draws × P × P``."""
        from bmtl.engine.replay import Replay

        tril = np.asarray(self._tril(Replay(sites), plan), dtype=float)[..., plan.head_of, :]
        return {"rho": tril @ np.swapaxes(tril, -1, -2) * np.outer(plan.sign, plan.sign)}

    def _tril(self, e: Any, plan: Plan) -> Any:
        """Cholesky factor of the heads' correlation, ``H × H``; heads of different trunks are independent."""
        tril = 0.0
        for trunk in range(plan.n_trunks):
            (on,) = np.nonzero(plan.trunk_of_head == trunk)
            place = e.asarray(np.eye(plan.n_heads)[on])
            own = e.asarray(np.ones((1, 1)))
            if len(on) > 1:
                prior = e.dist.LKJCholesky(len(on), e.asarray(self.concentration))
                own = e.sample("head_correlation" if trunk == 0 else f"head_correlation_{trunk}", prior)
            tril = tril + place.T @ own @ place
        return tril

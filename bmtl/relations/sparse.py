"""Heads that read few of the features, most of them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bmtl.arrangement import Plan
from bmtl.data import Design
from bmtl.noise import Scale, positive
from bmtl.relations._base import Gaussian, Heads, free_amplitude, free_intercept, free_scale, free_sites

EXPECTED_SHARE = 0.2
"""Share of the features expected to matter, unless told."""


@dataclass(frozen=True)
class Sparse:
    """Regularised horseshoe over features × heads, with a scale a feature and a scale a cell.

        w_hj/√k = s_hj z_hj / √(1 + p₀ s_hj²),   s_hj² = τ² (r_j² + q_hj²),   z ~ Normal(0, 1)
        r_j, q_hj ~ HalfCauchy(1),   τ ~ HalfCauchy(τ₀),   τ₀ = p₀/(k − p₀)/√n

    r_j lets feature j into all heads of a trunk (the Bayesian twin of the L₂,₁ norm), q_hj into one: the row-sparse
    plus cell-sparse "dirty model" of Jalali et al. (NeurIPS 2010) with the prior of Piironen & Vehtari ("Sparsity
    information and regularization in the horseshoe and other shrinkage priors", EJS 2017, equation 2.8). With the
    trunk `Identity` the features are the inputs.

    The amplitude a_t stays the size of a task's function: it multiplies the slab, which is fixed at 1/√p₀, so that p₀
    relevant features make a function of unit scale. τ says how small the other coefficients are beside those, as a
    fraction of the amplitude: τ₀ expects p₀ of k coefficients to stand out from n rows whose noise is as large as the
    amplitude (their equation 3.12).

    Sites: ``head`` is z, ``head_row`` r (a row a trunk), ``head_cell`` q, ``head_global`` τ.

    Parameters
    ----------
    expected : float, optional
        p₀ > 0: features expected to matter to a head, fewer than there are. Default: a fifth of them.
    """

    expected: float | None = None

    def __post_init__(self) -> None:
        if self.expected is not None:
            positive("Sparse", "expected", self.expected)

    def sample(self, e: Any, plan: Plan, design: Design, k: int, amplitude: Scale) -> Heads:
        scale = self._scale(e, plan, design, k)
        z = e.sample("head", e.dist.Normal(e.asarray(0.0), e.asarray(1.0)).expand([plan.n_heads, k]).to_event(2))
        return Heads(
            k**0.5 * scale * z, amplitude=free_amplitude(e, design, amplitude), intercept=free_intercept(e, design)
        )

    def gaussian(self, e: Any, plan: Plan, design: Design, k: int, amplitude: Scale) -> Gaussian:
        own = k**0.5 * e.take(self._scale(e, plan, design, k), plan.head_of, -2)
        loc, scale = free_scale(e, plan, design, k, amplitude)
        one = e.asarray(np.ones((len(plan.head_of), 1)))
        own = e.xp.concat([e.xp.broadcast_to(one, (*own.shape[:-1], 1)), own], axis=-1)
        return Gaussian(loc, (scale * own)[..., None] * e.asarray(np.eye(k + 1)))

    def sites(self, plan: Plan, design: Design, z: Any) -> dict[str, Any]:
        return free_sites(plan, design, z)

    def _scale(self, e: Any, plan: Plan, design: Design, k: int) -> Any:
        """Scale of the coefficients ``w/√k``, ``H × k``.

        Raises
        ------
        ValueError
            If as many features are expected to matter as there are.
        """
        expected = EXPECTED_SHARE * k if self.expected is None else self.expected
        if expected >= k:
            raise ValueError(f"Sparse expects {expected:g} features to matter, but there are only {k}")
        row, cell, tau = (
            e.sample(name, e.dist.HalfCauchy(e.asarray(np.full(shape, scale))).to_event(2))
            for name, shape, scale in [
                ("head_row", (plan.n_trunks, k), 1.0),
                ("head_cell", (plan.n_heads, k), 1.0),
                ("head_global", (1, 1), expected / (k - expected) / design.n_rows**0.5),
            ]
        )
        scale = tau * e.xp.sqrt(e.take(row, plan.trunk_of_head, -2) ** 2 + cell**2)
        # The slab: with fewer than one feature expected the function is still of unit scale, not larger.
        return scale / e.xp.sqrt(1.0 + max(expected, 1.0) * scale**2)


__all__ = ["Sparse"]

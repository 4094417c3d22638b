"""Heads in clusters whose number is not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmtl.arrangement import Plan
from bmtl.data import Design
from bmtl.noise import Scale
from bmtl.relations._base import Heads, free_amplitude, free_intercept, log_shares, stick_breaking

MOST = 8
"""Clusters at the most, unless told."""

WITHIN = (2.0, 8.0)
"""Beta prior of the share of a head's variance that is its own: mean 0.2, and no mass at none, where the density of
heads on their centres has no bound."""


@dataclass(frozen=True)
class Clustered:
    """A mixture of head priors, in which the data put tasks together.

        w_h ~ Σ_c π_c Normal(√(1 − s) m_c, s I),   m_c ~ Normal(0, I),   s ~ Beta(2, 8)
        π_c = v_c Π_{l<c} (1 − v_l),   v_c ~ Beta(1, concentration)

    The truncated Dirichlet process of Xue, Liao, Carin & Krishnapuram ("Multi-task learning for classification with
    Dirichlet process priors", JMLR 2007) with a spread inside clusters; assignments are summed out. Heads are of unit
    scale, and two heads of a cluster correlate by 1 − s. Heads that are each other's negative are different heads:
    the arrangement's ``flipped`` turns one. Features of different trunks have nothing in common: one trunk is meant.

    Sites: ``head`` is w, ``head_centre`` m, ``head_within`` s, ``head_stick`` −log(1 − v).

    Parameters
    ----------
    clusters : int, optional
        ≥ 1: clusters at the most. Default: as many as heads, but eight at the most.
    concentration : float
        > 0. Of the Dirichlet process: more favours more clusters.
    """

    clusters: int | None = None
    concentration: float = 1.0

    def __post_init__(self) -> None:
        if self.clusters is not None and self.clusters < 1:
            raise ValueError(f"Clustered needs clusters ≥ 1, got {self.clusters}")
        if not (np.isfinite(self.concentration) and self.concentration > 0):
            raise ValueError(f"Clustered needs a finite concentration > 0, got {self.concentration}")

    def sample(self, e: Any, plan: Plan, design: Design, k: int, amplitude: Scale) -> Heads:
        clusters = min(MOST, plan.n_heads) if self.clusters is None else self.clusters
        a, b = (e.asarray(np.full(1, value)) for value in WITHIN)
        log_share = stick_breaking(e, clusters, self.concentration)
        within = e.sample("head_within", e.dist.Beta(a, b).to_event(1))
        prior = e.dist.Normal(e.asarray(0.0), e.asarray(1.0)).expand([clusters, k])
        centre = e.sample("head_centre", prior.to_event(2))
        loc, scale = _components(e.xp, centre, within)
        each = e.asarray(np.zeros((plan.n_heads, 1, 1)))
        one_cluster = e.dist.Normal(loc + each, scale + each).to_event(1)
        w = e.sample("head", e.mixture(log_share[..., None, :] + each[..., 0], one_cluster).to_event(1))
        return Heads(w, amplitude=free_amplitude(e, design, amplitude), intercept=free_intercept(e, design))

    def pairs(self, sites: Mapping[str, Any], plan: Plan) -> dict[str, np.ndarray]:
        """``together``: the probability, given a draw's other sites, that two linear predictors' heads are of one
        cluster, ``Σ_c r_ac r_bc`` (1 for the same head); it does not depend on the clusters' labels."""
        import jax
        import jax.numpy as jnp

        w = jnp.asarray(sites["head"])
        loc, scale = _components(jnp, jnp.asarray(sites["head_centre"]), jnp.asarray(sites["head_within"]))
        clusters = loc.shape[-2]
        share = log_shares(jnp, jnp.asarray(sites["head_stick"])) if clusters > 1 else jnp.zeros(1)
        distance = jnp.sum(((w[..., :, None, :] - loc) / scale) ** 2, axis=-1)
        r = jax.nn.softmax(share[..., None, :] - 0.5 * distance, axis=-1)
        together = np.array(r @ jnp.matrix_transpose(r))
        heads = np.arange(plan.n_heads)
        together[..., heads, heads] = 1.0
        return {"together": together[..., plan.head_of, :][..., plan.head_of]}


def _components(xp: Any, centre: Any, within: Any) -> tuple[Any, Any]:
    """Location ``1 × clusters × k`` and scale ``1 × 1 × 1`` of the clusters' heads."""
    loc = xp.sqrt(1.0 - within)[..., None] * centre
    return loc[..., None, :, :], xp.sqrt(within)[..., None, None]


__all__ = ["Clustered"]

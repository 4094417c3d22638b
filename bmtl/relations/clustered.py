"""Heads in clusters whose number is not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmtl.arrangement import Plan
from bmtl.data import Design
from bmtl.noise import Scale, positive
from bmtl.relations._base import Heads, free_amplitude, free_intercept, heads_of_trunks
from bmtl.relations._centres import Centres
from bmtl.relations._partitions import MOST_PARTITIONS, Summed, number

WITHIN = (2.0, 8.0)
"""Beta prior of the share of a head's variance that is its own: mean 0.2, and no mass at none, where heads would be
equal and their density without bound."""


@dataclass(frozen=True)
class Clustered:
    """A Dirichlet process mixture of head priors, in which the data put tasks together.

        w_h ~ Normal(√(1 − s) m_c(h), s I),   m_c ~ Normal(0, I),   s ~ Beta(2, 8)
        p(c) ∝ Π_clusters concentration · (size − 1)!

    The multi-task Dirichlet process of Xue, Liao, Carin & Krishnapuram ("Multi-task learning for classification with
    Dirichlet process priors", JMLR 2007) with a spread inside clusters. Heads are of unit scale, and two heads of one
    cluster correlate by 1 − s. Heads of different trunks are independent, given s.

    There are two ways to compute with it. *Exact*, for up to nine heads on every trunk (fifteen in two clusters): the
    cluster means m are integrated out in closed form and the partitions summed over, all of them. Nothing discrete is
    sampled and no cluster has a label. *Centres*, for more: the process is truncated, means and shares of its clusters
    are parameters, and the cluster of each head is summed out, at a cost in proportion to heads × clusters:

        p(w_h) = Σ_c π_c Normal(w_h; √(1 − s) m_c, s I),   π_c = v_c Π_{l<c} (1 − v_l),   v_c ~ Beta(1, concentration)

    These clusters have labels, which could as well be others: restarts and chains differ in them, so that a centre or
    a share means nothing by itself, and a chain of NUTS may stay with a grouping that another never finds. Which tasks
    are together (`Fit.relations`) does not depend on labels.

    Heads that are each other's negative are different heads; the arrangement's ``flipped`` turns one of them.

    Sites: ``head`` is w, ``head_within`` s; with centres also ``head_centre`` m and ``head_stick`` −log(1 − v), a trunk
    each.

    Parameters
    ----------
    clusters : int, optional
        ≥ 1: clusters at the most on a trunk. Default: as many as heads; with centres as many as keep the truncated
        process within 0.01 of the whole one (Ishwaran & James, JASA 2001, theorem 2): 18 for 200 heads with a
        concentration of 1.
    concentration : float
        > 0. Of the Dirichlet process: more favours more clusters.
    exact : bool, optional
        Whether to sum over partitions, or to have centres. Default: to sum if there are at most 25,000 of every
        trunk's heads. With one cluster or head there is no choice: they are the same.
    """

    clusters: int | None = None
    concentration: float = 1.0
    exact: bool | None = None

    def __post_init__(self) -> None:
        if self.clusters is not None and self.clusters < 1:
            raise ValueError(f"Clustered needs clusters ≥ 1, got {self.clusters}")
        positive("Clustered", "concentration", self.concentration)

    def sample(self, e: Any, plan: Plan, design: Design, k: int, amplitude: Scale) -> Heads:
        """Draw heads; see `Relation.sample`.

        Raises
        ------
        ValueError
            If partitions are to be summed over and there are too many.
        """
        a, b = (e.asarray(np.full(1, value)) for value in WITHIN)
        within = e.sample("head_within", e.dist.Beta(a, b).to_event(1))
        w = self._way(plan).heads(e, plan, k, within)
        return Heads(w, amplitude=free_amplitude(e, design, amplitude), intercept=free_intercept(e, design))

    def pairs(self, sites: Mapping[str, Any], plan: Plan) -> dict[str, np.ndarray]:
        """``together``: the probability that the heads of two linear predictors are of one cluster given a draw's
        other sites, ``draws × P × P``."""
        together = self._way(plan).together(sites, plan)
        return {"together": together[..., plan.head_of, :][..., plan.head_of]}

    def _way(self, plan: Plan) -> Summed | Centres:
        heads = max(len(on) for on in heads_of_trunks(plan))
        most = min(self.clusters or heads, heads)
        few = number(heads, most) <= MOST_PARTITIONS
        if self.exact and not few:
            raise ValueError(
                f"Clustered(exact=True) sums over all partitions, and of {heads} heads into at most {most} clusters "
                f"there are more than {MOST_PARTITIONS}: give fewer clusters, or leave exact out"
            )
        exact = few if self.exact is None or most == 1 else self.exact
        return (Summed if exact else Centres)(self.clusters, self.concentration)


__all__ = ["Clustered"]

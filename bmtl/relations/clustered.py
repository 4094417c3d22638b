"""Heads in clusters whose number is not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy.special import gammaln, ndtri

from bmtl.arrangement import Plan
from bmtl.data import Design
from bmtl.noise import Scale, positive
from bmtl.relations._base import Heads, free_amplitude, free_intercept

MOST_PARTITIONS = 25_000
"""Partitions that are summed over at every evaluation: all of nine heads, or of fifteen in two clusters at the most."""

NUMBERS_AT_ONCE = 20_000_000
"""Draws × partitions × heads held in memory at a time."""

WITHIN = (2.0, 8.0)
"""Beta prior of the share of a head's variance that is its own: mean 0.2, and no mass at none, where heads would be
equal and their density without bound."""


class Partitions(NamedTuple):
    """Partitions of heads into clusters.

    Attributes
    ----------
    labels : ndarray of int, shape (B, H)
        Cluster of each head, counted in order of appearance.
    subsets : ndarray, shape (S, H)
        The sets of heads that are a cluster of some partition, as ones and zeros; the first is empty.
    clusters : ndarray of int, shape (B, most)
        Which subsets each partition is made of, filled up with 0.
    log_prior : ndarray, shape (B,)
        Log probabilities under the Chinese restaurant process, normalised.
    """

    labels: np.ndarray
    subsets: np.ndarray
    clusters: np.ndarray
    log_prior: np.ndarray


@dataclass(frozen=True)
class Clustered:
    """A Dirichlet process mixture of head priors, in which the data put tasks together.

        w_h ~ Normal(√(1 − s) m_c(h), s I),   m_c ~ Normal(0, I),   s ~ Beta(2, 8)
        p(c) ∝ Π_clusters concentration · (size − 1)!

    The multi-task Dirichlet process of Xue, Liao, Carin & Krishnapuram ("Multi-task learning for classification with
    Dirichlet process priors", JMLR 2007) with a spread inside clusters. The cluster means m are integrated out in
    closed form and the partitions summed over, all of them: nothing discrete is sampled and no cluster has a label.
    Heads are of unit scale, and two heads of one cluster correlate by 1 − s. Heads of different trunks are independent.

    Heads that are each other's negative are different heads; the arrangement's ``flipped`` turns one of them.

    Sites: ``head`` is w, ``head_within`` s.

    Parameters
    ----------
    clusters : int, optional
        ≥ 1: clusters at the most on a trunk. Default: as many as heads. With more than nine heads on a trunk it is
        needed, for there are too many partitions.
    concentration : float
        > 0. Of the Dirichlet process: more favours more clusters.
    """

    clusters: int | None = None
    concentration: float = 1.0

    def __post_init__(self) -> None:
        if self.clusters is not None and self.clusters < 1:
            raise ValueError(f"Clustered needs clusters ≥ 1, got {self.clusters}")
        positive("Clustered", "concentration", self.concentration)

    def sample(self, e: Any, plan: Plan, design: Design, k: int, amplitude: Scale) -> Heads:
        """Draw heads; see `Relation.sample`.

        Raises
        ------
        ValueError
            If there are too many partitions to sum over.
        """
        trunks = _heads_of_trunks(plan)
        known = [self._partitions(len(on)) for on in trunks]
        a, b = (e.asarray(np.full(1, value)) for value in WITHIN)
        within = e.sample("head_within", e.dist.Beta(a, b).to_event(1))

        def draw(normal: Any) -> Any:
            # A number a trunk picks its partition, the others are cluster means and deviations from them.
            mean, own = normal[..., : plan.n_heads, :], normal[..., plan.n_heads : 2 * plan.n_heads, :]
            parts = []
            for trunk, (on, all_of_them) in enumerate(zip(trunks, known, strict=True)):
                upper = ndtri(np.minimum(np.cumsum(np.exp(all_of_them.log_prior))[:-1], 1.0))
                pick = e.xp.sum(normal[..., 2 * plan.n_heads + trunk, :1] > e.asarray(upper), axis=-1)
                member = e.asarray(all_of_them.labels[..., None] == np.arange(len(on)))[pick]
                parts.append(member @ mean[..., on[0] : on[-1] + 1, :])
            return e.xp.sqrt(1.0 - within)[..., None] * e.xp.concat(parts, axis=-2) + e.xp.sqrt(within)[..., None] * own

        def log_prob(w: Any) -> Any:
            each = [_log_sum_exp(e.xp, self._log_joint(e, w[..., on[0] : on[-1] + 1, :], within)) for on in trunks]
            return sum(each[1:], each[0])

        w = e.sample("head", e.defined((plan.n_heads, k), log_prob, (2 * plan.n_heads + len(trunks), k), draw))
        return Heads(w, amplitude=free_amplitude(e, design, amplitude), intercept=free_intercept(e, design))

    def pairs(self, sites: Mapping[str, Any], plan: Plan) -> dict[str, np.ndarray]:
        """``together``: the probability that the heads of two linear predictors are of one cluster given a draw's
        heads, ``draws × P × P``."""
        from bmtl.engine.numpyro import NumPyroEngine

        w, within = sites["head"], sites["head_within"]
        together = np.zeros((len(w), plan.n_heads, plan.n_heads))
        for on in _heads_of_trunks(plan):
            labels = self._partitions(len(on)).labels
            same = (labels[:, :, None] == labels[:, None, :]).reshape(len(labels), -1).astype(float)
            step = max(1, NUMBERS_AT_ONCE // labels.size)
            for at in range(0, len(w), step):
                joint = np.asarray(self._log_joint(NumPyroEngine(), w[at : at + step, on], within[at : at + step]))
                p = np.exp(joint - joint.max(axis=-1, keepdims=True), dtype=float)
                p /= p.sum(axis=-1, keepdims=True)
                together[at : at + step, on[:, None], on] = (p @ same).reshape(-1, len(on), len(on))
        return {"together": together[..., plan.head_of, :][..., plan.head_of]}

    def _log_joint(self, e: Any, w: Any, within: Any) -> Any:
        """Log density of the heads of a trunk and every partition of them, ``B``.

        Heads of a cluster of b have covariance ``s I + (1 − s) 1 1ᵀ``, the same for every feature: with t = s + b (1 −
        s) its determinant is ``s^(b−1) t`` and its inverse ``(I − (1 − s)/t 1 1ᵀ)/s``.
        """
        xp, known, k = e.xp, self._partitions(w.shape[-2]), w.shape[-1]
        subsets = e.asarray(known.subsets)
        size = e.asarray(known.subsets.sum(axis=1))
        total = within + size * (1.0 - within)
        log_det = (size - 1.0) * xp.log(within) + xp.log(total)
        squares = xp.sum(xp.sum(w**2, axis=-1)[..., None, :] * subsets, axis=-1)
        of_sum = xp.sum((subsets @ w) ** 2, axis=-1)
        quadratic = (squares - (1.0 - within) / total * of_sum) / within
        # Of the empty set the determinant is t/s = 1.
        each = -0.5 * (k * (size * float(np.log(2 * np.pi)) + log_det) + quadratic)
        return e.asarray(known.log_prior) + xp.sum(e.take(each, known.clusters, -1), axis=-1)

    def _partitions(self, heads: int) -> Partitions:
        return partitions(heads, min(self.clusters or heads, heads), self.concentration)


@lru_cache(maxsize=16)
def partitions(heads: int, most: int, concentration: float) -> Partitions:
    """All partitions of so many heads into at most ``most`` clusters.

    Raises
    ------
    ValueError
        If there are more than `MOST_PARTITIONS`.
    """
    labels = np.zeros((1, 1), dtype=int)
    for _ in range(heads - 1):
        used = labels.max(axis=1) + 1
        labels = np.concatenate([
            np.column_stack([labels[used >= c], np.full(np.sum(used >= c), c)]) for c in range(most)
        ])
        if len(labels) > MOST_PARTITIONS:
            raise ValueError(
                f"Clustered sums over all partitions, and of {heads} heads into at most {most} clusters there are "
                f"more than {MOST_PARTITIONS}: give fewer clusters"
            )
    member = labels[:, None, :] == np.arange(most)[:, None]
    subsets, clusters = np.unique(
        np.concatenate([np.zeros((1, heads), dtype=bool), member.reshape(-1, heads)]), axis=0, return_inverse=True
    )
    size = member.sum(axis=-1)
    log_prior = np.sum(np.where(size > 0, np.log(concentration) + gammaln(np.maximum(size, 1)), 0.0), axis=-1)
    log_prior -= np.logaddexp.reduce(log_prior)
    return Partitions(labels, subsets.astype(float), clusters.ravel()[1:].reshape(len(labels), most), log_prior)


def _heads_of_trunks(plan: Plan) -> list[np.ndarray]:
    """Indices of each trunk's heads, which follow one another."""
    return [np.flatnonzero(plan.trunk_of_head == trunk) for trunk in range(plan.n_trunks)]


def _log_sum_exp(xp: Any, values: Any) -> Any:
    largest = xp.max(values, axis=-1, keepdims=True)
    return xp.log(xp.sum(xp.exp(values - largest), axis=-1)) + largest[..., 0]


__all__ = ["Clustered"]

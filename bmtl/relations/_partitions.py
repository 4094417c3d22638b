"""Heads in clusters, summed over all partitions of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy.special import gammaln, ndtri, softmax

from bmtl.arrangement import Plan
from bmtl.relations._base import heads_of_trunks, log_sum_exp

MOST_PARTITIONS = 25_000
"""Partitions that are summed over at every evaluation: all of nine heads, or of fifteen in two clusters at the most."""

NUMBERS_AT_ONCE = 20_000_000
"""Draws × partitions × heads held in memory at a time."""


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
class Summed:
    """The clusters of `Clustered`, of which means and partitions are integrated and summed out.

    Parameters
    ----------
    clusters : int, optional
        At the most on a trunk. Default: as many as heads.
    concentration : float
    """

    clusters: int | None
    concentration: float

    def heads(self, e: Any, plan: Plan, k: int, within: Any) -> Any:
        """Draw the site ``head``, ``H × k``.

        Parameters
        ----------
        within : array, shape (1,)
            s, the share of a head's variance that is its own.
        """
        trunks = heads_of_trunks(plan)
        known = [self._partitions(len(on)) for on in trunks]

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
            each = [log_sum_exp(e.xp, self._log_joint(e, w[..., on[0] : on[-1] + 1, :], within)) for on in trunks]
            return sum(each[1:], each[0])

        return e.sample("head", e.defined((plan.n_heads, k), log_prob, (2 * plan.n_heads + len(trunks), k), draw))

    def together(self, sites: Mapping[str, Any], plan: Plan) -> np.ndarray:
        """Probability that two heads are of one cluster, given a draw's heads, ``draws × H × H``."""
        from bmtl.engine.numpyro import NumPyroEngine

        w, within = sites["head"], sites["head_within"]
        together = np.zeros((len(w), plan.n_heads, plan.n_heads))
        for on in heads_of_trunks(plan):
            labels = self._partitions(len(on)).labels
            same = (labels[:, :, None] == labels[:, None, :]).reshape(len(labels), -1).astype(float)
            step = max(1, NUMBERS_AT_ONCE // labels.size)
            for at in range(0, len(w), step):
                joint = np.asarray(self._log_joint(NumPyroEngine(), w[at : at + step, on], within[at : at + step]))
                p = softmax(joint.astype(float), axis=-1)
                together[at : at + step, on[:, None], on] = (p @ same).reshape(-1, len(on), len(on))
        return together

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


def number(heads: int, most: int) -> float:
    """Of partitions of so many heads into at most ``most`` clusters: a sum of Stirling numbers of the second kind."""
    into = np.arange(most + 1)
    count = (into == 0).astype(float)
    for _ in range(heads):
        count = into * count + np.append(0.0, count[:-1])
    return float(count.sum())


@lru_cache(maxsize=16)
def partitions(heads: int, most: int, concentration: float) -> Partitions:
    """All partitions of so many heads into at most ``most`` clusters."""
    labels = np.zeros((1, 1), dtype=int)
    for _ in range(heads - 1):
        used = labels.max(axis=1) + 1
        labels = np.concatenate([
            np.column_stack([labels[used >= c], np.full(np.sum(used >= c), c)]) for c in range(most)
        ])
    member = labels[:, None, :] == np.arange(most)[:, None]
    subsets, clusters = np.unique(
        np.concatenate([np.zeros((1, heads), dtype=bool), member.reshape(-1, heads)]), axis=0, return_inverse=True
    )
    size = member.sum(axis=-1)
    log_prior = np.sum(np.where(size > 0, np.log(concentration) + gammaln(np.maximum(size, 1)), 0.0), axis=-1)
    log_prior -= np.logaddexp.reduce(log_prior)
    return Partitions(labels, subsets.astype(float), clusters.ravel()[1:].reshape(len(labels), most), log_prior)

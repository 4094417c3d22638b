"""Heads in clusters, around centres that have labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from bmtl.arrangement import Plan
from bmtl.relations._base import heads_of_trunks, log_shares, log_sum_exp

TRUNCATION_ERROR = 0.01
"""Distance (L₁) between the truncated and the whole process's densities of all heads, at the most."""


@dataclass(frozen=True)
class Centres:
    """The clusters of `Clustered`, of which centres and shares are drawn and each head's cluster is summed out.

        p(w_h) = Σ_c π_c Normal(w_h; √(1 − s) m_c, s I),   π_c = v_c Π_{l<c} (1 − v_l),   v_c ~ Beta(1, concentration)

    Parameters
    ----------
    clusters : int, optional
        ≥ 2: on each trunk. Default: `truncation` of the trunk with most heads.
    concentration : float
    """

    clusters: int | None
    concentration: float

    def heads(self, e: Any, plan: Plan, k: int, within: Any) -> Any:
        """Draw the sites ``head_centre`` m, ``head_stick`` −log(1 − v), both a row a trunk, and ``head``, ``H × k``.

        Parameters
        ----------
        within : array, shape (1,)
            s, the share of a head's variance that is its own.
        """
        xp, size = e.xp, self._size(plan)
        zero, one = e.asarray(0.0), e.asarray(1.0)
        centre = e.sample("head_centre", e.dist.Normal(zero, one).expand([plan.n_trunks, size, k]).to_event(3))
        rate = e.asarray(np.full((plan.n_trunks, size - 1), self.concentration))
        stick = e.sample("head_stick", e.dist.Exponential(rate).to_event(2))

        def draw(normal: Any) -> Any:
            # An exponential number, made of two normal ones, falls into a stick: the cumulative ones are −log of what
            # they leave of the whole.
            at = 0.5 * xp.sum(normal[..., k:] ** 2, axis=-1)[..., None]
            left = e.take(xp.cumulative_sum(stick, axis=-1), plan.trunk_of_head, -2)
            member = e.asarray(np.eye(size))[xp.sum(at > left, axis=-1)]
            mean = (member[..., None, :] @ e.take(centre, plan.trunk_of_head, -3))[..., 0, :]
            return xp.sqrt(1.0 - within)[..., None] * mean + xp.sqrt(within)[..., None] * normal[..., :k]

        def log_prob(w: Any) -> Any:
            return xp.sum(log_sum_exp(xp, _log_joint(e, plan, w, within, centre, stick)), axis=-1)

        return e.sample("head", e.defined((plan.n_heads, k), log_prob, (plan.n_heads, k + 2), draw))

    def together(self, sites: Mapping[str, Any], plan: Plan) -> np.ndarray:
        """Probability that two heads are of one cluster, given a draw's heads, centres and shares, ``draws × H × H``.

        Whatever the labels are: the chance of a common one.
        """
        from bmtl.engine.numpyro import NumPyroEngine

        names = ("head", "head_within", "head_centre", "head_stick")
        p = softmax(np.asarray(_log_joint(NumPyroEngine(), plan, *(sites[name] for name in names))), axis=-1)
        found = p @ np.swapaxes(p, -1, -2)
        found[:, np.arange(plan.n_heads), np.arange(plan.n_heads)] = 1.0
        return found

    def _size(self, plan: Plan) -> int:
        most = max(len(on) for on in heads_of_trunks(plan))
        return self.clusters or truncation(most, self.concentration)


def truncation(heads: int, concentration: float) -> int:
    """Clusters of a truncated process whose distance from the whole one is below `TRUNCATION_ERROR`.

    Of n heads and N clusters it is at most 4 − 4 E[(1 − r)ⁿ] (Ishwaran & James, "Gibbs sampling methods for
    stick-breaking priors", JASA 2001, theorem 2), where r is what the first N − 1 shares leave: at most 4 n E[r], with
    E[r] = (concentration/(1 + concentration))^(N − 1).
    """
    return 1 + int(np.ceil(np.log(4.0 * heads / TRUNCATION_ERROR) / np.log1p(1.0 / concentration)))


def _log_joint(e: Any, plan: Plan, w: Any, within: Any, centre: Any, stick: Any) -> Any:
    """Log density of each head and its cluster, ``H × (trunks · clusters)``: −∞ for the clusters of other trunks."""
    xp, (size, k) = e.xp, centre.shape[-2:]
    mean = xp.sqrt(1.0 - within)[..., None] * centre.reshape(*centre.shape[:-3], -1, k)
    shares = log_shares(xp, stick)
    elsewhere = np.repeat(np.arange(plan.n_trunks), size) != plan.trunk_of_head[:, None]
    log_share = shares.reshape(*shares.shape[:-2], 1, -1) + e.asarray(np.where(elsewhere, -np.inf, 0.0))
    product = w @ xp.matrix_transpose(mean)
    squares = xp.sum(w**2, axis=-1)[..., None] - 2.0 * product + xp.sum(mean**2, axis=-1)[..., None, :]
    own = within[..., None]
    return log_share - 0.5 * (squares / own + k * xp.log(2.0 * float(np.pi) * own))

"""Leave-one-cell-out predictive density, one task at a time."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from arviz_base import from_dict
from arviz_stats import loo, loo_approximate_posterior
from arviz_stats.base import array_stats

from bmtl.fitting.draws import Draws

GOOD_K = 0.7
"""Pareto k̂ above which a cell's importance sampling is not trusted (Vehtari et al., JMLR 2024)."""

CELLS_FOR_EFFICIENCY = 200
"""Cells, evenly spread, whose mean relative efficiency stands for a task's."""


@dataclass(frozen=True)
class TaskLOO:
    """Pareto-smoothed importance-sampling LOO of one task (Vehtari, Gelman & Gabry, 2017).

    Attributes
    ----------
    pointwise : ndarray, shape (n,)
        Log predictive density of each cell with that cell left out, nats, user's units.
    pareto_k : ndarray, shape (n,)
    p_loo : float
        Effective number of parameters.
    se : float
        Standard error of the sum over cells, as ArviZ has it.
    """

    pointwise: np.ndarray
    pareto_k: np.ndarray
    p_loo: float
    se: float

    @property
    def elpd(self) -> float:
        return float(self.pointwise.sum())

    @property
    def trusted(self) -> bool:
        """Whether importance sampling worked for every cell."""
        return bool(np.max(self.pareto_k) <= GOOD_K)


def psis_loo(log_likelihood: np.ndarray, draws: Draws) -> TaskLOO:
    """LOO of one task's cells.

    Draws from a variational guide are corrected for not being from the posterior, by the ratio of their densities
    (Magnusson et al., "Bayesian leave-one-out cross-validation for large data", ICML 2019), so that k̂ judges the
    guide too.

    Parameters
    ----------
    log_likelihood : ndarray, shape (chains, draws, n)
    draws : Draws
        Where they come from.
    """
    tree = from_dict({"log_likelihood": {"cells": log_likelihood}}, dims={"cells": ["cell"]})
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        # k̂ is returned and judged, so that arviz-stats need not warn of it too; where weights underflow it is
        # infinite.
        warnings.filterwarnings("ignore", message="Estimated shape parameter", category=UserWarning)
        if draws.log_ratio is None:
            found = loo(tree, var_name="cells", reff=_efficiency(log_likelihood), pointwise=True)
        else:
            ratio = draws.log_ratio.reshape(draws.shape)
            found = loo_approximate_posterior(tree, ratio, np.zeros_like(ratio), var_name="cells", pointwise=True)
    k = np.asarray(found.pareto_k)
    return TaskLOO(np.asarray(found.elpd_i), np.where(np.isfinite(k), k, np.inf), float(found.p), float(found.se))


def _efficiency(log_likelihood: np.ndarray) -> float:
    """Effective over actual draws, of the cells' likelihoods."""
    chains, draws, n = log_likelihood.shape
    some = log_likelihood[:, :, :: max(1, n // CELLS_FOR_EFFICIENCY)]
    likelihood = np.exp(some - some.max(axis=(0, 1)))
    ess = array_stats.ess(likelihood, chain_axis=0, draw_axis=1, method="mean")
    return float(np.clip(np.nanmean(ess) / (chains * draws), 1e-3, 1.0))

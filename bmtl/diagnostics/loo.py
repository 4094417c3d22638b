"""Leave-one-cell-out predictive density, one task at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from arviz_stats.base import array_stats
from scipy.special import logsumexp

from bmtl.fitting.draws import Draws

GOOD_K = 0.7
"""Pareto k̂ above which a cell's importance sampling is not trusted (Vehtari et al., JMLR 2024)."""

LARGE = 20_000
"""Cells of a task above which a sample of them is left out one by one."""

SAMPLE = 1_000
"""Cells in that sample."""

CELLS_FOR_EFFICIENCY = 200
"""Cells, evenly spread, whose mean relative efficiency stands for a task's."""


@dataclass(frozen=True)
class TaskLOO:
    """Pareto-smoothed importance-sampling LOO of one task (Vehtari, Gelman & Gabry, 2017).

    Attributes
    ----------
    pointwise : ndarray, shape (n,)
        Log predictive density of each cell with that cell left out, nats, user's units.
    pareto_k : ndarray, shape (n,) or (some,)
        Of the cells that were left out one by one: all, or a sample of many (`from_sample`).
    p_loo : float
        Effective number of parameters.
    se : float
        Standard error of the sum over cells, as ArviZ has it; of a sample, with the error of sampling.
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
    chains, n_draws, n = log_likelihood.shape
    cells = log_likelihood.reshape(-1, n).T.astype(float)
    if draws.log_ratio is None:
        weights, k = _smoothed(-cells, _efficiency(log_likelihood))
    else:
        weights, k = _smoothed(draws.log_ratio - cells, 1.0)
    pointwise = logsumexp(weights + cells, axis=1)
    p_loo = logsumexp(cells, axis=1) - np.log(chains * n_draws) - pointwise
    _, se, total, _ = array_stats.loo_summary(pointwise, p_loo)
    return TaskLOO(pointwise, k, float(total), float(se))


def _smoothed(log_ratio: np.ndarray, efficiency: float) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed log weights of each cell, ``cells × draws``, and k̂.

    Where the largest weights are all the same, as where all draws are certain of an outcome, there is no tail to be
    smoothed: k̂ is infinite, and not trusted.
    """
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            # ArviZ takes log-likelihoods, of which the ratios are the inverses.
            weights, k = array_stats.psislw(-log_ratio, r_eff=efficiency, axis=-1)
    except ValueError as error:
        if "tail values are the same" not in str(error):
            raise
        if len(log_ratio) == 1:
            return log_ratio - logsumexp(log_ratio), np.full(1, np.inf)
        halves = [_smoothed(half, efficiency) for half in np.array_split(log_ratio, 2)]
        weights, k = (np.concatenate(own) for own in zip(*halves, strict=True))
    return weights, np.where(np.isfinite(k), k, np.inf)


def from_sample(all_in: np.ndarray, cells: np.ndarray, found: TaskLOO) -> TaskLOO:
    """LOO of a task's many cells from that of a simple random sample of them, by the difference estimator.

    What leaving a cell out costs is small beside its log density and varies little: the mean over the sample is taken
    from every cell (Magnusson et al., "Leave-one-out cross-validation for Bayesian model comparison in large data",
    AISTATS 2020). The same sum as that of ``arviz_stats.loo_subsample``, which would hold all draws of all cells.

    Parameters
    ----------
    all_in : ndarray, shape (n,)
        Log predictive density of every cell with none left out.
    cells : ndarray of int, shape (some,)
        The sample.
    found : TaskLOO
        Of the sample.
    """
    n, m = len(all_in), len(cells)
    gap = found.pointwise - all_in[cells]
    pointwise = all_in + gap.mean()
    sampling = n**2 * (1 - m / n) * gap.var(ddof=1) / m
    return TaskLOO(pointwise, found.pareto_k, float(-n * gap.mean()), float(np.sqrt(n * pointwise.var() + sampling)))


def _efficiency(log_likelihood: np.ndarray) -> float:
    """Effective over actual draws, of the cells' likelihoods."""
    chains, draws, n = log_likelihood.shape
    some = log_likelihood[:, :, :: max(1, n // CELLS_FOR_EFFICIENCY)]
    likelihood = np.exp(some - some.max(axis=(0, 1)))
    ess = array_stats.ess(likelihood, chain_axis=0, draw_axis=1, method="mean")
    return float(np.clip(np.nanmean(ess) / (chains * draws), 1e-3, 1.0))

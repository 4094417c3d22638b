"""Pareto-smoothed importance sampling of many cells side by side.

The method is that of Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling" (JMLR 2024), in the
steps of ``arviz_stats``, which takes one cell at a time: of many cells most of its time is Python's.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

AT_ONCE = 2_000_000
"""Numbers in an array of the work on some of the cells: 16 MB."""

FEWEST = 5
"""Draws in a tail that a generalised Pareto distribution can be fitted to."""


def smoothed(log_ratio: np.ndarray, efficiency: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed importance weights of each cell.

    Parameters
    ----------
    log_ratio : ndarray, shape (cells, draws)
        Log of the raw weights, up to a constant a cell.
    efficiency : float
        Effective over actual draws.

    Returns
    -------
    ndarray, shape (cells, draws)
        Log weights, which sum to one in each cell.
    ndarray, shape (cells,)
        Pareto k̂; infinite where the largest weights are all the same or underflow, which then are as they were.

    Raises
    ------
    ValueError
        If there are fewer than 25 draws.
    """
    draws = log_ratio.shape[1]
    tail = int(3 * np.sqrt(draws / efficiency) if draws * efficiency > 225 else draws / 5)
    if tail < FEWEST:
        raise ValueError(f"importance sampling needs at least {5 * FEWEST} draws, got {draws}")
    weights, k = np.empty(log_ratio.shape), np.empty(len(log_ratio))
    step = max(1, AT_ONCE // max(draws, tail * _candidates(tail)))
    for start in range(0, len(log_ratio), step):
        part = slice(start, start + step)
        weights[part], k[part] = _smoothed(log_ratio[part].astype(float), tail)
    return weights, k


def _smoothed(log_ratio: np.ndarray, tail: int) -> tuple[np.ndarray, np.ndarray]:
    log_ratio = log_ratio - log_ratio.max(axis=1, keepdims=True)
    order = np.argsort(log_ratio, axis=1)[:, -tail - 1 :]
    ranked = np.take_along_axis(log_ratio, order, axis=1)
    largest, cutoff = ranked[:, 1:], np.exp(ranked[:, :1])
    with np.errstate(divide="ignore", invalid="ignore"):
        k, sigma = _pareto(np.exp(largest) - cutoff)
        p = (np.arange(tail) + 0.5) / tail
        quantiles = cutoff + sigma[:, None] * np.expm1(-k[:, None] * np.log1p(-p)) / k[:, None]
        new = np.minimum(np.log(quantiles), ranked[:, -1:])
    fitted = np.isfinite(k) & np.isfinite(new).all(axis=1) & (np.ptp(largest, axis=1) > 0)
    np.put_along_axis(log_ratio, order[:, 1:], np.where(fitted[:, None], new, largest), axis=1)
    return log_ratio - logsumexp(log_ratio, axis=1, keepdims=True), np.where(fitted, k, np.inf)


def _candidates(n: int) -> int:
    return 30 + int(np.sqrt(n))


def _pareto(excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shape and scale of generalised Pareto distributions, one a row of ascending excesses.

    Posterior means on a grid of θ = −k/σ (Zhang & Stephens, "A new and efficient estimation method for the generalized
    Pareto distribution", Technometrics 2009), the shape drawn towards a half as ten more excesses would.
    """
    n = excess.shape[1]
    grid = 1 - np.sqrt(_candidates(n) / (np.arange(_candidates(n)) + 0.5))
    theta = grid / (3 * excess[:, [int(n / 4 + 0.5) - 1]]) + 1 / excess[:, -1:]
    shape = np.log1p(-theta[..., None] * excess[:, None]).mean(axis=-1)
    level = n * (np.log(-theta / shape) - shape - 1)
    weights = np.exp(level - logsumexp(level, axis=1, keepdims=True))
    weights[weights < 10 * np.finfo(float).eps] = 0.0
    theta = np.sum(theta * weights, axis=1) / weights.sum(axis=1)
    shape = np.log1p(-theta[:, None] * excess).mean(axis=1)
    return (n * shape + 5) / (n + 10), -shape / theta

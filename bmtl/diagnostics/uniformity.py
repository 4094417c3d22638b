"""Are numbers in (0, 1) uniform? The test by simultaneous bands of the empirical distribution function.

Säilynoja, Bürkner & Vehtari, "Graphical test for discrete uniformity and its applications in goodness-of-fit
evaluation and multiple sample comparison", Statistics and Computing, 2022. The probability that no point of the
empirical distribution function leaves its band is computed exactly, by a recursion over the points.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import stats

MAX_POINTS = 100
"""Points, evenly spaced, at which the distribution function is looked at; no more than there are numbers."""


@lru_cache(maxsize=8)
def _pointwise(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The points, and the two-sided binomial p-value of every count of numbers at most there, ``points × (n + 1)``."""
    points = np.arange(1, min(n, MAX_POINTS)) / min(n, MAX_POINTS)
    at_most = stats.binom.cdf(np.arange(n + 1), n, points[:, None])
    at_least = stats.binom.sf(np.arange(n + 1) - 1, n, points[:, None])
    return points, np.minimum(2.0 * np.minimum(at_most, at_least), 1.0)


def _inside(n: int, level: float) -> float:
    """Probability that the counts of n uniform numbers have pointwise p-values above ``level`` at every point."""
    points, p = _pointwise(n)
    # Counts are those of a Poisson process with n points expected, given that there are n of them.
    step = stats.poisson.pmf(np.arange(n + 1), n / (len(points) + 1))
    reached = np.zeros(n + 1)
    reached[0] = 1.0
    for allowed in p > level:
        reached = np.convolve(reached, step)[: n + 1] * allowed
    return float(np.convolve(reached, step)[n] / stats.poisson.pmf(n, n))


def uniformity(values: np.ndarray) -> float:
    """p-value of the hypothesis that the numbers are independent and uniform on (0, 1).

    Parameters
    ----------
    values : ndarray, shape (n,)
        At least two.

    Returns
    -------
    float
        Probability that the smallest pointwise p-value of n uniform numbers is at most the one found.
    """
    n = len(values)
    points, p = _pointwise(n)
    counts = np.searchsorted(np.sort(values), points, side="right")
    smallest = float(p[np.arange(len(points)), counts].min())
    # The recursion's rounding hides probabilities below it; the test's is never below that of one point.
    return float(np.clip(1.0 - _inside(n, smallest), smallest, 1.0))


def bands(n: int, prob: float = 0.99) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, and lower and upper band of the empirical distribution function of n uniform numbers.

    All of the function lies inside the bands with at least probability ``prob``.
    """
    points, p = _pointwise(n)
    low, high = 0.0, 1.0
    for _ in range(40):
        level = (low + high) / 2
        low, high = (level, high) if _inside(n, level) >= prob else (low, level)
    allowed = p > low
    lower = np.argmax(allowed, axis=1)
    return points, lower / n, (n - np.argmax(allowed[:, ::-1], axis=1)) / n


def holm(p: np.ndarray) -> np.ndarray:
    """p-values adjusted for their number: none of them below α by chance in all but α of cases (Holm, 1979)."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    out = np.empty(len(p))
    out[order] = np.minimum(stepped, 1.0)
    return out

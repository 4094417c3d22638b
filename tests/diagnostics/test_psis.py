"""Smoothed weights of many cells against ArviZ's, which takes one at a time, and where a tail cannot be fitted."""

from __future__ import annotations

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy.special import logsumexp

from bmtl.diagnostics import psis
from bmtl.diagnostics.psis import smoothed


@pytest.mark.parametrize(("draws", "efficiency"), [(50, 1.0), (99, 0.5), (400, 0.6), (1000, 0.3), (2000, 1.0)])
def test_equals_arviz(draws: int, efficiency: float, rng: np.random.Generator) -> None:
    """Light tails, heavy ones and hopeless ones, as from one cell so from many."""
    scale = np.array([0.01, 0.3, 1.0, 2.0, 8.0, 30.0])[:, None]
    log_ratio = scale * rng.normal(size=(6, draws)) + rng.normal(size=(6, 1)) * 100
    weights, k = smoothed(log_ratio, efficiency)
    # ArviZ takes log-likelihoods, of which the ratios are the inverses.
    theirs, their_k = array_stats.psislw(-log_ratio, r_eff=efficiency, axis=-1)
    np.testing.assert_allclose(weights, theirs, atol=1e-9, rtol=1e-9)
    np.testing.assert_allclose(k, their_k, rtol=1e-9)
    assert k[1] < 0.5 < 0.7 < k[-1]


def test_a_part_of_the_cells_at_a_time(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    log_ratio = rng.normal(size=(11, 50))
    whole = smoothed(log_ratio)
    monkeypatch.setattr(psis, "AT_ONCE", 1000)
    for one, other in zip(whole, smoothed(log_ratio), strict=True):
        np.testing.assert_array_equal(one, other)


def test_tails_that_cannot_be_fitted(rng: np.random.Generator) -> None:
    """A constant tail, weights that underflow: as they were, and not to be trusted; other cells are not touched."""
    log_ratio = rng.normal(size=(3, 100))
    log_ratio[1] = 3.0
    log_ratio[2, :99] -= 1e4
    weights, k = smoothed(log_ratio)
    assert k.tolist()[1:] == [np.inf, np.inf]
    np.testing.assert_allclose(weights[1:], log_ratio[1:] - logsumexp(log_ratio[1:], axis=1, keepdims=True))
    np.testing.assert_array_equal(weights[0], smoothed(log_ratio[:1])[0][0])


def test_too_few_draws() -> None:
    with pytest.raises(ValueError, match="at least 25 draws, got 24"):
        smoothed(np.zeros((2, 24)))

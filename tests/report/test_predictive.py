"""Pictures of predictive checks: what is compared, and what is said of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bmtl.families import FAMILIES
from bmtl.report import predictive


def drawn(y: np.ndarray, new: np.ndarray, family: Any) -> Any:
    """A fit of one task with these outcomes and replicates, ``draws × cells``."""
    tasks = SimpleNamespace(names=("a",), index=lambda name: 0, y=[y], families=[family])
    held = xr.DataArray(new[None], dims=["chain", "draw", "obs_a"])
    return SimpleNamespace(method="svi", explained=tasks, data={"posterior_predictive": {"a": held}})


def test_small_counts_have_a_bar_each(rng: np.random.Generator) -> None:
    y = np.array([0.0, 0, 1, 3])
    new = np.array([[0.0, 1, 1, 9], [3, 3, 3, 3]])
    at, observed, replicated = predictive.shares(drawn(y, new, FAMILIES["poisson"]()), "a")
    assert at == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(observed, [0.5, 0.25, 0, 0.25])
    np.testing.assert_array_equal(replicated, [[0.25, 0.5, 0, 0], [0, 0, 0, 1]])


def test_numbers_and_large_counts_have_bins(rng: np.random.Generator) -> None:
    y = rng.normal(size=400)
    edges, observed, replicated = predictive.shares(drawn(y, rng.normal(size=(5, 400)), FAMILIES["gaussian"]()), "a")
    assert len(edges) == predictive.BINS + 1 == len(observed) + 1 and replicated.shape == (5, predictive.BINS)
    assert 0.98 < observed.sum() <= 1
    counts = rng.poisson(60, 400).astype(float)
    edges, observed, _ = predictive.shares(drawn(counts, rng.poisson(60, (5, 400)), FAMILIES["poisson"]()), "a")
    # Bins are of whole numbers of counts, so that none holds more of them than its neighbours.
    width = np.diff(edges)
    assert len(observed) <= predictive.BINS + 1 and np.ptp(width) == 0 and width[0] % 1 == 0 and edges[0] % 1 == 0.5


def test_what_is_wrong_is_said(rng: np.random.Generator) -> None:
    shares = np.full(10, 0.1)
    near = rng.normal(0.1, 0.01, (100, 10))
    good, bad = (pd.Series({"n": 50, "p": p, "trusted": trusted}) for p, trusted in ((0.4, True), (1e-4, False)))
    assert "is uniform as far as can be told (p = 0.40)" in predictive.said("a", good, shares, near)
    words = predictive.said("a", bad, shares + 0.2, near)
    assert "is not uniform" in words and "failed for some" in words and "10 shares of outcomes 10 lie outside" in words
    assert "LOO-PIT" not in predictive.said("a", None, shares, near)

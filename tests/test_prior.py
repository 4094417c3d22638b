"""Draws from the prior."""

from __future__ import annotations

import numpy as np
import pytest

import bmtl
from bmtl.models import SharedTrunk
from bmtl.noise import HalfNormal, Known
from bmtl.trunks import Identity


def test_moments(pair) -> None:
    """Gaussian outcomes of a linear model have mean c and variance 1 + a²|x|²/k + σ², in units of the outcome."""
    model = SharedTrunk(Identity(), amplitude=Known(0.5), noise=Known(2.0))
    n = 20_000
    tree = bmtl.prior_predictive(model, pair, draws=n, seed=1)
    for t, name in enumerate(pair.names):
        y = tree["prior_predictive"][name].values[0].astype(float)
        unit = pair.y_scale[t]
        # A known amplitude is on the modelled scale, a known noise in the outcome's units.
        variance = unit**2 * (1 + 0.25 * np.sum(pair.Z**2, axis=1) / 2) + 2.0**2
        assert np.all(np.abs(y.mean(axis=0) - pair.y[t].mean()) < 5 * np.sqrt(variance / n))
        assert np.all(np.abs(y.var(axis=0) / variance - 1) < 5 * np.sqrt(2 / n))
        np.testing.assert_array_equal(tree["observed_data"][name].values, pair.y[t])


def test_all_families_and_cells(five) -> None:
    tree = bmtl.prior_predictive(SharedTrunk(), five, draws=50, seed=0)
    for t, name in enumerate(five.names):
        drawn = tree["prior_predictive"][name]
        assert drawn.shape == (1, 50, five.n_cells[t]) and drawn.dims[2] == f"obs_{name}"
        np.testing.assert_array_equal(drawn[f"obs_{name}"], five.rows[t])
        assert np.all(five.families[t].valid((drawn.values - five.y_centre[t]) / five.y_scale[t]))
    assert tree["prior"]["noise_gaussian"].shape == (1, 50, 1)


def test_seeds(pair) -> None:
    one, again, other = (
        bmtl.prior_predictive(SharedTrunk(Identity(), noise=HalfNormal(0.5)), pair, draws=5, seed=seed)
        for seed in (3, 3, 4)
    )
    assert one["prior_predictive"].equals(again["prior_predictive"])
    assert not one["prior_predictive"].equals(other["prior_predictive"])


def test_errors(pair) -> None:
    with pytest.raises(ValueError, match="draws must be ≥ 1"):
        bmtl.prior_predictive(SharedTrunk(), pair, draws=0)
    with pytest.raises(TypeError, match="a model is needed"):
        bmtl.prior_predictive(SharedTrunk, pair)

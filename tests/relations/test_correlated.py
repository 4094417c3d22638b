"""Correlated heads: the textbook toy, and shared signs."""

from __future__ import annotations

import numpy as np
import pytest

import bmtl
from bmtl.models import SharedTrunk
from bmtl.relations import Correlated
from bmtl.trunks import Identity


def toy(seed: int):
    """Three tasks on 5 points each (Zhang & Yeung, UAI 2010, section 4.1): y = 3x + 10, −3x − 5 and 1, with noise."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.0, 10.0, (5, 3))
    y = np.array([3.0, -3.0, 0.0]) * x + [10.0, -5.0, 1.0] + rng.normal(size=(5, 3)) * np.sqrt(0.1)
    Y = np.full((15, 3), np.nan)
    for t in range(3):
        Y[5 * t : 5 * t + 5, t] = y[:, t]
    return bmtl.Tasks.from_arrays(x.T.reshape(-1, 1), Y, ["gaussian"] * 3, names=["up", "down", "flat"])


@pytest.fixture(scope="module")
def fitted():
    model = SharedTrunk(Identity(), Correlated())
    return bmtl.fit(model, toy(0), method="nuts", marginal=True, seed=1, target_accept=0.99)


def test_the_toy(fitted) -> None:
    """The first two are opposite, the third is related to neither."""
    assert fitted.converged
    table = fitted.relations().set_index(["task_a", "task_b"])
    opposite = table.loc[("up", "down")]
    assert opposite["correlation"] < -0.95 and opposite["p_negative"] > 0.99
    # One slope of each task says little of the correlation they were drawn with, but its sign.
    assert -0.6 < opposite["rho"] < -0.2
    for pair in [("up", "flat"), ("down", "flat")]:
        # The sign of a slope that is zero but for noise stays open.
        assert table.loc[pair, "correlation_low"] < -0.9 and table.loc[pair, "correlation_high"] > 0.9
        assert abs(table.loc[pair, "rho"]) < 0.35


def test_prior_correlation_is_lkj(programs) -> None:
    """Under LKJ(η) of three heads a correlation is Beta(η + ½, η + ½) on (−1, 1): variance 1 / (2η + 2)."""
    from bmtl.prior import prior_draws

    tasks = toy(0)
    for concentration in (1.0, 4.0):
        sites = prior_draws(SharedTrunk(Identity(), Correlated(concentration)), tasks, draws=20_000, seed=2)
        tril = sites["head_correlation"].astype(float)
        rho = (tril @ np.swapaxes(tril, 1, 2))[:, [0, 0, 1], [1, 2, 2]]
        expected = 1 / (2 * concentration + 2)
        # The variance of a squared correlation is below that of a uniform variable's square.
        assert np.all(np.abs(rho.var(axis=0) / expected - 1) < 5 * np.sqrt(2 / 20_000))
        assert np.all(np.abs(rho.mean(axis=0)) < 5 * np.sqrt(expected / 20_000))


def test_heads_of_different_trunks_are_independent(programs) -> None:
    from bmtl.arrangement import Arrangement

    tasks = toy(0)
    arrangement = Arrangement(((("up",), ("flat",)), (("down",),)))
    sites = programs.draw(SharedTrunk(Identity(), Correlated(), arrangement=arrangement), tasks)
    # Sorted, the trunk of down comes first, and has one head.
    assert set(sites) == {"head", "head_correlation_1", "amplitude", "intercept", "noise_gaussian"}
    assert sites["head_correlation_1"].shape == (2, 2)
    alone = programs.draw(SharedTrunk(Identity(), Correlated(), arrangement=Arrangement.decoupled(tasks.names)), tasks)
    assert set(alone) == {"head", "amplitude", "intercept", "noise_gaussian"}


@pytest.mark.parametrize("concentration", [0.0, -1.0, float("nan")])
def test_concentration_must_be_positive(concentration) -> None:
    with pytest.raises(ValueError, match="concentration > 0"):
        Correlated(concentration)

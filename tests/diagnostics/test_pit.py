"""LOO-PIT: against the exact predictive distribution, and on fits whose predictions are right and wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from bmtl.diagnostics import calibrated, loo_pit
from bmtl.errors import FitError
from bmtl.fitting import MAP, SVI
from bmtl.models import SharedTrunk
from bmtl.trunks import Identity


def conjugate(y: np.ndarray, draws: int, sd: float = 1.0, family: str = "gaussian") -> Any:
    """A fit of a mean with a flat prior and a known standard deviation, by exact draws."""
    rng = np.random.default_rng(1)
    mean = y.mean() + sd / np.sqrt(len(y)) * rng.normal(size=(2, draws, 1))
    new = mean + sd * rng.normal(size=(2, draws, len(y)))
    tasks = SimpleNamespace(names=("a",), y=[y], rows=[np.arange(len(y))], families=[SimpleNamespace(name=family)])
    return SimpleNamespace(
        method="nuts", seed=0, explained=tasks, draws=SimpleNamespace(shape=(2, draws)),
        log_likelihood=[stats.norm(mean, sd).logpdf(y)],
        data={"posterior_predictive": {"a": xr.DataArray(new, dims=["chain", "draw", "obs_a"])}},
    )


def test_is_the_predictive_distribution_without_the_cell() -> None:
    y = np.random.default_rng(0).normal(size=40)
    found = loo_pit(conjugate(y, 4000))
    others = (y.sum() - y) / 39
    exact = stats.norm(others, np.sqrt(1 + 1 / 39)).cdf(y)
    # Replicates are as good as independent: binomial Monte Carlo error.
    np.testing.assert_allclose(found["pit"], exact, atol=4 * 0.5 / np.sqrt(8000))
    assert found["trusted"].all() and found["task"].eq("a").all()


@pytest.mark.parametrize(("sd", "uniform"), [(1.0, True), (0.5, False), (2.5, False)])
def test_a_noise_that_is_too_small_or_too_large_is_seen(sd: float, uniform: bool) -> None:
    y = np.random.default_rng(2).normal(size=200)
    (row,) = calibrated(loo_pit(conjugate(y, 500, sd))).itertuples()
    assert row.n == 200 and (row.p > 0.05 if uniform else row.p < 1e-3)


def test_ties_are_broken_at_random() -> None:
    rng = np.random.default_rng(3)
    fit = conjugate(rng.normal(size=400), 500)
    counts = rng.poisson(1.5, 400).astype(float)
    fit.explained.y[0] = counts
    fit.log_likelihood[0] = 0.01 * rng.normal(size=(2, 500, 400))
    fit.data["posterior_predictive"]["a"] = xr.DataArray(
        rng.poisson(1.5, (2, 500, 400)).astype(float), dims=["chain", "draw", "obs_a"]
    )
    assert calibrated(loo_pit(fit))["p"][0] > 0.05


@pytest.mark.slow
def test_every_family_with_an_order_has_one(made: Any, five: Any, seven: Any) -> None:
    for tasks in (five, seven):
        found = loo_pit(made(SharedTrunk(Identity()), tasks, SVI(draws=100)))
        assert set(found["task"]) == set(tasks.names) - {"colour"}
        assert found["pit"].between(0, 1).all()


def test_of_large_tasks_some_cells(made: Any, pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmtl.diagnostics.pit.MOST_CELLS", 7)
    monkeypatch.setattr("bmtl.trees.PREDICTIVE_CELLS", 80 * 30)
    fit = made(SharedTrunk(Identity()), pair, SVI(draws=100))
    assert fit.data["posterior_predictive"].sizes["draw"] == 30
    assert loo_pit(fit).groupby("task").size().tolist() == [7, 7]


def test_a_map_fit_has_none(made: Any, pair: Any) -> None:
    with pytest.raises(FitError, match="no posterior draws"):
        loo_pit(made(SharedTrunk(Identity()), pair, MAP()))

"""Simulation-based calibration: uniformity is tested right, right posteriors pass and wrong ones are found out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy import stats

import bmtl
from bmtl.diagnostics import simulation_based_calibration
from bmtl.diagnostics._simulated import Simulated, effective
from bmtl.diagnostics.sbc import Calibration
from bmtl.diagnostics.uniformity import bands, holm, uniformity
from bmtl.fitting import MAP, NUTS
from bmtl.models import SharedTrunk
from bmtl.noise import HalfNormal, Known
from bmtl.trunks import Identity, Linear

FREE = SharedTrunk(Identity())
CONJUGATE = SharedTrunk(Identity(), noise=Known(1.0), amplitude=Known(1.0))
SHORT = {"warmup": 150, "draws": 200}


@dataclass(frozen=True)
class Overconfident(SharedTrunk):
    """A wrong program: its likelihood counts twice."""

    def program(self, e: Any, data: Any) -> None:
        super().program(e, replace(data, scale=2.0 * data.scale))


@pytest.fixture(scope="module")
def one() -> bmtl.Tasks:
    """One Gaussian task of one input and few rows, one of them not observed, in units of its outcomes."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(9, 1))
    y = x + rng.normal(size=(9, 1))
    y[4] = np.nan
    y = (y - np.nanmean(y)) / np.nanstd(y)
    return bmtl.Tasks.from_arrays(x, y, ["gaussian"], names=["y"])


@pytest.fixture(scope="module")
def two() -> bmtl.Tasks:
    """A Gaussian and a yes/no task of two inputs, cells missing."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(14, 2))
    Y = X @ rng.normal(size=(2, 2)) + rng.normal(size=(14, 2))
    Y[:, 1] = Y[:, 1] > 0
    Y[[2, 7], [0, 1]] = np.nan
    return bmtl.Tasks.from_arrays(X, Y, ["gaussian", "bernoulli"], names=["a", "b"])


@pytest.mark.parametrize("n", [20, 200])
def test_uniformity_is_exact(n: int) -> None:
    """p-values of uniform numbers are at most α with probability α, up to steps; 2,000 sets."""
    rng = np.random.default_rng(n)
    p = np.array([uniformity(rng.random(n)) for _ in range(2000)])
    for alpha in (0.01, 0.05, 0.2):
        # The statistic is discrete: the level is kept, and not much below.
        share = np.mean(p <= alpha)
        assert alpha - 4 * np.sqrt(alpha / 2000) - 0.02 < share < alpha + 4 * np.sqrt(alpha / 2000)


@pytest.mark.parametrize(
    "shape", [(1.0, 1.6), (1.8, 1.8), (0.6, 0.6)], ids=["biased", "too wide", "too narrow"]
)
def test_uniformity_has_power(shape) -> None:
    assert uniformity(np.random.default_rng(0).beta(*shape, 200)) < 0.01


def test_bands_hold_the_function() -> None:
    rng = np.random.default_rng(1)
    points, low, high = bands(50, 0.9)
    values = [np.mean(rng.random(50)[:, None] <= points, axis=0) for _ in range(2000)]
    share = np.mean([np.all((v >= low - 1e-12) & (v <= high + 1e-12)) for v in values])
    assert 0.88 < share < 0.97


def test_holm() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.6, 0.9])), [1.0, 1.0])


def test_effective_sample_size() -> None:
    """(1 − ρ) / (1 + ρ) of the draws of an autoregression; a chain that never moved has one."""
    rng = np.random.default_rng(2)
    draws = np.zeros((8, 4000, 2))
    for i in range(1, 4000):
        draws[:, i, 0] = 0.8 * draws[:, i - 1, 0] + rng.normal(size=8)
    ess = effective(draws)
    assert np.all(np.abs(ess[:, 0] / (4000 / 9) - 1) < 0.35) and np.all(ess[:, 1] == 1)


def test_simulated_data_follow_the_model(two) -> None:
    """Moments of prior draws and of outcomes given them, at observed cells; fillers elsewhere."""
    data = Simulated(SharedTrunk(Linear(1), noise=HalfNormal(0.5)), two, 4000, seed=0)
    sites = {name: np.asarray(value)[:, 0] for name, value in data.constrain(data.truth[:, None]).items()}
    assert data.dropped == 0
    np.testing.assert_allclose(sites["noise_gaussian"].mean(), 0.5 * np.sqrt(2 / np.pi), rtol=0.04)
    np.testing.assert_allclose(sites["head"].std(axis=0), 1.0, rtol=0.05)
    w = sites["trunk_w"][:, 0, :, 0]
    f = (w @ two.Z.T)[:, None] * sites["head"]
    eta = sites["intercept"][..., None] + sites["amplitude"][..., None] * f
    gaussian, yes = np.asarray(data.own["y/gaussian"])[:, 0], np.asarray(data.own["y/bernoulli"])[:, 0]
    z = (gaussian[:, two.rows[0]] - eta[:, 0, two.rows[0]]) / sites["noise_gaussian"]
    np.testing.assert_allclose([z.mean(), z.std()], [0.0, 1.0], atol=0.02)
    residual = yes[:, two.rows[1]] - 1 / (1 + np.exp(-eta[:, 1, two.rows[1]]))
    assert abs(residual.mean()) < 0.01
    assert np.all(gaussian[:, 2] == 1.0) and np.all(yes[:, 7] == 1.0)


@pytest.fixture(scope="module")
def right(one) -> Calibration:
    return simulation_based_calibration(CONJUGATE, one, seed=0, **SHORT)


def test_ranks_are_those_of_the_closed_form(right, one) -> None:
    """Ranks by NUTS equal the distribution function of the exact posterior, up to the draws' number."""
    data = Simulated(CONJUGATE, one, 200, seed=0)
    rows, loc = one.rows[0], data.design.intercept_loc[0]
    truth = np.asarray(data.constrain(data.truth[:, None])["intercept"])[:, 0, 0] - loc
    A = np.column_stack([np.ones(len(rows)), one.Z[rows, 0]])
    covariance = np.linalg.inv(np.eye(2) + A.T @ A)
    mean = (np.asarray(data.own["y/gaussian"])[:, 0, rows] - loc) @ A @ covariance
    exact = stats.norm.cdf((truth - mean[:, 0]) / np.sqrt(covariance[0, 0]))
    error = np.abs(right.ranks[:, right.names.index("intercept[0]")] - exact)
    # The standard error of a rank among 100 draws, as thinning may leave, is at most 0.05.
    assert np.max(error) < 0.2 and np.mean(error) < 0.04


def test_a_right_posterior_passes(right, one) -> None:
    table = right.table()
    assert right.calibrated and right.simulations == 200 and right.dropped == 0 and right.diverging.shape == (200,)
    assert list(table["quantity"]) == [
        "intercept[0]", "eta[y, 0]", f"eta[y, {one.rows[0][3]}]", "eta[y, 8]", "log_likelihood", "head[0, 0]"]
    assert table["min_ess"].min() > 20 and right.ess.shape == right.ranks.shape
    # Four standard errors of a share of 200.
    assert np.all(np.abs(table["coverage_50"] - 0.5) < 0.14) and np.all(np.abs(table["coverage_89"] - 0.89) < 0.09)
    assert "calibrated" in repr(right) and "NOT" not in repr(right)


def test_a_wrong_likelihood_is_found_out(one) -> None:
    wrong = Overconfident(CONJUGATE.trunk, noise=CONJUGATE.noise, amplitude=CONJUGATE.amplitude)
    found = simulation_based_calibration(CONJUGATE, one, seed=0, inference=wrong, **SHORT)
    assert not found.calibrated and holm(found.p_values).min() < 1e-3
    assert found.coverage(0.89)[found.names.index("intercept[0]")] < 0.85


@pytest.mark.slow
def test_a_wrong_prior_is_found_out(one) -> None:
    """Half the noise that there is on seven cells: ranks of the noise are too high."""
    model = replace(FREE, amplitude=Known(1.0))
    narrow = replace(model, noise=HalfNormal(0.5))
    found = simulation_based_calibration(model, one, seed=0, inference=narrow)
    table = found.table().set_index("quantity")
    assert not found.calibrated and table.loc["noise_gaussian[0]", "mean_rank"] > 0.55


@pytest.mark.parametrize("guide", [pytest.param("mean_field", marks=pytest.mark.slow), "full_rank"])
def test_svi(guide: str, one) -> None:
    """A full-rank guide holds a Gaussian posterior; a mean-field one of correlated parameters is too narrow."""
    skewed = replace(one, X=one.X + 3.0, x_centre=one.x_centre)
    found = simulation_based_calibration(CONJUGATE, skewed, "svi", seed=0, guide=guide, draws=500)
    assert found.method == "svi" and not np.any(found.diverging) and not any("head" in name for name in found.names)
    assert found.calibrated == (guide == "full_rank")
    coverage = found.coverage(0.89)[found.names.index("intercept[0]")]
    assert coverage < 0.7 if guide == "mean_field" else abs(coverage - 0.89) < 0.09


@pytest.mark.slow
def test_svi_on_pyro(one) -> None:
    """The same data sets, one after another, with the ranks that NumPyro gives them."""
    options = {"simulations": 4, "seed": 2, "guide": "full_rank", "draws": 2000}
    found, other = (
        simulation_based_calibration(CONJUGATE, one, "svi", engine=engine, **options) for engine in ("pyro", "numpyro")
    )
    assert found.engine == "pyro" and found.names == other.names
    np.testing.assert_allclose(found.ranks, other.ranks, atol=0.08)


def test_two_tasks_with_missing_cells(two) -> None:
    """Quantities of both families; sites with symmetries are ranked on chains of their own."""
    found = simulation_based_calibration(SharedTrunk(Linear(1)), two, simulations=20, warmup=60, draws=60, seed=0)
    sites = {name.split("[")[0] for name in found.names}
    assert sites == {"amplitude", "intercept", "noise_gaussian", "eta", "log_likelihood", "head", "trunk_w"}
    assert found.ranks.shape == (20, len(found.names)) and np.all((found.ranks > 0) & (found.ranks < 1))
    assert "eta[b, 13]" in found.names
    figure = found.plot()
    FigureCanvasAgg(figure).draw()
    assert len(figure.axes[0].lines) == len(found.names) + 1 and len(figure.legends[0].texts) == 3


def test_what_is_not_finite_is_dropped_and_counted(one) -> None:
    data = Simulated(replace(FREE, amplitude=HalfNormal(1e38)), one, 30, seed=0)
    assert data.dropped > 0 and len(data.truth) == len(data.own["y/gaussian"]) == 30 - data.dropped


def test_no_simulation_that_can_be_fitted_is_an_error(one) -> None:
    with pytest.raises(bmtl.FitError, match="finite for no simulation"):
        simulation_based_calibration(CONJUGATE, one, "svi", simulations=2, learning_rate=1e20, max_steps=500)


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("nuts", {"engine": "pyro"}, "by NUTS on numpyro with one chain each"),
        (NUTS(), {}, "one chain each"),
        (MAP(), {}, "fitted by SVI"),
        ("svi", {"engine": "stan"}, "on stan"),
        ("nuts", {"simulations": 1}, "simulations must be ≥ 2, got 1"),
        ("hmc", {}, "unknown method 'hmc'"),
    ],
)
def test_refused(method, options, words: str, one) -> None:
    with pytest.raises(ValueError, match=words):
        simulation_based_calibration(CONJUGATE, one, method, **options)


def test_the_verdict_is_family_wise() -> None:
    rng = np.random.default_rng(0)
    ranks, diverging = rng.random((100, 2)), np.zeros(100, dtype=int)
    good = Calibration(("a", "b"), ranks, np.ones_like(ranks), diverging, 0, "nuts", "numpyro", 1.0)
    assert good.calibrated
    bad = replace(good, ranks=good.ranks ** [1.0, 2.0])
    assert not bad.calibrated and "smallest p" in repr(bad) and "(b)" in repr(bad)
    assert list(bad.table()["p_holm"] < 0.01) == [False, True]

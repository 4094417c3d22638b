"""Weighted likelihoods in SVI: power posteriors against their closed form, GradNorm against its aim, what is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import bmtl
from bmtl.fitting import SVI
from bmtl.models import SharedTrunk
from bmtl.training import GradNorm, Static, Unitary
from bmtl.trunks import MLP, Identity

NOISE, PRIOR = 0.7, 0.5


@dataclass(frozen=True)
class Means:
    """A mean for each Gaussian task, with a Normal(0, PRIOR) prior and a known noise on the modelled scale."""

    def arranged(self, names: tuple[str, ...]) -> bmtl.Arrangement:
        return bmtl.Arrangement.decoupled(names)

    def program(self, e: Any, data: Any) -> None:
        zero, scale = e.asarray(np.zeros(data.design.n_tasks)), e.asarray(PRIOR)
        mean = e.sample("head", e.dist.Normal(zero, scale).to_event(1))
        (block,) = data.blocks()
        eta = mean[..., None] if data.task is None else mean[..., data.task]
        e.observe(block, eta + 0.0 * block.exposure, e.asarray(NOISE) + 0.0 * block.exposure, data.scale)


@pytest.fixture(scope="module")
def shifted() -> bmtl.Tasks:
    """Standardised outcomes have mean 0: here half of each task's cells are held out, so that the means are others."""
    rng = np.random.default_rng(3)
    Y = rng.normal(size=(60, 2)) * [1.0, 20.0] + np.linspace(-2, 2, 60)[:, None] * [1.0, 20.0]
    tasks = bmtl.Tasks.from_arrays(
        np.zeros((60, 1)) + np.arange(60)[:, None], Y, ["gaussian"] * 2, names=["u", "v"], importance={"v": 4.0}
    )
    return tasks.keep_cells([np.arange(60) < 40, np.arange(60) < 12])


@pytest.mark.filterwarnings("ignore::bmtl.errors.PowerPosteriorWarning")
@pytest.mark.parametrize("engine", ["numpyro", "pyro"])
@pytest.mark.parametrize(
    ("weighting", "powers"), [(Static(), [1.0, 4.0]), (Static({"u": 0.25}), [0.25, 1.0])], ids=["importance", "given"]
)
def test_power_posterior_has_its_exact_mean_and_spread(engine, weighting, powers, shifted) -> None:
    options = {"engine": engine, "device": "cpu", "weighting": weighting, "restarts": 1, "draws": 4000}
    fit = bmtl.fit(Means(), shifted, seed=0, **options)
    assert fit.powers == dict(zip(["u", "v"], powers, strict=True))
    for t, power in enumerate(powers):
        y = shifted.y_std(t)
        precision = 1.0 / PRIOR**2 + power * len(y) / NOISE**2
        mean, sd = power * y.sum() / NOISE**2 / precision, precision**-0.5
        draws = fit.flat["head"][:, t]
        # Four Monte Carlo errors, and what the optimiser leaves.
        assert draws.mean() == pytest.approx(mean, abs=4 * sd / np.sqrt(4000) + 0.02 * sd)
        assert draws.std() == pytest.approx(sd, rel=4 / np.sqrt(2 * 4000) + 0.03)


@pytest.mark.filterwarnings("ignore::bmtl.errors.PowerPosteriorWarning")
def test_powers_of_rows_that_each_belong_to_one_task(grouped) -> None:
    tasks = grouped("gaussian")
    weighting = Static({tasks.names[1]: 9.0})
    fit = bmtl.fit(Means(), tasks, seed=0, weighting=weighting, restarts=1)
    powers = np.array([1.0, 9.0, 1.0])
    precision = 1.0 / PRIOR**2 + powers * np.array(tasks.n_cells) / NOISE**2
    means = powers * [tasks.y_std(t).sum() for t in range(3)] / NOISE**2 / precision
    np.testing.assert_allclose(fit.flat["head"].mean(axis=0), means, atol=0.2 * precision.min() ** -0.5)
    np.testing.assert_allclose(fit.flat["head"].std(axis=0), precision**-0.5, rtol=0.12)


@pytest.fixture(scope="module")
def unequal() -> bmtl.Tasks:
    """Two tasks of one function: 40 cells with much noise, 200 with little. The gradients of the second are larger."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2))
    f = np.sin(X[:, 0]) + 0.5 * X[:, 1]
    Y = np.column_stack([f + 2.0 * rng.normal(size=200), f + 0.1 * rng.normal(size=200)])
    return bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=["noisy", "clean"])


@pytest.mark.filterwarnings("ignore::bmtl.errors.ConvergenceWarning")
@pytest.mark.parametrize("engine", ["numpyro", pytest.param("pyro", marks=pytest.mark.slow)])
def test_gradnorm_raises_the_power_of_small_gradients(engine, unequal) -> None:
    weighting = GradNorm(alpha=0.0, learning_rate=0.01)
    with pytest.warns(bmtl.PowerPosteriorWarning, match="the target is a power posterior"):
        fit = bmtl.fit(
            SharedTrunk(MLP((4,))), unequal, seed=0, engine=engine, device="cpu", weighting=weighting, trunk="guide",
            max_steps=2000, draws=50,
        )
    assert sum(fit.powers.values()) == pytest.approx(2.0, abs=1e-3)
    assert fit.powers["noisy"] > 1.2 > 0.8 > fit.powers["clean"]
    # One run, for ELBOs of several targets cannot be compared.
    assert fit.draws.elbo.shape == (1,)


def test_a_fit_says_that_its_target_is_not_the_posterior(unequal, tmp_path) -> None:
    with pytest.warns(bmtl.PowerPosteriorWarning, match="noisy 1, clean 3"):
        fit = bmtl.fit(
            SharedTrunk(Identity()), unequal, seed=0, weighting=Static({"clean": 3.0}), restarts=1, draws=50
        )
    said = "power posterior (likelihoods to the powers noisy 1, clean 3)"
    assert fit.target == fit.summary()["target"] == said and said in repr(fit)
    assert fit.data.attrs["target"] == said
    fit.report(tmp_path / "fit.html")
    assert f"the target is a {said}" in (tmp_path / "fit.html").read_text("utf-8")
    for call in (fit.elpd, lambda: fit.loo):
        with pytest.raises(bmtl.FitError, match="this is a power posterior"):
            call()
    fit.save(tmp_path / "fit.nc")
    again = bmtl.load(tmp_path / "fit.nc")
    assert again.powers == fit.powers and again.settings == fit.settings
    other = unequal.permuted("clean", seed=0, new_name="other").select(["other"])
    with pytest.raises(TypeError, match="extend adds tasks to a posterior"):
        fit.extend(other)


def test_what_is_refused(unequal) -> None:
    with pytest.raises(TypeError, match=r"Static.*or GradNorm"):
        SVI(weighting=Unitary())
    with pytest.raises(TypeError, match=r"Static.*or GradNorm"):
        SVI(weighting=Static)
    with pytest.raises(ValueError, match="advise compares posteriors"):
        bmtl.advise(SharedTrunk(), unequal, weighting=Static())
    with pytest.raises(bmtl.TaskError, match="unknown tasks: 'other'"):
        bmtl.fit(SharedTrunk(Identity()), unequal, weighting=Static({"other": 1.0}))
    for engine in ("numpyro", "pyro"):
        with pytest.raises(bmtl.FitError, match="Identity has none"):
            bmtl.fit(SharedTrunk(Identity()), unequal, engine=engine, device="cpu", weighting=GradNorm())

"""Priors on scales: names, units, and what they refuse."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from numpyro.handlers import seed, trace
from scipy import stats

import bmtl
from bmtl import replay
from bmtl.data import Data, Design, arrays, take_rows
from bmtl.engine.numpyro import NumPyroEngine
from bmtl.engine.pyro import PyroEngine
from bmtl.fitting import numpyro_latent, pyro_latent
from bmtl.models import SharedTrunk
from bmtl.noise import ByGroup, HalfCauchy, HalfNormal, InverseGamma, Known
from bmtl.trunks import Identity

UNIT = np.array([1.0, 10.0, 0.5])
SCALE = np.array([1.0, 2.0, 3.0])


def root_inverse_gamma(shape: float, scale: np.ndarray):
    """The exact distribution of the root of an inverse gamma variable: a generalised gamma with power −2."""
    return stats.gengamma(shape, -2.0, scale=np.sqrt(scale))


PRIORS = {
    "half-normal": (HalfNormal(0.3), stats.halfnorm(scale=0.3 * SCALE)),
    "half-Cauchy": (HalfCauchy(0.3), stats.halfcauchy(scale=0.3 * SCALE)),
    "inverse gamma": (InverseGamma(4.0, 0.5), root_inverse_gamma(4.0, 0.5 * SCALE**2)),
}
every_prior = pytest.mark.parametrize(("prior", "exact"), PRIORS.values(), ids=PRIORS)


def sites(prior, scale=UNIT):
    with trace() as found, seed(rng_seed=0):
        value = prior.sample(NumPyroEngine(), "noise", scale, UNIT)
    return np.asarray(value), found


@every_prior
def test_density_is_on_the_modelled_scale(prior, exact) -> None:
    """The user's unit plays no part: outcomes have unit spread where these priors stand. Both engines."""
    value, found = sites(prior, SCALE)
    assert list(found) == ["noise"] and value.shape == (3,) and np.all(value > 0)
    at = np.array([0.2, 0.9, 1.7], dtype=np.float32)
    expected = exact.logpdf(at).sum()
    assert float(found["noise"]["fn"].log_prob(at)) == pytest.approx(expected, rel=1e-5)

    pyro_found = pyro.poutine.trace(lambda: prior.sample(PyroEngine(), "noise", SCALE, UNIT)).get_trace().nodes["noise"]
    assert float(pyro_found["fn"].log_prob(torch.as_tensor(at))) == pytest.approx(expected, rel=1e-5)


@every_prior
def test_draws_have_the_exact_distribution(prior, exact) -> None:
    """20,000 draws on both engines: means (of a half-Cauchy there are none: medians) and tail probabilities."""
    _, found = sites(prior, SCALE)
    node = pyro.poutine.trace(lambda: prior.sample(PyroEngine(), "noise", SCALE, UNIT)).get_trace().nodes["noise"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        both = [found["noise"]["fn"].sample(jax.random.PRNGKey(0), (20_000,)), node["fn"].sample((20_000,))]
    for draws in map(np.asarray, both):
        assert draws.shape == (20_000, 3)
        for p in (0.1, 0.5, 0.9):
            # Four standard errors of a share.
            np.testing.assert_allclose(np.mean(draws < exact.ppf(p), axis=0), p, atol=4 * np.sqrt(p * (1 - p) / 20_000))
        if np.all(np.isfinite(exact.std())):
            np.testing.assert_allclose(draws.mean(axis=0), exact.mean(), rtol=0.02)


def test_the_mean_variance_of_an_inverse_gamma() -> None:
    """E σ² = scale / (shape − 1), times the squared natural scale."""
    _, found = sites(InverseGamma(6.0, 2.0), SCALE)
    draws = np.asarray(found["noise"]["fn"].sample(jax.random.PRNGKey(1), (40_000,)))
    np.testing.assert_allclose((draws**2).mean(axis=0), 2.0 / 5.0 * SCALE**2, rtol=0.02)


@pytest.mark.parametrize("prior", [HalfCauchy(), InverseGamma()], ids=["half-Cauchy", "inverse gamma"])
def test_in_a_model(prior, five, programs) -> None:
    """As noise and as amplitude: both engines agree on the density and on its gradient, which is finite."""
    model = SharedTrunk(Identity(), noise=prior, amplitude=prior)
    design = Design.of(five)
    values = arrays(five, design)
    drawn = programs.draw(model, five, seed=3)
    densities = [float(score(model, five, drawn)) for score in (programs.numpyro, programs.pyro)]
    assert densities[0] == pytest.approx(densities[1], rel=1e-4)

    held = {name: jax.numpy.asarray(value) for name, value in values.items()}
    tensors = {name: torch.as_tensor(value) for name, value in values.items()}

    def program(engine, held, scale=1.0):
        model.program(engine, Data(design, held, scale))

    ours = numpyro_latent.Latent(partial(program, NumPyroEngine()), held, lambda name: False)
    theirs = pyro_latent.Latent(program, "cpu", tensors, lambda name: False)
    gradient = jax.jit(jax.grad(lambda z: ours.log_density(z, held)))
    for seed_ in range(5):
        start = np.array(ours.start(jax.random.PRNGKey(seed_), held))
        z = torch.tensor(start, requires_grad=True)
        (slope,) = torch.autograd.grad(theirs.log_density(z, tensors), z)
        expected = np.asarray(gradient(start))
        assert np.all(np.isfinite(expected))
        np.testing.assert_allclose(slope.numpy(), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_known_is_in_the_users_units() -> None:
    value, found = sites(Known(2.0))
    np.testing.assert_allclose(value * UNIT, 2.0, rtol=1e-6)
    assert not found


@pytest.mark.parametrize("kind", [HalfNormal, HalfCauchy, InverseGamma, Known])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_refused(kind, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{kind.__name__} needs a finite \w+ > 0, got"):
        kind(value)


@pytest.fixture(scope="module")
def sites_of_rows() -> bmtl.Tasks:
    """Two tasks on rows of two sites, in whose second the noise is five times as large; cells missing."""
    rng = np.random.default_rng(8)
    X = rng.normal(size=(120, 2))
    site = np.where(np.arange(120) % 3 == 0, "b", "a")
    noise = np.where(site == "b", 1.0, 0.2)[:, None] * rng.normal(size=(120, 2))
    Y = [5.0, 10.0] * (X @ np.array([[1.0, 0.5], [-0.5, 1.0]]) + noise)
    Y[rng.random(Y.shape) < 0.1] = np.nan
    return bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=["u", "v"]).with_noise_groups(site)


BY_GROUP = SharedTrunk(Identity(), noise=ByGroup())


def test_noise_by_group(sites_of_rows, tmp_path) -> None:
    """Minibatches, weights and predictions see the groups, and so does a fit that was saved and loaded."""
    fit = bmtl.fit(BY_GROUP, sites_of_rows, seed=0, restarts=1, batch_size=60, draws=400)
    table = fit.weights()
    assert list(table["task"]) == ["u", "u", "v", "v"] and list(table["group"]) == ["a", "b", "a", "b"]
    truth = np.array([1.0, 5.0, 2.0, 10.0])
    np.testing.assert_allclose(table["noise"], truth, rtol=0.3)
    draws = np.concatenate([fit.noise["u"], fit.noise["v"]], axis=2)
    assert draws.shape == (1, 400, 4)
    np.testing.assert_allclose(table["weight"], np.mean(draws**-2.0, axis=(0, 1)), rtol=1e-3)

    x = np.zeros((2, 2))
    drawn = fit.predict(x, group=["a", "b"])["predictions"]["u"].values
    np.testing.assert_allclose(drawn.std(axis=(0, 1)), [1.0, 5.0], rtol=0.3)
    fit.save(tmp_path / "fit.nc")
    again = bmtl.load(tmp_path / "fit.nc")
    assert again.model == BY_GROUP and again.tasks.noise_levels == ("a", "b")
    np.testing.assert_array_equal(again.predict(x, group=["a", "b"])["predictions"]["u"].values, drawn)

    refused = [(None, "give the group of each"), (["a"], "each of the 2 rows"), (["a", "c"], "unknown noise groups")]
    for group, words in refused:
        with pytest.raises(bmtl.TaskError, match=words):
            fit.predict(x, group=group)


def test_one_group_is_no_group(sites_of_rows, programs) -> None:
    """With one group the log-density is that without any; on both engines noises by group have one density."""
    one = sites_of_rows.with_noise_groups(["a"] * 120)
    drawn = programs.draw(SharedTrunk(Identity()), one, seed=1)
    assert float(programs.numpyro(BY_GROUP, one, drawn)) == float(programs.numpyro(SharedTrunk(Identity()), one, drawn))
    drawn = programs.draw(BY_GROUP, sites_of_rows, seed=2)
    assert drawn["noise_gaussian"].shape == (4,)
    densities = [float(score(BY_GROUP, sites_of_rows, drawn)) for score in (programs.numpyro, programs.pyro)]
    assert densities[0] == pytest.approx(densities[1], rel=1e-4)


@pytest.mark.parametrize("family", ["gaussian", "negative_binomial"])
def test_groups_of_long_tasks(family: str, grouped, programs) -> None:
    """Each row's noise is that of its task and group, in float64 by hand."""
    tasks = grouped(family)
    tasks = tasks.with_noise_groups(np.arange(tasks.n_rows) % 2)
    drawn = programs.draw(BY_GROUP, tasks, seed=3)
    found = replay.log_likelihood(BY_GROUP, tasks, {name: value[None] for name, value in drawn.items()})
    etas = replay.linear_predictor(BY_GROUP, tasks, {name: value[None] for name, value in drawn.items()})
    noise = drawn[f"noise_{family}"].reshape(tasks.n_tasks, 2)
    for t, own in enumerate(tasks.families):
        at = noise[t, tasks.rows[t] % 2]
        exact = own.log_prob(tasks.y_std(t), etas[t][0].astype(float), at, tasks.exposure[t]) - np.log(tasks.y_scale[t])
        np.testing.assert_allclose(found[t][0], exact, rtol=1e-4, atol=1e-4)
    densities = [float(score(BY_GROUP, tasks, drawn)) for score in (programs.numpyro, programs.pyro)]
    assert densities[0] == pytest.approx(densities[1], rel=1e-4)


def test_groups_stay_with_their_rows(sites_of_rows) -> None:
    kept = sites_of_rows.select(["v"]).keep_cells([np.arange(len(sites_of_rows.rows[1])) < 50]).permuted("v", seed=0)
    assert kept.noise_levels == ("a", "b") and kept.noise_group is not None
    np.testing.assert_array_equal(kept.noise_group, np.arange(120) % 3 == 0)
    some = take_rows(arrays(kept, Design.of(kept)), np.array([0, 1, 3]))
    np.testing.assert_array_equal(some["group"], [1, 0, 1])


def test_groups_refused(sites_of_rows, pair) -> None:
    with pytest.raises(bmtl.TaskError, match="120 rows"):
        sites_of_rows.with_noise_groups(["a", "b"])
    with pytest.raises(bmtl.TaskError, match="missing values"):
        sites_of_rows.with_noise_groups([None, pd.NA, np.nan] + ["a"] * 117)
    with pytest.raises(ValueError, match="with_noise_groups"):
        bmtl.fit(BY_GROUP, pair)
    with pytest.raises(ValueError, match="not noises by group"):
        bmtl.fit(BY_GROUP, sites_of_rows, method="nuts", marginal=True, chains=1, warmup=1, draws=1)
    with pytest.raises(ValueError, match="give a model without noise by group"):
        bmtl.advise(BY_GROUP, sites_of_rows)
    with pytest.raises(ValueError, match="draws a value for each"):
        ByGroup(Known(1.0))

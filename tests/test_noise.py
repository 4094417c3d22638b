"""Priors on scales: names, units, and what they refuse."""

from __future__ import annotations

import jax
import numpy as np
import pyro
import pytest
import torch
from numpyro.handlers import seed, trace
from scipy import stats

from bmtl.data import Data, Design, arrays
from bmtl.engine.numpyro import NumPyroEngine
from bmtl.engine.pyro import PyroEngine
from bmtl.fitting import numpyro_latent, pyro_latent
from bmtl.models import SharedTrunk
from bmtl.noise import HalfCauchy, HalfNormal, InverseGamma, Known
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

    def on(engine):
        return lambda held, scale=1.0: model.program(engine, Data(design, held, scale))

    ours = numpyro_latent.Latent(on(NumPyroEngine()), held, lambda name: False)
    theirs = pyro_latent.Latent(on(PyroEngine()), tensors, lambda name: False)
    gradient = jax.jit(jax.grad(lambda z: ours.log_density(z, held)))
    for seed_ in range(5):
        start = np.array(ours.start(jax.random.PRNGKey(seed_)))
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

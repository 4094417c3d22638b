"""The guide that bends: its density, and what it reaches that no Gaussian does."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch

import bmtl
from bmtl.data import Design, arrays
from bmtl.fitting import numpyro_svi, pyro_svi
from bmtl.fitting.numpyro_guide import draw_from, posterior
from bmtl.fitting.settings import SVI
from bmtl.models import SharedTrunk
from bmtl.noise import Known
from bmtl.trunks import Identity

SETTINGS = SVI(guide="flow", restarts=1)
# Outcomes tell the product of amplitude and head only.
RIDGE = SharedTrunk(Identity(), noise=Known(0.5))


@pytest.fixture(scope="module")
def ridge():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(100, 1))
    return bmtl.Tasks.from_arrays(x, 0.5 * x + 0.5 * rng.normal(size=(100, 1)), ["gaussian"], names=["y"])


def on_numpyro(model, tasks):
    design = Design.of(tasks)
    held = {name: jax.numpy.asarray(value) for name, value in arrays(tasks, design).items()}
    svi = numpyro_svi.NumPyroSVI(model, design, SETTINGS, held)
    return svi, svi.start(jax.random.PRNGKey(3), held)


def test_density_is_that_of_the_inverse(pair) -> None:
    """A draw's density, computed as it is made, equals that found by undoing the flows; on both engines."""
    _, params = on_numpyro(SharedTrunk(Identity()), pair)
    q = posterior(params)
    for seed in range(3):
        drawn, density = draw_from(q, jax.random.PRNGKey(seed))
        assert float(q.log_prob(drawn)) == pytest.approx(float(density), rel=1e-4)

    design = Design.of(pair)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        found = pyro_svi.PyroSVI(SharedTrunk(Identity()), design, SETTINGS, arrays(pair, design))
        other = found.guide.posterior(found.guide.named(found.flat[0]))
        drawn = other.sample()
        density = float(other.log_prob(drawn))
        # A copy is not the draw that the transforms remember.
        assert float(other.log_prob(drawn.clone())) == pytest.approx(density, rel=1e-4)


def test_density_integrates_to_one(pair) -> None:
    """The mean of p/q over draws is one for any density p, here a wide Gaussian's about the same place."""
    _, params = on_numpyro(SharedTrunk(Identity()), pair)
    q = posterior(params)
    drawn, density = jax.vmap(lambda key: draw_from(q, key))(jax.random.split(jax.random.PRNGKey(1), 80_000))
    centre, scale = np.mean(drawn, axis=0), 0.7 * np.std(drawn, axis=0)
    log_p = np.sum(-0.5 * ((drawn - centre) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi), axis=1)
    ratio = np.exp(log_p - np.asarray(density))
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(len(ratio))
    assert ratio.std() / np.sqrt(len(ratio)) < 0.02


@pytest.mark.parametrize("engine", ["numpyro", pytest.param("pyro", marks=pytest.mark.slow)])
def test_it_bends_where_a_gaussian_cannot(engine, ridge) -> None:
    """Amplitude and head lie on a curve: the flow comes closer to the posterior than a Gaussian of full rank."""
    ratio = {
        guide: bmtl.fit(RIDGE, ridge, engine=engine, guide=guide, restarts=1, seed=0).draws.log_ratio
        for guide in ("full_rank", "flow")
    }
    gain = ratio["flow"].mean() - ratio["full_rank"].mean()
    assert gain > 5 * np.sqrt(sum(own.var() for own in ratio.values()) / 1000) and gain > 0.1
    # The ratio of posterior and guide would be the same at every draw if they were the same.
    assert ratio["flow"].std() < 0.8 * ratio["full_rank"].std()

"""Heads of low rank: the prior by simulation, and the rank that is found."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from numpyro.handlers import seed
from scipy import stats

import bmtl
from bmtl.arrangement import Arrangement
from bmtl.data import Design
from bmtl.engine.numpyro import NumPyroEngine
from bmtl.models import SharedTrunk
from bmtl.noise import HalfNormal
from bmtl.relations import LowRank
from bmtl.trunks import Identity


def heads(relation, tasks, arrangement, k: int, draws: int) -> np.ndarray:
    """Draws of the heads from the prior."""
    design = Design.of(tasks)
    plan = design.plan(arrangement)

    def one(key):
        with seed(rng_seed=key):
            return relation.sample(NumPyroEngine(), plan, design, k, HalfNormal()).w

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.PRNGKey(0), draws)), dtype=float)


@pytest.mark.parametrize("rank", [None, 2])
def test_prior_is_the_stated_one(rank, five) -> None:
    """Two-sample tests against the docstring's formula in numpy: a coefficient, and inner products of heads."""
    k, draws = 4, 20_000
    w = heads(LowRank(rank), five, Arrangement.shared(five.names), k, draws)
    rng = np.random.default_rng(1)
    r = rank or k
    v = rng.uniform(size=(draws, r))
    v[:, -1] = 1.0
    share = v * np.cumprod(np.column_stack([np.ones(draws), 1 - v[:, :-1]]), axis=1)
    np.testing.assert_allclose(share.sum(axis=1), 1.0)
    loading, basis = rng.normal(size=(draws, 5, r)), rng.normal(size=(draws, r, k))
    direct = np.einsum("dhc,dc,dcj->dhj", loading, np.sqrt(share), basis)
    for statistic in (lambda w: w[:, 2, 1], lambda w: np.sum(w[:, 0] * w[:, 3], 1), lambda w: np.sum(w**2, (1, 2))):
        assert stats.ks_2samp(statistic(w), statistic(direct)).pvalue > 1e-3
    # Heads are of unit scale, whatever the rank.
    square = np.mean(w**2, axis=(1, 2))
    assert abs(square.mean() - 1.0) < 5 * square.std() / np.sqrt(draws)
    assert np.all(np.linalg.matrix_rank(w[:100], tol=1e-4) <= r)


def test_trunks_mix_functions_of_their_own(five) -> None:
    """With one function a trunk, heads of one trunk are parallel and those of two are not."""
    w = heads(LowRank(1), five, Arrangement(((("size",), ("tail",)), (("any", "count"), ("burst",)))), 4, 50)
    unit = w / np.linalg.norm(w, axis=-1, keepdims=True)
    cosine = np.abs(unit @ np.swapaxes(unit, 1, 2))
    np.testing.assert_allclose(cosine[:, 0, 1], 1.0, atol=1e-5)
    np.testing.assert_allclose(cosine[:, 2, 3], 1.0, atol=1e-5)
    assert np.median(cosine[:, 0, 2]) < 0.9


@pytest.fixture(scope="module")
def mixed():
    """Eight tasks of two functions of ten inputs."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 10))
    B = rng.normal(size=(8, 2)) @ rng.normal(size=(2, 10))
    B /= np.linalg.norm(B, axis=1, keepdims=True)
    return B, bmtl.Tasks.from_arrays(X, X @ B.T + rng.normal(size=(100, 8)), ["gaussian"] * 8)


@pytest.mark.slow
def test_finds_rank_two_of_eight_tasks(mixed) -> None:
    B, tasks = mixed
    options = {"method": "nuts", "seed": 0, "warmup": 500, "draws": 600}
    fit = bmtl.fit(SharedTrunk(Identity(), LowRank()), tasks, target_accept=0.99, **options)
    assert fit.draws.stats["diverging"].sum() == 0
    rank = fit.rank().set_index("rank")["probability"]
    assert rank.loc[2] > 0.9 and rank.sum() == pytest.approx(1.0)
    # Knowing that there are few functions pays: errors are smaller than those of independent heads.
    apart = bmtl.fit(SharedTrunk(Identity()), tasks, **options)
    truth = B * tasks.x_scale
    error = [np.mean((own.inputs()["effect"].to_numpy().reshape(8, 10) - truth) ** 2) for own in (fit, apart)]
    assert error[0] < 0.8 * error[1]
    # What independent heads find is noise in all directions.
    assert apart.rank().set_index("rank")["probability"].get(2, 0.0) < 0.5


@pytest.mark.parametrize("rank", [0, -1])
def test_refused(rank) -> None:
    with pytest.raises(ValueError, match="LowRank needs a rank ≥ 1, got"):
        LowRank(rank)

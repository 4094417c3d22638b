"""Sparse heads: the prior by simulation, and which inputs are found."""

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
from bmtl.relations import Sparse
from bmtl.trunks import Identity

TWO_TRUNKS = Arrangement(((("size", "tail"), ("any",)), (("count",), ("burst",))))


@pytest.mark.parametrize("expected", [None, 0.3])
def test_prior_is_the_stated_one(expected, five) -> None:
    """Two-sample tests against the docstring's formula in numpy: a coefficient, and ratios inside and across rows."""
    k, n, draws = 6, five.n_rows, 20_000
    design = Design.of(five)
    plan = design.plan(TWO_TRUNKS)

    def one(key):
        with seed(rng_seed=key):
            return Sparse(expected).sample(NumPyroEngine(), plan, design, k, HalfNormal()).w

    w = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.PRNGKey(0), draws)), dtype=float) / k**0.5
    rng = np.random.default_rng(1)
    p0 = expected or 0.2 * k
    tau = p0 / (k - p0) / np.sqrt(n) * np.abs(rng.standard_cauchy(draws))
    r = np.abs(rng.standard_cauchy((draws, 2)))
    s = tau[:, None] * np.hypot(r[:, [0, 0, 1]], np.abs(rng.standard_cauchy((draws, 3))))
    direct = s * rng.normal(size=(draws, 3)) / np.sqrt(1 + max(p0, 1.0) * s**2)
    # Heads 0 and 1 are on one trunk and share the row's scale, head 2 is on the other.
    ours, theirs = ((w[:, 0, 3], w[:, 1, 3], w[:, 2, 3]), direct.T)
    assert stats.ks_2samp(ours[0], theirs[0]).pvalue > 1e-3
    ratios = [[np.log(np.abs(a / b)) for a, b in ((own[0], own[1]), (own[1], own[2]))] for own in (ours, theirs)]
    for one, other in zip(*ratios, strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-3
    assert stats.ks_2samp(*ratios[1]).pvalue < 1e-6


@pytest.fixture(scope="module")
def found():
    """Inputs 0, 4 and 9 matter to all four tasks, input 12 to the second only; 11 others to none."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(150, 15))
    B = np.zeros((4, 15))
    B[:, [0, 4, 9]] = rng.choice([-1, 1], (4, 3)) * rng.uniform(0.6, 1.0, (4, 3))
    B[1, 12] = 0.8
    Y = 10.0 * (X @ B.T + rng.normal(size=(150, 4)))
    tasks = bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 4)
    model = SharedTrunk(Identity(), Sparse())
    return B, bmtl.fit(model, tasks, method="nuts", seed=0, warmup=500, draws=600, target_accept=0.95)


@pytest.mark.slow
def test_finds_the_inputs_that_matter(found) -> None:
    B, fit = found
    assert fit.draws.stats["diverging"].sum() == 0
    table = fit.inputs()
    p = table["p_matters"].to_numpy().reshape(4, 15)
    assert np.all(p[B != 0] > 0.9) and np.all(p[B == 0] < 0.5)
    # Effects of one standard deviation of the input, in the outcome's units.
    truth = 10.0 * B * fit.tasks.x_scale
    effect = table["effect"].to_numpy().reshape(4, 15)
    assert np.max(np.abs(effect - truth)) < 5 * 10.0 / np.sqrt(150)
    assert np.sqrt(np.mean((effect - truth)[B == 0] ** 2)) < 0.5 * 10.0 / np.sqrt(150)


@pytest.mark.slow
def test_rows_and_cells_have_their_own_scales(found) -> None:
    _, fit = found
    row = np.median(fit.draws.sites["head_row"], axis=(0, 1))[0]
    cell = np.median(fit.draws.sites["head_cell"], axis=(0, 1))
    others = np.setdiff1d(np.arange(15), [0, 4, 9, 12])
    assert np.all(row[[0, 4, 9]] > 2 * row[others].max())
    # Tasks follow their heads in order of name, which is theirs.
    assert np.argmax(cell[1]) == 12 and cell[1, 12] > 2 * cell[[0, 2, 3], 12].max()


@pytest.mark.parametrize("expected", [0.0, -1.0, float("nan"), float("inf")])
def test_refused(expected) -> None:
    with pytest.raises(ValueError, match="Sparse needs a finite expected > 0, got"):
        Sparse(expected)


def test_more_expected_than_there_are(five) -> None:
    with pytest.raises(ValueError, match="Sparse expects 3 features to matter, but there are only 3"):
        bmtl.fit(SharedTrunk(Identity(), Sparse(3.0)), five)

"""LOO against ArviZ, against importance sampling done by hand, and by parts against the whole."""

from __future__ import annotations

import arviz_stats
import numpy as np
import pytest
from arviz_base import from_dict
from scipy import stats
from scipy.special import logsumexp

from bmtl.diagnostics import loo as loo_module
from bmtl.diagnostics import psis_loo
from bmtl.diagnostics.loo import from_sample
from bmtl.fitting.draws import Draws


def conjugate(n: int = 30, shift: float = 0.0, seed: int = 0):
    """Outcomes Normal(μ, 1), flat prior: draws of μ from a guide off by ``shift``, likelihoods, ratios, exact LOO."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    guide = stats.norm(y.mean() + shift / np.sqrt(n), 1.2 / np.sqrt(n))
    mu = guide.rvs(size=(4, 1000), random_state=rng)
    log_likelihood = stats.norm(mu[..., None], 1.0).logpdf(y)
    ratio = stats.norm(y.mean(), 1 / np.sqrt(n)).logpdf(mu) - guide.logpdf(mu) + 17.0
    exact = []
    for i in range(n):
        rest = np.delete(y, i)
        exact.append(stats.norm(rest.mean(), np.sqrt(1 + 1 / (n - 1))).logpdf(y[i]))
    return mu, log_likelihood, ratio, np.array(exact)


def of(log_likelihood: np.ndarray, ratio: np.ndarray | None = None):
    shape = log_likelihood.shape[:2]
    draws = Draws({"z": np.zeros(shape)}, log_ratio=None if ratio is None else ratio.ravel())
    return psis_loo(log_likelihood, draws)


def exact_draws(seed: int = 0, n: int = 30):
    rng = np.random.default_rng(seed)
    y = np.random.default_rng(0).normal(size=n)
    mu = rng.normal(y.mean(), 1 / np.sqrt(n), size=(4, 1000))
    return stats.norm(mu[..., None], 1.0).logpdf(y)


def test_equals_the_closed_form() -> None:
    """Within five times the scatter over independent sets of draws."""
    *_, exact = conjugate()
    found = np.array([of(exact_draws(seed)).pointwise for seed in range(10)])
    error = found.sum(axis=1).std(ddof=1) / np.sqrt(10)
    assert error < 0.01
    assert abs(found.sum(axis=1).mean() - exact.sum()) < 5 * error


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_draws_of_a_guide_are_corrected(shift: float) -> None:
    """A guide that is shifted and too wide gives the same LOO once its ratios are used; without them it does not."""
    corrected, raw = [], []
    for seed in range(10):
        rng_draws = conjugate(shift=shift, seed=0)
        rng = np.random.default_rng(100 + seed)
        pick = rng.integers(0, 1000, size=(4, 1000))
        mu = np.take_along_axis(rng_draws[0], pick, axis=1)
        log_likelihood = np.take_along_axis(rng_draws[1], pick[..., None], axis=1)
        ratio = np.take_along_axis(rng_draws[2], pick, axis=1)
        assert mu.shape == ratio.shape
        corrected.append(of(log_likelihood, ratio).elpd)
        raw.append(of(log_likelihood).elpd)
    exact = conjugate(shift=shift)[3].sum()
    assert abs(np.mean(corrected) - exact) < 5 * np.std(corrected, ddof=1)
    if shift:
        assert abs(np.mean(raw) - exact) > 5 * np.std(raw, ddof=1)


def test_parts_sum_to_the_whole() -> None:
    """LOO of two tasks' cells apart equals one LOO of all their cells, with the same relative efficiency."""
    log_likelihood = exact_draws()
    tree = from_dict({"log_likelihood": {"y": log_likelihood}}, dims={"y": ["cell"]})
    whole = arviz_stats.loo(tree, var_name="y", reff=1.0, pointwise=True)
    parts = [of(log_likelihood[..., :11]), of(log_likelihood[..., 11:])]
    np.testing.assert_allclose(np.concatenate([part.pointwise for part in parts]), whole.elpd_i, atol=2e-3)
    assert sum(part.elpd for part in parts) == pytest.approx(float(whole.elpd), abs=0.01)
    assert sum(part.p_loo for part in parts) == pytest.approx(float(whole.p), abs=0.01)


def test_figures() -> None:
    found = of(exact_draws())
    assert found.elpd == pytest.approx(found.pointwise.sum())
    # ArviZ divided by n and now divides by n − 1.
    assert any(found.se == pytest.approx(np.sqrt(30) * found.pointwise.std(ddof=ddof)) for ddof in (0, 1))
    assert 0.5 < found.p_loo < 1.5
    assert found.pareto_k.shape == (30,) and found.trusted


def test_a_cell_that_rules_the_posterior_is_not_trusted() -> None:
    rng = np.random.default_rng(1)
    log_likelihood = exact_draws()
    log_likelihood[..., 4] = 4 * rng.standard_normal(log_likelihood.shape[:2]) - 10
    found = of(log_likelihood)
    assert not found.trusted and np.argmax(found.pareto_k) == 4


def test_sticky_draws_count_for_less() -> None:
    """The relative efficiency of the draws reaches the smoothing."""
    from bmtl.diagnostics.loo import _efficiency

    sticky = np.repeat(exact_draws()[:, :100], 10, axis=1)
    assert _efficiency(sticky) < 0.2 < 0.8 < _efficiency(exact_draws())


def test_a_sample_of_many_cells_stands_for_all() -> None:
    _, log_likelihood, _, exact = conjugate(n=400)
    every = logsumexp(log_likelihood, axis=(0, 1)) - np.log(4000)
    cells = np.sort(np.random.default_rng(1).choice(400, 100, replace=False))
    draws = Draws({"z": np.zeros((4, 1000))})
    found = from_sample(every, cells, psis_loo(log_likelihood[..., cells], draws))
    tree = from_dict(
        {"posterior": {"mu": np.zeros((4, 1000))}, "log_likelihood": {"y": log_likelihood},
         "observed_data": {"y": np.zeros(400)}},
        dims={"y": ["cell"]},
    )
    theirs = arviz_stats.loo_subsample(tree, cells, var_name="y", reff=loo_module._efficiency(log_likelihood))
    assert found.elpd == pytest.approx(theirs.elpd, abs=1e-3)
    assert found.p_loo == pytest.approx(theirs.p, rel=1e-2)
    # The sum over all cells is met within the error of sampling; its own error is nearly all of spread over cells.
    assert abs(found.elpd - exact.sum()) < 4 * theirs.subsampling_se
    assert found.se == pytest.approx(np.sqrt(400) * exact.std(), rel=0.05)


def test_a_cell_without_a_tail() -> None:
    """All draws are as sure of it: not to be trusted, and no other cell is touched."""
    rng = np.random.default_rng(0)
    log_likelihood = rng.normal(size=(1, 100, 5))
    others = [0, 2, 3, 4]
    alone = of(log_likelihood[..., others])
    log_likelihood[..., 1] = -3.0
    found = of(log_likelihood)
    assert found.pareto_k[1] == np.inf and found.pointwise[1] == pytest.approx(-3.0)
    np.testing.assert_allclose(found.pointwise[others], alone.pointwise)
    np.testing.assert_allclose(found.pareto_k[others], alone.pareto_k)

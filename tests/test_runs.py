"""Runs that are pooled: shares, checks, and few graphs that stand for many."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bmtl.causal import EdgePrior
from bmtl.causal.runs import fewer, graph_runs
from bmtl.diagnostics.convergence import COLUMNS
from bmtl.fitting.draws import Draws
from bmtl.runs import Runs, pooled, worst


def test_pooled_draws_are_in_proportion_and_spread_over_each_run() -> None:
    weights = np.array([0.61, 0.299, 0.091])
    runs = Runs({"edge": np.array([1.0, 0.0, 1.0])}, weights, {"slope": "edge"})
    value = np.arange(100.0)[None] + np.zeros((2, 1))
    found = [
        runs.remembered(Draws({"slope": 1000.0 * (run + 1) + value}, {"energy": value}), run) for run in range(3)
    ]
    out = pooled(runs, found, [table(own) for own in (1.0, 1.02, 1.0)], 7.0)
    assert out.shape == (2, 100) and out.seconds == 7.0
    of = np.where(out.sites["edge"][0] == 0, 1, (out.sites["slope"][0] >= 3000) * 2)
    np.testing.assert_array_equal(np.bincount(of), [61, 30, 9])
    np.testing.assert_array_equal(out.sites["slope"][0][of == 1], 0.0)
    for run, count in ((0, 61), (2, 9)):
        own = out.sites["slope"][0][of == run] - 1000.0 * (run + 1)
        assert np.all(np.diff(own) > 0) and np.max(np.diff(own)) <= np.ceil(100 / count) + 1
        np.testing.assert_array_equal(own, out.stats["energy"][0][of == run])
    # No stretch of ten draws is without the first run, nor made of it alone.
    first = np.convolve(of == 0, np.ones(10), "valid")
    assert first.min() >= 4 and first.max() <= 8
    np.testing.assert_array_equal(out.checked["passed"], [False, True])


def test_pooled_ratios_are_relative_to_each_evidence() -> None:
    runs = Runs({"edge": np.array([0.0, 1.0])}, np.array([0.5, 0.5]))
    found = [
        runs.remembered(
            Draws({"z": np.zeros((1, 10))}, trace=np.zeros((2, 3)), elbo=np.array([-np.inf, level]),
                  log_ratio=np.full(10, level + 1.0), settled=run == 0), run,
        )
        for run, level in enumerate((-10.0, -500.0))
    ]
    out = pooled(runs, found, [table(1.0)], 0.0)
    np.testing.assert_allclose(out.log_ratio, 1.0)
    np.testing.assert_allclose(out.elbo, [-255.0])
    assert not out.settled and not out.failed and out.trace.shape == (1, 3)


def table(r_hat: float) -> pd.DataFrame:
    rows = [
        ("R-hat", "a", r_hat, "≤ 1.01", r_hat <= 1.01, True), ("bulk ESS", "a", 1000 * r_hat, "≥ 400", True, True),
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_the_worst_of_each_check_is_kept() -> None:
    found = worst([table(1.0), table(1.03), table(1.005)])
    assert list(found["check"]) == ["R-hat", "bulk ESS"]
    np.testing.assert_array_equal(found["value"], [1.03, 1000.0])
    np.testing.assert_array_equal(found["passed"], [False, True])


def test_the_likeliest_run() -> None:
    best = Runs({"edge": np.array([5.0, 6.0, 7.0])}, np.array([0.2, 0.5, 0.3])).likeliest()
    assert len(best) == 1 and best.weights == [1.0]
    np.testing.assert_array_equal(best.arrays[0]["given/edge"], 6.0)


def test_graphs_of_chains_that_disagree_are_a_failed_check(monkeypatch, pair) -> None:
    graphs = np.zeros((4000, 2, 2), dtype=bool)
    graphs[:3000, 0, 1] = graphs[3000:3900, 1, 0] = True
    posterior = SimpleNamespace(
        draw=lambda n, seed: graphs, edges=pd.DataFrame(graphs.mean(axis=0)), method="mcmc",
        diagnostics={"r_hat": 1.2, "converged": False},
    )
    monkeypatch.setattr("bmtl.causal.runs.dag_posterior", lambda tasks, prior, seed: posterior)
    runs = graph_runs(pair, EdgePrior(), 8, 0)
    assert list(runs.checks["of"]) == ["edges"] and not runs.checks["passed"].any() and runs.checks["needed"].all()
    np.testing.assert_allclose(np.sort(runs.weights), [0.025, 0.225, 0.75])
    np.testing.assert_allclose(np.tensordot(runs.weights, runs.given["edge"], 1), graphs.mean(axis=0), atol=1e-7)
    few = graph_runs(pair, EdgePrior(), 2, 0)
    assert len(few) == 2 and few.weights.max() == pytest.approx(0.75)
    assert float(few.constants["graph_probability"]) in (pytest.approx(0.775), pytest.approx(0.975))


@pytest.mark.parametrize("n", [3, 8, 40])
def test_a_few_stand_for_all_without_bias(n: int, rng) -> None:
    weights = rng.dirichlet(np.full(n, 0.4))
    total, repeats = np.zeros(n), 4000
    for _ in range(repeats):
        kept, own = fewer(weights, 8, rng)
        assert len(kept) == len(own) == min(n, 8) and len(set(kept)) == len(kept)
        assert own.sum() == pytest.approx(1.0)
        heavy = weights[kept] > own.min() + 1e-12
        np.testing.assert_allclose(own[heavy], weights[kept][heavy])
        total[kept] += own
    # A weight drawn is 0 or at most an eighth.
    np.testing.assert_allclose(total / repeats, weights, atol=5 * 0.5 / 8 / np.sqrt(repeats))

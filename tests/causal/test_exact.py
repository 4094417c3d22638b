"""Sums over all graphs against enumeration."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.causal.problems import all_graphs, enumerated, is_acyclic, random_weights
from bmtl.causal.exact import ExactGraphs, best_graph


@pytest.mark.parametrize(("n_tasks", "count"), [(2, 3), (3, 25), (4, 543), (5, 29_281)])
def test_edges_and_total_are_those_of_enumeration(n_tasks, count):
    graphs = all_graphs(n_tasks)
    assert len(graphs) == count
    for seed in range(20):
        log_w = random_weights(n_tasks, np.random.default_rng(seed))
        total, edges = enumerated(graphs, log_w)
        exact = ExactGraphs(log_w)
        assert exact.log_total == pytest.approx(total, abs=1e-9, rel=1e-12)
        np.testing.assert_allclose(exact.edge_probabilities(), edges, atol=1e-9)


def test_equal_weights_count_graphs():
    log_w = random_weights(7, np.random.default_rng(0))
    log_w = np.where(np.arange(1 << 7) >> np.arange(7)[:, None] & 1, -np.inf, 0.0 * np.nan_to_num(log_w))
    assert np.exp(ExactGraphs(log_w).log_total) == pytest.approx(1_138_779_265, rel=1e-12)


def test_best_graph_is_that_of_enumeration():
    graphs = all_graphs(4)
    parents = np.sum(graphs * (1 << np.arange(4))[:, None], axis=1)
    for seed in range(10):
        log_w = random_weights(4, np.random.default_rng(seed))
        best = graphs[np.argmax(log_w[np.arange(4), parents].sum(axis=1))]
        np.testing.assert_array_equal(best_graph(log_w), best)


def test_draws_have_the_frequencies_of_graphs():
    graphs = all_graphs(3)
    log_w = 0.5 * random_weights(3, np.random.default_rng(3))
    log_w = np.where(np.isfinite(log_w), np.clip(log_w, -2, 2), -np.inf)
    parents = np.sum(graphs * (1 << np.arange(3))[:, None], axis=1)
    mass = np.exp(log_w[np.arange(3), parents].sum(axis=1))
    mass /= mass.sum()
    n = 40_000
    drawn = ExactGraphs(log_w).draw(n, np.random.default_rng(0))
    seen = np.array([np.sum(np.all(drawn == graph, axis=(1, 2))) for graph in graphs])
    assert seen.sum() == n
    error = (seen - n * mass) / np.sqrt(n * mass + 1e-12)
    assert np.max(np.abs(error[mass > 0])) < 4
    assert np.all(seen[mass == 0] == 0)


def test_draws_are_acyclic_and_match_the_edges_of_ten_tasks(rng):
    n = 10
    log_w = 2 * rng.normal(size=(n, 1 << n)) - 2.0 * np.bitwise_count(np.arange(1 << n))
    log_w[np.arange(1 << n) >> np.arange(n)[:, None] & 1 == 1] = -np.inf
    exact = ExactGraphs(log_w)
    drawn = exact.draw(3000, rng)
    assert all(is_acyclic(graph) for graph in drawn[:200])
    assert np.max(np.abs(drawn.mean(axis=0) - exact.edge_probabilities())) < 0.04


def test_no_graph_allowed():
    log_w = np.full((2, 4), -np.inf)
    log_w[0, 2] = log_w[1, 1] = 0.0
    assert ExactGraphs(log_w).log_total == -np.inf

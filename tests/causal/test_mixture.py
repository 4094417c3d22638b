"""Sums over all graphs averaged over densities, against enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp

import bmtl
from benchmarks.causal.problems import all_graphs, random_weights
from bmtl.causal.exact import ExactGraphs
from bmtl.causal.mixture import GraphMixture

LEARNED = bmtl.EdgePrior(expected_parents=None)


def scored(log_w):
    """All graphs, their edges and log weights without a prior."""
    n = len(log_w)
    graphs = all_graphs(n)
    parents = np.sum(graphs * (1 << np.arange(n))[:, None], axis=1)
    return graphs, graphs.sum(axis=(1, 2)), log_w[np.arange(n), parents].sum(axis=1)


@pytest.mark.parametrize("n_tasks", [2, 3, 4, 5])
def test_edges_and_densities_are_those_of_enumeration(n_tasks):
    own = LEARNED.densities(n_tasks)
    for seed in range(5):
        log_w = random_weights(n_tasks, np.random.default_rng(seed))
        graphs, edges, weights = scored(log_w)
        joint = weights[:, None] + own.log_weight + own.log_theta * edges[:, None]
        mass = np.exp(joint - logsumexp(joint))
        found = GraphMixture(log_w, own)
        np.testing.assert_allclose(found.share, mass.sum(axis=0), atol=1e-9)
        expected = np.tensordot(mass.sum(axis=1), graphs, axes=1)
        np.testing.assert_allclose(found.edge_probabilities(), expected, atol=1e-9)


def test_without_evidence_densities_keep_their_prior():
    own = LEARNED.densities(4)
    log_w = np.where(np.arange(16) >> np.arange(4)[:, None] & 1, -np.inf, 0.0)
    np.testing.assert_allclose(GraphMixture(log_w, own).share, own.share, atol=1e-10)


def test_best_graph_is_that_of_enumeration():
    sizes = []
    for n_tasks, seed in [(3, 0), (3, 1), *((4, seed) for seed in range(10)), (5, 0), (5, 1)]:
        rng, own = np.random.default_rng(seed), LEARNED.densities(n_tasks)
        log_w = rng.normal(size=(n_tasks, 1 << n_tasks)) * 1.5
        log_w[np.arange(1 << n_tasks) >> np.arange(n_tasks)[:, None] & 1 == 1] = -np.inf
        graphs, edges, weights = scored(log_w)
        best = graphs[np.argmax(weights + own.log_prior(edges))]
        np.testing.assert_array_equal(GraphMixture(log_w, own).best(), best)
        sizes.append(int(best.sum()))
    assert len(set(sizes)) > 2


def test_draws_are_independent_and_have_the_frequencies_of_edges_and_numbers_of_edges():
    log_w = random_weights(4, np.random.default_rng(2)).clip(-3, 3)
    log_w[np.arange(16) >> np.arange(4)[:, None] & 1 == 1] = -np.inf
    own, n = LEARNED.densities(4), 20_000
    _, edges, weights = scored(log_w)
    found = GraphMixture(log_w, own)
    drawn = found.draw(n, np.random.default_rng(0))
    p = found.edge_probabilities()
    assert np.max(np.abs(drawn.mean(axis=0) - p) / np.sqrt(p * (1 - p) / n + 1e-12)) < 4
    mass = np.exp(weights + own.log_prior(edges))
    number = np.bincount(edges, mass / mass.sum())
    seen = np.bincount(drawn.sum(axis=(1, 2)), minlength=len(number)) / n
    assert np.max(np.abs(seen - number) / np.sqrt(number * (1 - number) / n)) < 4
    # Densities are in no order: neighbours have nothing in common.
    sizes = drawn.sum(axis=(1, 2)).astype(float)
    assert abs(np.corrcoef(sizes[1:], sizes[:-1])[0, 1]) < 4 / np.sqrt(n)


def test_one_density_is_the_sum_over_all_graphs_with_it():
    log_w = random_weights(4, np.random.default_rng(5))
    own = bmtl.EdgePrior(expected_parents=0.5).densities(4)
    found = GraphMixture(log_w, own)
    plain = ExactGraphs(log_w + own.log_theta * np.bitwise_count(np.arange(16)))
    np.testing.assert_allclose(found.edge_probabilities(), plain.edge_probabilities(), atol=1e-12)
    np.testing.assert_array_equal(
        found.draw(50, np.random.default_rng(0)), plain.draw(50, np.random.default_rng(0))
    )
    assert found.share.tolist() == [1.0]


def test_no_graph_allowed():
    log_w = np.full((2, 4), -np.inf)
    log_w[0, 2] = log_w[1, 1] = 0.0
    assert not GraphMixture(log_w, LEARNED.densities(2)).share.any()

"""Chains over layerings against enumeration, and the candidates they are restricted to."""

from __future__ import annotations

import numpy as np
import pytest

import bmtl
from benchmarks.causal.problems import all_graphs, enumerated, is_acyclic, linear_tasks, random_graph, random_weights
from bmtl.causal.columns import columns
from bmtl.causal.many import _extended, first_candidates
from bmtl.causal.mixture import GraphMixture
from bmtl.causal.partition import Chains, Tables, layers, log_difference, r_hat, start
from bmtl.causal.scores import LocalScores

ONE = bmtl.EdgePrior(expected_parents=9.0).densities(4)
"""All graphs are as probable."""


def tables(log_w, powers=(1.0,), densities=ONE) -> Tables:
    """Every other task is a candidate."""
    n = len(log_w)
    own, candidates = [], []
    for v in range(n):
        others = [u for u in range(n) if u != v]
        masks = np.arange(1 << (n - 1))
        spread = sum((masks >> i & 1) << u for i, u in enumerate(others))
        own.append(log_w[v, spread])
        candidates.append(others)
    return Tables(candidates, own, [np.zeros(1 << (n - 1))] * n, densities, np.array(powers))


def test_layers():
    graph = np.zeros((5, 5), dtype=bool)
    graph[[0, 1, 0, 3], [1, 2, 2, 4]] = True
    assert layers(graph).tolist() == [0, 1, 2, 0, 1]


def test_log_difference():
    a, b = np.array([1.0, 2.0, 0.0, -np.inf]), np.array([-np.inf, 2.0, -1.0, -np.inf])
    np.testing.assert_allclose(log_difference(a, b), [1.0, -np.inf, np.log(1 - np.exp(-1)), -np.inf])


@pytest.mark.parametrize("draw", [Chains.graphs, Chains.turned])
@pytest.mark.parametrize("powers", [(1.0,), (1.0, 0.5, 0.2)])
def test_chains_have_the_edges_of_enumeration(powers, draw):
    rng = np.random.default_rng(0)
    log_w = 1.5 * random_weights(4, np.random.default_rng(0)).clip(-4, 4)
    log_w[np.arange(16) >> np.arange(4)[:, None] & 1 == 1] = -np.inf
    _, edges = enumerated(all_graphs(4), log_w)
    t = tables(log_w, powers)
    before = np.zeros((4, 4), dtype=bool)
    chains = Chains(t, np.stack([start(t, before, rng) for _ in range(4)]), rng)
    given, drawn = [], []
    for _ in range(1000):
        chains.sweep()
        given.append(chains.edge_probabilities())
        drawn.append(draw(chains))
    assert all(is_acyclic(graph) for graph in drawn[-1])
    np.testing.assert_allclose(np.mean(given, axis=(0, 1)), edges, atol=0.03)
    np.testing.assert_allclose(np.mean(drawn, axis=(0, 1)), edges, atol=0.04)


@pytest.mark.parametrize("powers", [(1.0,), (1.0, 0.5, 0.2)])
def test_chains_have_the_densities_of_the_sum_over_all_graphs(powers):
    log_w = random_weights(4, np.random.default_rng(2)).clip(-3, 3)
    log_w[np.arange(16) >> np.arange(4)[:, None] & 1 == 1] = -np.inf
    densities = bmtl.EdgePrior(expected_parents=None).densities(4)
    exact = GraphMixture(log_w, densities)
    # What is seen differs from the prior.
    assert np.abs(exact.share - densities.share).max() > 0.05
    t = tables(log_w, powers, densities)
    rng = np.random.default_rng(3)
    chains = Chains(t, np.stack([start(t, np.zeros((4, 4), dtype=bool), rng) for _ in range(4)]), rng)
    edges, share, theta, drawn = [], [], [], []
    for _ in range(1000):
        chains.sweep()
        drawn.append(chains.graphs())
        theta.append(chains.theta())
        edges.append(chains.edge_probabilities())
        share.append(chains.density_probabilities())
    np.testing.assert_allclose(np.mean(share, axis=(0, 1)), exact.share, atol=0.02)
    seen = np.mean(np.isclose(np.ravel(theta)[:, None], np.exp(densities.log_theta)), axis=0)
    np.testing.assert_allclose(seen, exact.share, atol=0.04)
    np.testing.assert_allclose(np.mean(edges, axis=(0, 1)), exact.edge_probabilities(), atol=0.03)
    np.testing.assert_allclose(np.mean(drawn, axis=(0, 1)), exact.edge_probabilities(), atol=0.04)


def test_turning_alone_reaches_a_class_of_equivalent_graphs():
    """Of a path of five tasks that is as probable whichever task is its root, each is the root a fifth of the time."""
    n = 5
    log_w = np.full((n, 1 << n), -np.inf)
    for v in range(n):
        log_w[v, [0, *(1 << u for u in (v - 1, v + 1) if 0 <= u < n)]] = [-20.0] + [0.0] * (2 - (v in (0, n - 1)))
    path = np.eye(n, k=1, dtype=bool)
    chains = Chains(tables(log_w), path[None], np.random.default_rng(4))
    drawn = np.concatenate([chains.turned() for _ in range(1000)])
    assert np.all(drawn | drawn.transpose(0, 2, 1) == path | path.T)
    roots = ~drawn.any(axis=1)
    assert np.all(roots.sum(axis=1) == 1)
    np.testing.assert_allclose(roots.mean(axis=0), 0.2, atol=0.06)


def test_a_start_keeps_to_an_order():
    rng = np.random.default_rng(1)
    t = tables(np.where(np.arange(32) >> np.arange(5)[:, None] & 1, -np.inf, 1.0))
    precedes = np.zeros((5, 5), dtype=bool)
    precedes[3, [0, 1, 2, 4]] = True
    for _ in range(10):
        graph = start(t, precedes, rng)
        assert is_acyclic(graph)
        assert not graph[:, 3].any()


def test_r_hat_sees_chains_apart():
    rng = np.random.default_rng(2)
    same = rng.random((4, 200, 9))
    assert r_hat(same) < 1.05
    same[0, :, 1] += 1.0
    assert r_hat(same) > 1.5
    assert r_hat(np.ones((4, 200, 9))) == 1.0


def test_true_parents_are_candidates_and_lost_ones_come_back():
    rng = np.random.default_rng(3)
    graph = random_graph(18, 1.0, rng)
    scores = LocalScores(columns(linear_tasks(graph, 400, rng), 8))
    may, must = ~np.eye(18, dtype=bool), np.zeros((18, 18), dtype=bool)
    found = first_candidates(scores, may, must, 8)
    for v in range(18):
        assert set(np.flatnonzero(graph[:, v])) <= set(found[v])
        assert len(found[v]) <= 8
    child = int(np.argmax(graph.sum(axis=0)))
    parent = int(np.flatnonzero(graph[:, child])[0])
    found[child].remove(parent)
    drawn = np.stack([graph] * 4)
    drawn[:, parent, child] = False
    back = _extended(scores, may, must, found, drawn, np.full(4, 0.1), drawn.mean(axis=0), 8, 17)
    assert parent in back[child]

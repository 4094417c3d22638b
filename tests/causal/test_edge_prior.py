"""What is known of edges beforehand."""

from __future__ import annotations

import numpy as np
import pytest

import bmtl
from benchmarks.causal.problems import all_graphs
from bmtl.causal.edge_prior import sums_over_graphs
from bmtl.errors import TaskError

NAMES = ("a", "b", "c", "d")


@pytest.mark.parametrize(("arguments", "message"), [
    ({"required": [("a", "b")], "forbidden": [("a", "b")]}, "both required and forbidden: 'a' → 'b'"),
    ({"required": [("a", "b"), ("b", "c"), ("c", "a")]}, "cycle: a → b → c → a"),
    ({"required": [("d", "a"), ("a", "b"), ("b", "a")]}, "cycle: a → b → a"),
    ({"required": [("a", "a")]}, "pairs .* got \\('a', 'a'\\)"),
    ({"forbidden": ["ab"]}, "pairs .* got 'ab'"),
    ({"tiers": [["a", "b"], ["c", "a"]]}, "name a task twice: 'a'"),
    ({"tiers": ["a", "b"]}, "list of lists"),
    ({"tiers": [["a"], ["b"]], "required": [("b", "a")]}, "later tier to an earlier one: 'b' → 'a'"),
    ({"expected_parents": 0}, "> 0, or None, got 0"),
    ({"expected_parents": np.inf}, "finite"),
    ({"expected_parents": "learned"}, "> 0, or None, got 'learned'"),
])
def test_contradictions_are_named(arguments, message):
    with pytest.raises(TaskError, match=message):
        bmtl.EdgePrior(**arguments)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"required": [("a", "z")]}, "required edges name unknown tasks: 'z'"),
    ({"forbidden": [("y", "a")]}, "forbidden edges name unknown tasks: 'y'"),
    ({"tiers": [["a", "b"], ["c", "d", "e"]]}, "tiers name unknown tasks: 'e'"),
    ({"tiers": [["a", "b"], ["c"]]}, "leave out tasks: 'd'"),
])
def test_names_have_to_be_tasks(arguments, message):
    with pytest.raises(TaskError, match=message):
        bmtl.EdgePrior(**arguments).allowed(NAMES)


def test_edges_allowed():
    prior = bmtl.EdgePrior(required=[("a", "b")], forbidden=[("c", "d")], tiers=[["a", "b"], ["c", "d"]])
    may, must = prior.allowed(NAMES)
    np.testing.assert_array_equal(may, np.array([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 1, 0]], dtype=bool))
    assert np.argwhere(must).tolist() == [[0, 1]]


@pytest.mark.parametrize("log_theta", [-1.0, 0.0, 2.0])
def test_sums_over_graphs_are_those_of_enumeration(log_theta):
    edges = all_graphs(4).sum(axis=(1, 2))
    mass = np.exp(log_theta * edges)
    expected = np.log(mass.sum()), mass @ edges / mass.sum()
    np.testing.assert_allclose(sums_over_graphs(4, log_theta), expected, atol=1e-12)


def test_graphs_of_more_tasks_are_counted():
    # The number of labelled acyclic graphs, OEIS A003024.
    for n_tasks, count in [(6, 3_781_503), (7, 1_138_779_265), (10, 4_175_098_976_430_598_143)]:
        assert sums_over_graphs(n_tasks, 0.0)[0] == pytest.approx(np.log(count), rel=1e-12)


def test_expected_parents_are_expected():
    edges = all_graphs(5).sum(axis=(1, 2))
    own = bmtl.EdgePrior(expected_parents=0.7).densities(5)
    mass = np.exp(own.log_prior(edges))
    assert mass.sum() == pytest.approx(1.0, abs=1e-10)
    assert mass @ edges / 5 == pytest.approx(0.7, abs=1e-8)
    assert own.parents == 0.7
    # Uniform over graphs at the most.
    most = bmtl.EdgePrior(expected_parents=3.0).densities(5)
    assert most.log_theta == 0.0
    assert most.parents == pytest.approx(edges.mean() / 5)
    assert bmtl.EdgePrior().densities(2).log_theta == 0.0
    assert bmtl.EdgePrior(expected_parents=1e-12).densities(40).parents == 1e-12


@pytest.mark.parametrize("n_tasks", [2, 3, 4, 5])
def test_a_density_that_is_learned_makes_numbers_of_edges_about_equally_probable(n_tasks):
    edges = all_graphs(n_tasks).sum(axis=(1, 2))
    own = bmtl.EdgePrior(expected_parents=None).densities(n_tasks)
    mass = np.exp(own.log_prior(edges))
    assert mass.sum() == pytest.approx(1.0, abs=1e-10)
    for theta, parents in zip(np.exp(own.log_theta), own.parents, strict=True):
        assert np.average(edges, weights=theta**edges) / n_tasks == pytest.approx(parents, abs=1e-8)
    # The means are uniform between none and that of the uniform distribution over graphs.
    most = edges.mean() / n_tasks
    for power in range(10):
        assert own.share @ own.parents**power == pytest.approx(most**power / (power + 1), rel=1e-6)
    # So are numbers of edges far enough from the mean of the uniform distribution.
    by_number = np.bincount(edges, mass)[: n_tasks - 2]
    if n_tasks > 3:
        np.testing.assert_allclose(by_number, by_number[0], rtol=0.05)
    assert own.log_theta.max() < 0


def test_a_density_that_is_learned_reaches_from_sparse_to_uniform_graphs_of_many_tasks():
    own = bmtl.EdgePrior(expected_parents=None).densities(40)
    assert own.share.sum() == pytest.approx(1.0)
    assert own.parents[0] < 0.5 and own.parents[-1] > 9
    assert np.all(np.diff(own.log_theta) > 0)

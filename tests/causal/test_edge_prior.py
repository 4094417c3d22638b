"""What is known of edges beforehand."""

from __future__ import annotations

import numpy as np
import pytest

import bmtl
from benchmarks.causal.problems import all_graphs
from bmtl.causal.edge_prior import log_graphs
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
    ({"expected_parents": 0}, "> 0, got 0"),
    ({"expected_parents": np.inf}, "finite"),
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


@pytest.mark.parametrize("log_theta", [0.0, -1.0])
def test_sum_over_graphs_is_that_of_enumeration(log_theta):
    edges = all_graphs(4).sum(axis=(1, 2))
    assert log_graphs(4, log_theta) == pytest.approx(np.log(np.sum(np.exp(log_theta * edges))), abs=1e-12)


def test_expected_parents_are_expected():
    graphs = all_graphs(5)
    edges = graphs.sum(axis=(1, 2))
    mass = np.exp(bmtl.EdgePrior(expected_parents=0.7).log_edge(5) * edges)
    assert mass @ edges / mass.sum() / 5 == pytest.approx(0.7, abs=1e-4)
    # Uniform over graphs at the most.
    assert bmtl.EdgePrior(expected_parents=3.0).log_edge(5) == 0.0
    assert bmtl.EdgePrior().log_edge(2) == 0.0

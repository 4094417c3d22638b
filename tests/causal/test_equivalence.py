"""Markov equivalence classes, and directions that are not identified."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.causal.problems import all_graphs
from bmtl.causal.equivalence import Splitter, components, essential, members


def class_keys(graphs):
    """The same skeleton and the same colliders: one class."""
    for graph in graphs:
        joined = graph | graph.T
        n = len(graph)
        colliders = tuple(
            (a, b, c)
            for b in range(n) for a in range(n) for c in range(a)
            if graph[a, b] and graph[c, b] and not joined[a, c]
        )
        yield joined.tobytes(), colliders


@pytest.mark.parametrize("n_tasks", [3, 4])
def test_essential_graphs_are_what_members_share(n_tasks):
    graphs = all_graphs(n_tasks)
    classes: dict[tuple, list] = {}
    for key, graph in zip(class_keys(graphs), graphs, strict=True):
        classes.setdefault(key, []).append(graph)
    # Steinsky (2003): 11 classes on 3 nodes, 185 on 4.
    assert len(classes) == {3: 11, 4: 185}[n_tasks]
    for own in classes.values():
        shared = np.all(own, axis=0)
        for graph in own:
            arrows, lines = essential(graph)
            np.testing.assert_array_equal(arrows, shared)
            np.testing.assert_array_equal(lines, (graph | graph.T) & ~shared & ~shared.T)
        count = 1
        for inside in components(lines):
            at = np.ix_(inside, inside)
            count *= len(members(own[0][at] & lines[at]))
        assert count == len(own)


def test_five_tasks_need_every_rule(rng):
    graphs = all_graphs(5)
    by_key: dict[tuple, list] = {}
    for key, graph in zip(class_keys(graphs), graphs, strict=True):
        by_key.setdefault(key, []).append(graph)
    # Steinsky (2003).
    assert len(by_key) == 8782
    for i in rng.permutation(len(by_key))[:300]:
        own = list(by_key.values())[i]
        np.testing.assert_array_equal(essential(own[0])[0], np.all(own, axis=0))


def test_equal_scores_identify_nothing_but_colliders():
    splitter = Splitter(lambda child, parents: 0.0)
    chain = np.zeros((4, 4), dtype=bool)
    chain[0, 1] = chain[1, 2] = True
    directed, unidentified = splitter.split(chain)
    assert np.max(np.abs(directed)) < 1e-12
    np.testing.assert_allclose(unidentified, (chain | chain.T).astype(float))
    collider = np.zeros((4, 4), dtype=bool)
    collider[0, 2] = collider[1, 2] = True
    directed, unidentified = splitter.split(collider)
    np.testing.assert_array_equal(directed, collider.astype(float))
    assert not unidentified.any()


def test_scores_that_differ_identify_by_as_much():
    odds = 4.0
    splitter = Splitter(lambda child, parents: np.log(odds) if (child, parents) == (1, (0,)) else 0.0)
    directed, unidentified = splitter.split(np.array([[False, True], [False, False]]))
    # Posterior .8 and .2: two fifths are what equal scores would give, three fifths say a → b.
    assert unidentified[0, 1] == pytest.approx(0.4)
    assert directed[0, 1] == pytest.approx(0.6)
    assert directed[1, 0] == pytest.approx(0.0, abs=1e-12)


def test_a_direction_that_is_impossible_is_no_tie():
    splitter = Splitter(lambda child, parents: -np.inf if (child, parents) == (0, (1,)) else 0.0)
    directed, unidentified = splitter.split(np.array([[False, True], [False, False]]))
    assert directed[0, 1] == 1.0
    assert unidentified[0, 1] == 0.0

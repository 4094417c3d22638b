"""Distances, AUROC and log scores that graphs of causes are compared by."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.causal import peer_tables
from benchmarks.causal.peers import Problem, counts, design, left, levels
from benchmarks.causal.problems import all_graphs, is_acyclic
from benchmarks.causal.scoring import auroc, expected_hamming, extended, hamming, log_score, pattern


def graph(n, *edges):
    found = np.zeros((n, n), dtype=bool)
    for a, b in edges:
        found[a, b] = True
    return found


CHAIN, FORK, COLLIDER = graph(3, (0, 1), (1, 2)), graph(3, (1, 0), (1, 2)), graph(3, (0, 1), (2, 1))


def test_members_of_a_class_are_at_no_distance_and_a_collider_is():
    assert hamming(pattern(CHAIN), pattern(FORK)) == 0
    assert hamming(CHAIN, FORK) == 1
    # Both edges have a direction in one class and none in the other.
    assert hamming(pattern(CHAIN), pattern(COLLIDER)) == 2
    # An edge that is missing, and one of which only the direction differs.
    assert hamming(graph(3, (0, 1)), graph(3, (1, 0), (1, 2))) == 2
    graphs = np.stack([CHAIN, FORK, FORK, COLLIDER])
    assert expected_hamming(graphs, CHAIN) == pytest.approx(0.5)


def test_every_class_has_a_member_with_its_colliders():
    for own in all_graphs(4):
        member = extended(pattern(own))
        assert is_acyclic(member)
        np.testing.assert_array_equal(pattern(member), pattern(own))


def test_a_graph_that_is_no_class_has_no_member():
    square = graph(4, (0, 1), (1, 2), (2, 3), (3, 0))
    # Any direction of a square without diagonals makes a collider.
    assert extended(square | square.T) is None
    assert extended(graph(3, (0, 1), (1, 2), (2, 0))) is None


def test_auroc_is_the_share_of_pairs_in_the_right_order(rng):
    truth = graph(4, (0, 1), (0, 2), (3, 1))
    score = rng.integers(4, size=(4, 4)).astype(float)
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
    right = [
        (score[i] > score[j]) + 0.5 * (score[i] == score[j])
        for i in pairs for j in pairs if truth[i] and not truth[j]
    ]
    assert auroc(score, truth) == pytest.approx(np.mean(right))
    assert np.isnan(auroc(score, graph(4)))


def test_log_score_is_that_of_ordered_pairs():
    truth, p = graph(2, (0, 1)), np.array([[np.nan, 0.8], [0.3, np.nan]])
    assert log_score(p, truth) == pytest.approx((np.log(0.8) + np.log(0.7)) / 2)
    # Certainty that is wrong costs much, and not everything.
    assert np.log(1e-6) <= log_score(1.0 - truth, truth) < -10


def test_levels_tell_certain_directions_from_others():
    # 0 → 2 ← 1 is in all of the class, 3 → 4 is not.
    own = graph(5, (0, 2), (1, 2), (3, 4))
    level = levels(own)
    assert (level[0, 2], level[2, 0], level[3, 4], level[4, 3], level[0, 1]) == (5, 1, 4, 2, 0)
    assert (levels(pattern(own))[3, 4], levels(pattern(own))[0, 2]) == (3, 5)
    table = counts(level, own)
    assert np.sum(table) == 20
    assert table == [[14, 0], [2, 0], [1, 0], [0, 0], [0, 1], [0, 2]]


def test_calibrated_probabilities_are_the_best_constants_by_level(rng):
    tables = [rng.integers(1, 20, size=(6, 2)).tolist() for _ in range(3)]
    cell = {"tasks": 5, "rows": 100}
    records = [cell | {"methods": {"pc": {"counts": table}}} for table in tables]
    peer_tables.calibrated(records, "pc")
    scores = [own["methods"]["pc"]["log score"] for own in records]
    found = np.mean([np.sum(table) * own for table, own in zip(tables, scores, strict=True)])
    total = np.sum(tables, axis=0)

    def score(p):
        return np.sum(total * np.log(np.column_stack([1 - p, p]))) / 3

    best = total[:, 1] / total.sum(axis=1)
    assert found == pytest.approx(score(best))
    for _ in range(20):
        assert score((best + rng.normal(size=6) * 0.05).clip(0.01, 0.99)) < found
    # As `auroc` with the level's share as the score of each pair.
    own = records[0]["methods"]["pc"]
    table = np.array(tables[0])
    score_of = np.repeat(best, table.sum(axis=1))
    there = np.concatenate([np.repeat([False, True], row) for row in table])
    above = score_of[there][:, None] - score_of[~there]
    assert own["AUROC"] == pytest.approx(np.mean((above > 0) + 0.5 * (above == 0)))


def test_leads_are_paired_and_point_to_what_is_better():
    distances = [(1.0, 4.0), (3.0, 4.0)]
    records = [{"methods": {"bmtl": {"SHD": own}, "pc": {"SHD": other}}} for own, other in distances]
    lead, se, n = peer_tables.gap([*records, {"methods": {"pc": {"SHD": 0.0}}}], "pc", "SHD")
    assert (lead, n) == (2.0, 2)
    assert se == pytest.approx(1.0)


def test_design_has_every_cell_and_draws_are_those_of_the_seed():
    problems = list(design([5, 10, 20], range(2)))
    assert len(set(problems)) == len(problems) == 2 * 48
    problem = Problem(5, 1, 100, "student_t", True, 3)
    truth, Y, X = problem.draw()
    again = problem.draw()
    assert all(np.array_equal(one, other) for one, other in zip((truth, Y, X), again, strict=True))
    assert (Y.shape, X.shape, is_acyclic(truth)) == ((100, 5), (100, 5), True)
    np.testing.assert_allclose(Y.std(axis=0), 1.0)
    # Each input acts on its own task: given its causes, on no other.
    truth, Y, X = Problem(5, 1, 1000, "gaussian", True, 0).draw()
    for v in range(5):
        design_of = np.column_stack([Y[:, truth[:, v]], X])
        slopes = np.linalg.lstsq(design_of, Y[:, v], rcond=None)[0][truth[:, v].sum() :]
        assert np.argmax(np.abs(slopes)) == v
        assert np.abs(np.delete(slopes, v)).max() < 0.15


def test_what_is_held_is_run_again_only_when_asked():
    small, large = (Problem(tasks, 1, 100, "gaussian", True, 0) for tasks in (5, 10))
    only = ["bmtl", "pc", "dibs"]
    assert left(small, {"bmtl": {}}, only, again=False) == ["pc", "dibs"]
    assert left(large, {"bmtl": {}}, only, again=False) == ["pc"]
    assert left(large, {"bmtl": {}, "pc": {}}, only, again=True) == ["bmtl", "pc"]
    assert left(small, {"bmtl": {}, "pc": {}}, ["bmtl"], again=True) == ["bmtl"]

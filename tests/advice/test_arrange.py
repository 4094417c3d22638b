"""From pairs to arrangements: counts, planted optima, and what must not depend on the order of the tasks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bmtl.advice import arrange
from bmtl.arrangement import Arrangement

MERGE, WEIGHT, DECOUPLE = range(3)


def planted(labels: arrange.Labels, strength: float = 0.8) -> np.ndarray:
    """Pair log probabilities under which each pair's own relation in ``labels`` is the likeliest."""
    n = len(labels)
    p = np.full((3, n, n), (1 - strength) / 2)
    for i, j in itertools.permutations(range(n), 2):
        same_trunk = labels[i][0] == labels[j][0]
        p[MERGE if labels[i] == labels[j] else WEIGHT if same_trunk else DECOUPLE, i, j] = strength
    return np.log(p)


def random_pairs(n: int, seed: int) -> np.ndarray:
    """Pair log probabilities that no arrangement fits."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([0.5, 0.5, 0.5], size=(n, n)).transpose(2, 0, 1)
    p = np.triu(p, 1) + np.triu(p, 1).transpose(0, 2, 1) + np.eye(n)
    return np.log(p)


@pytest.mark.parametrize(("n", "count"), [(1, 1), (2, 3), (3, 12), (4, 60), (5, 358)])
def test_all_arrangements_once(n: int, count: int) -> None:
    """Two levels of set partitions: the numbers 1, 3, 12, 60, 358 of the literature (OEIS A000258)."""
    ranked = arrange.rank(random_pairs(n, 0))
    names = [str(t) for t in range(n)]
    arrangements = {arrange.name(labels, names, np.ones((n, n))) for labels in ranked.labels}
    assert len(ranked.labels) == len(arrangements) == len(ranked.probability) == count


@pytest.mark.parametrize("seed", range(3))
def test_probabilities(seed: int) -> None:
    ranked = arrange.rank(random_pairs(4, seed))
    assert ranked.probability.sum() == pytest.approx(1)
    assert np.all(np.diff(ranked.probability) <= 0)
    by_kind = dict.fromkeys(ranked.kind, 0.0)
    for labels, p in zip(ranked.labels, ranked.probability, strict=True):
        by_kind[arrange.kind_of(labels)] += p
    assert ranked.kind == pytest.approx(by_kind)


def test_two_tasks_keep_their_pair_probabilities() -> None:
    """With one pair nothing has to be reconciled."""
    p = np.array([0.2, 0.5, 0.3])
    ranked = arrange.rank(np.log(np.broadcast_to(p[:, None, None], (3, 2, 2))))
    assert [ranked.kind[kind] for kind in arrange.RELATIONS] == pytest.approx(p)
    assert ranked.kind["mixed"] == 0


def test_score_is_the_pairs_log_probability() -> None:
    """Against a sum written out: differences of log probability are 2/T times differences of the pairs' sum."""
    log_p = random_pairs(4, 5)
    ranked = arrange.rank(log_p)

    def total(labels: arrange.Labels) -> float:
        sums = 0.0
        for i, j in itertools.combinations(range(4), 2):
            code = MERGE if labels[i] == labels[j] else WEIGHT if labels[i][0] == labels[j][0] else DECOUPLE
            sums += max(log_p[code, i, j], np.log(arrange.SMALLEST))
        return sums

    sums = np.array([total(labels) for labels in ranked.labels])
    assert np.log(ranked.probability / ranked.probability[0]) == pytest.approx((sums - sums[0]) * 2 / 4)


@pytest.mark.parametrize(
    "labels",
    [
        ((0, 0), (0, 0), (0, 0), (0, 0)),
        ((0, 0), (0, 1), (0, 2), (0, 3)),
        ((0, 0), (1, 1), (2, 2), (3, 3)),
        ((0, 0), (1, 1), (0, 0), (0, 2), (1, 1), (2, 3)),
        ((0, 0), (0, 1), (1, 2), (0, 0), (1, 3)),
    ],
    ids=["merged", "shared", "decoupled", "six mixed", "five mixed"],
)
def test_planted_is_found(labels: arrange.Labels) -> None:
    ranked = arrange.rank(planted(labels))
    assert ranked.labels[0] == labels
    assert ranked.probability[0] > ranked.probability[1]


def clusters(sizes: tuple[int, ...], heads_of: tuple[int, ...]) -> arrange.Labels:
    """One trunk a cluster, the tasks of a cluster dealt to its heads, clusters interleaved by a fixed shuffle."""
    labels, head = [], 0
    for trunk, (size, heads) in enumerate(zip(sizes, heads_of, strict=True)):
        labels += [(trunk, head + t % heads) for t in range(size)]
        head += heads
    order = np.random.default_rng(3).permutation(len(labels))
    return arrange._canonical(tuple(labels[i] for i in order))


@pytest.mark.parametrize("heads_of", [(1, 1), (6, 6), (2, 3), (1, 6)], ids=str)
def test_climb_finds_two_clusters_of_six(heads_of) -> None:
    labels = clusters((6, 6), heads_of)
    ranked = arrange.rank(planted(labels))
    assert len(labels) > arrange.EXACT_UP_TO
    assert ranked.labels[0] == labels
    assert ranked.probability.sum() == pytest.approx(1)


def test_climb_stays_apart_where_all_are_apart() -> None:
    apart = tuple((t, t) for t in range(9))
    assert arrange.rank(planted(apart)).labels[0] == apart


@pytest.mark.parametrize("labels", [clusters((3, 3), (1, 2)), clusters((6,), (3,)), clusters((2, 4), (2, 1))], ids=str)
def test_climb_equals_exact_on_planted(labels) -> None:
    log_p = planted(labels)
    best = max(arrange._climb(log_p), key=lambda own: arrange._score(own, log_p))
    exact = arrange.rank(log_p).labels[0]
    assert best == exact == labels


@pytest.mark.parametrize("seed", range(6))
def test_climb_ends_where_no_neighbour_is_better(seed: int) -> None:
    log_p = np.maximum(random_pairs(6, seed), np.log(arrange.SMALLEST))
    seen = arrange._climb(log_p)
    best = max(seen, key=lambda own: arrange._score(own, log_p))
    assert all(arrange._score(own, log_p) <= arrange._score(best, log_p) + 1e-9 for own in arrange._neighbours(best))
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)], ids=str)
def test_order_of_tasks_does_not_matter(order) -> None:
    """The same arrangement of the same tasks has the same probability, in whatever order the tasks come."""
    log_p, names = random_pairs(4, 7), "abcd"
    sign = np.outer([1, -1, -1, 1], [1, -1, -1, 1])
    at = np.ix_(order, order)

    def by_arrangement(log_p, names, sign) -> dict[Arrangement, float]:
        ranked = arrange.rank(log_p)
        return {
            arrange.name(labels, names, sign): p
            for labels, p in zip(ranked.labels, ranked.probability, strict=True)
        }

    expected = by_arrangement(log_p, names, sign)
    moved = by_arrangement(log_p[:, order][:, :, order], [names[i] for i in order], sign[at])
    assert moved == pytest.approx(expected)


def test_climb_does_not_depend_on_order() -> None:
    labels = clusters((6, 6), (2, 3))
    names = [f"t{i}" for i in range(12)]
    expected = arrange.name(labels, names, np.ones((12, 12)))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(12)
        log_p = planted(labels)[:, order][:, :, order]
        best = arrange.rank(log_p).labels[0]
        assert arrange.name(best, [names[i] for i in order], np.ones((12, 12))) == expected


def test_no_pair_forbids_an_arrangement() -> None:
    log_p = np.full((3, 3, 3), -np.inf)
    log_p[MERGE] = 0.0
    log_p[:, 0, 1] = log_p[:, 1, 0] = [-np.inf, -np.inf, 0.0]
    ranked = arrange.rank(log_p)
    assert np.all(np.isfinite(ranked.probability)) and np.all(ranked.probability > 0)


def test_name_flips_by_sign() -> None:
    labels = ((0, 0), (1, 1), (0, 0), (0, 2))
    sign = np.ones((4, 4))
    sign[0, 2] = sign[2, 0] = sign[0, 3] = sign[3, 0] = -1
    found = arrange.name(labels, ["w", "x", "y", "z"], sign)
    assert found == Arrangement(((("w", "y"), ("z",)), (("x",),)), frozenset({"y"}))


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (((0, 0), (0, 0)), "merge"),
        (((0, 0), (0, 1)), "weight"),
        (((0, 0), (1, 1)), "decouple"),
        (((0, 0), (0, 0), (0, 1)), "mixed"),
        (((0, 0), (1, 1), (1, 1)), "mixed"),
        (((0, 0), (0, 1), (1, 2)), "mixed"),
    ],
)
def test_kind(labels, kind) -> None:
    assert arrange.kind_of(labels) == kind

"""Networks under a budget: against enumeration, the published rule for larger sets, and what a posterior adds."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest

from bmtl import grouping
from bmtl.grouping import Candidate, higher_order, search


def subsets(names, least=1):
    return [frozenset(own) for size in range(least, len(names) + 1) for own in combinations(sorted(names), size)]


def drawn(seed: int, names="abcd", sizes=(1.0, 0.5)):
    """Candidates for all sets, each at several costs; smaller networks lose more."""
    rng = np.random.default_rng(seed)
    return [
        Candidate(own, {t: float(rng.gamma(4.0)) / size**0.2 for t in own}, size)
        for own in subsets(names) for size in sizes
    ]


def enumerated(candidates, budget):
    """Least total loss over all choices within the budget."""
    names = set().union(*(own.tasks for own in candidates))
    best = np.inf
    for chosen in chain.from_iterable(combinations(candidates, size) for size in range(1, len(names) + 1)):
        if sum(own.cost for own in chosen) <= budget + 1e-9 and set().union(*(own.tasks for own in chosen)) == names:
            best = min(best, sum(min(own.losses[t] for own in chosen if t in own.tasks) for t in names))
    return best


@pytest.mark.parametrize("budget", [0.5, 1.0, 1.5, 2.0, 4.0])
@pytest.mark.parametrize("seed", range(6))
def test_exact(seed, budget) -> None:
    candidates = drawn(seed, "abc")
    found = search(candidates, budget)
    assert found.loss == pytest.approx(enumerated(candidates, budget), rel=1e-12)
    assert found.cost <= budget and found.cost == pytest.approx(sum(own.cost for own in found.networks))
    assert found.loss == pytest.approx(sum(own.losses[t] for t, own in found.serves.items()))
    assert frozenset().union(*found.groups) == frozenset("abc") and sum(map(len, found.groups)) == 3
    assert np.isnan(found.probability)


def test_more_budget_never_hurts() -> None:
    candidates = drawn(3, "abcde")
    losses = [search(candidates, budget).loss for budget in np.arange(0.5, 5.1, 0.5)]
    assert np.all(np.diff(losses) <= 1e-12)


@pytest.mark.parametrize(("factor", "shift"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1e4), (1.0, -50.0)])
def test_units_do_not_matter(factor, shift) -> None:
    candidates = drawn(1)
    other = [
        Candidate(own.tasks, {t: factor * v + shift for t, v in own.losses.items()}, own.cost) for own in candidates
    ]
    for budget in (1.0, 2.0):
        chosen = [[(own.tasks, own.cost) for own in search(given, budget).networks] for given in (candidates, other)]
        assert chosen[0] == chosen[1]


def test_ties_go_to_the_cheapest() -> None:
    ab = frozenset("ab")
    found = search([Candidate(ab, {"a": 1.0, "b": 1.0}, 2.0), Candidate(ab, {"a": 1.0, "b": 1.0}, 1.0)], budget=5)
    assert found.cost == 1.0


def test_mapping_and_costs() -> None:
    losses = {own: {t: 2.0 / len(own) for t in own} for own in subsets("ab")}
    assert search(losses, 1).groups == (frozenset("ab"),)
    by_size = {own: float(len(own)) for own in losses}
    assert search(losses, 2, cost=by_size).cost == search(losses, 2, cost=len).cost == 2.0
    table = search(losses, 1).table()
    assert table["task"].tolist() == ["a", "b"] and table["network"].tolist() == ["a, b"] * 2


def test_higher_order_is_the_mean_beside_each_other() -> None:
    rng = np.random.default_rng(0)
    pairs = {own: {t: float(rng.normal()) for t in own} for own in subsets("abcd", 2) if len(own) == 2}
    triple = {frozenset("abc"): {"a": 7.0, "b": 8.0, "c": 9.0}}
    found = higher_order(pairs | triple)
    assert set(found) == set(subsets("abcd", 2))
    assert found[frozenset("abc")] == triple[frozenset("abc")]
    expected = np.mean([pairs[frozenset(("a", other))]["a"] for other in "bcd"])
    assert found[frozenset("abcd")]["a"] == pytest.approx(expected)
    assert {own: found[own] for own in pairs} == pairs


def test_posterior_of_larger_sets_covers() -> None:
    """Where losses beside each other task scatter around the set's, central 80% intervals hold it in 80% of cases."""
    rng = np.random.default_rng(5)
    hits, total = 0, 0
    for seed in range(150):
        truth = rng.normal(size=6)
        pairs = {
            own: {t: truth["abcdef".index(t)] + 0.3 * rng.normal() for t in own}
            for own in subsets("abcdef", 2) if len(own) == 2
        }
        found = higher_order(pairs, draws=400, seed=seed)[frozenset("abcdef")]
        for t, value in zip("abcdef", truth, strict=True):
            low, high = np.quantile(found[t], [0.1, 0.9])
            hits += low < value < high
            total += 1
    assert abs(hits / total - 0.8) < 5 * np.sqrt(0.16 / total)


def test_probability_of_being_best() -> None:
    """Two choices whose losses differ by a normal number: the better in the mean is best with Φ(mean/sd)."""
    rng = np.random.default_rng(2)
    difference = 0.5 + rng.normal(size=4000)
    candidates = [
        Candidate(frozenset("ab"), {"a": np.zeros(4000), "b": np.zeros(4000)}),
        Candidate(frozenset("ab"), {"a": difference, "b": np.zeros(4000)}),
    ]
    found = search(candidates, budget=1)
    assert found.networks[0] is candidates[0]
    some = difference[np.linspace(0, 3999, grouping.MOST_DRAWS).astype(int)]
    assert found.probability == pytest.approx(np.mean(some >= 0), abs=1e-9)
    assert 0.55 < found.probability < 0.82


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: search([], 1), "no candidates"),
        (lambda: search({frozenset("a"): {"a": 1.0}, frozenset("b"): {"b": 1.0}}, 1), "cheapest choice costs 2"),
        (lambda: search({frozenset("ab"): {"a": 1.0}}, 1), r"\{a, b\} has no loss for b"),
        (lambda: search({frozenset("a"): {"a": float("nan")}}, 1), "not finite for a"),
        (lambda: search([Candidate(frozenset("a"), {"a": 1.0}, -1.0)], 1), "cost ≥ 0"),
        (lambda: search([Candidate(frozenset("a"), {"a": 1.0})], 1, cost=len), "costs of their own"),
        (lambda: search([frozenset("a")], 1), "sequence of Candidate"),
        (lambda: search({frozenset("a"): {"a": 1.0}}, 1, cost={}), r"no cost of \{a\}"),
        (lambda: search({frozenset("ab"): {"a": np.zeros(3), "b": np.zeros(4)}}, 1), r"draws each, got \[3, 4\]"),
        (lambda: higher_order({frozenset("ab"): {"a": 1.0, "b": 1.0}}), "three tasks"),
        (lambda: higher_order({frozenset("ab"): {"a": 1.0, "b": 1.0}, frozenset("c"): {"c": 1.0}}), "a · c, b · c"),
    ],
)
def test_errors(call, match) -> None:
    with pytest.raises(ValueError, match=match):
        call()

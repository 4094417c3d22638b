"""The screen: what it must not depend on, and the verdict on pairs whose relation is known."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from benchmarks.drawn_pairs import draw
from bmtl.advice.features import LINEAR, P_SUM, Dictionary, sum_of
from bmtl.advice.screen import screen, verdict
from bmtl.families import NegativeBinomial, StudentT
from bmtl.tasks import Tasks

PROBABILITIES = ("p_merge", "p_weight", "p_decouple", "p_correlated", "p_representation")


def p_of(evidence):
    return np.array([getattr(evidence, name) for name in PROBABILITIES])


def outcome(evidence):
    return verdict(evidence.p_merge, evidence.p_weight, evidence.p_decouple)


@pytest.fixture(scope="module")
def data():
    """Two siblings of moderate evidence with partly shared rows, and a third unrelated outcome."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(60, 3))
    f, g = np.tanh(1.5 * X[:, 0]) + X[:, 1], np.sin(1.5 * X[:, 0] - X[:, 1])
    Y = np.column_stack([f, 0.7 * f + 0.5 * g, X[:, 2] ** 2]) + 0.5 * rng.normal(size=(60, 3))
    Y[:12, 0] = np.nan
    Y[45:, 1] = np.nan
    return X, Y


@pytest.fixture(scope="module")
def reference(data):
    X, Y = data
    return screen(Tasks.from_arrays(X, Y[:, :2], families=["gaussian"] * 2)).pairs[0]


def test_probabilities_are_a_distribution(reference):
    assert reference.p_merge + reference.p_weight + reference.p_decouple == pytest.approx(1, abs=1e-12)
    assert reference.p_correlated + reference.p_representation == pytest.approx(reference.p_weight, abs=1e-12)
    assert -1 <= reference.correlation <= 1
    assert (reference.n_a, reference.n_b) == (48, 45)


def test_order_of_tasks(data, reference):
    X, Y = data
    swapped = screen(Tasks.from_arrays(X, Y[:, [1, 0]], families=["gaussian"] * 2)).pairs[0]
    assert p_of(swapped) == pytest.approx(p_of(reference), abs=1e-6)
    assert swapped.correlation == pytest.approx(reference.correlation, abs=1e-6)
    assert (swapped.gain_a, swapped.gain_b) == pytest.approx((reference.gain_b, reference.gain_a), abs=1e-4)
    assert swapped.scale == pytest.approx(1 / reference.scale, rel=1e-3)


def test_order_of_rows(data, reference):
    X, Y = data
    order = np.random.default_rng(0).permutation(len(X))
    shuffled = screen(Tasks.from_arrays(X[order], Y[order, :2], families=["gaussian"] * 2)).pairs[0]
    assert p_of(shuffled) == pytest.approx(p_of(reference), abs=1e-6)


@pytest.mark.parametrize(("scale", "shift"), [(25.0, -300.0), (-1.0, 0.0), (-0.01, 7.0)])
def test_units(data, reference, scale, shift):
    X, Y = data
    Y = Y[:, :2] * [1, scale] + [0, shift]
    other = screen(Tasks.from_arrays(X, Y, families=["gaussian"] * 2)).pairs[0]
    assert p_of(other) == pytest.approx(p_of(reference), abs=1e-6)
    assert other.scale == pytest.approx(scale * reference.scale, rel=1e-4)
    assert other.correlation == pytest.approx(np.sign(scale) * reference.correlation, abs=1e-6)
    assert other.gain_a == pytest.approx(reference.gain_a, abs=1e-4)


def test_other_tasks(data, reference):
    X, Y = data
    more = screen(Tasks.from_arrays(X, Y, families=["gaussian"] * 3))
    assert [(e.a, e.b) for e in more.pairs] == [(0, 1), (0, 2), (1, 2)]
    assert p_of(more.pairs[0]) == pytest.approx(p_of(reference), abs=1e-6)
    assert more.signal.shape == more.r2.shape == (3,)


def test_prior(data, reference):
    X, Y = data
    tasks = Tasks.from_arrays(X, Y[:, :2], families=["gaussian"] * 2)
    never = screen(tasks, prior=(1, 0, 1)).pairs[0]
    assert never.p_weight == 0
    assert never.p_merge / never.p_decouple == pytest.approx(reference.p_merge / reference.p_decouple, rel=1e-6)
    with pytest.raises(ValueError, match="prior"):
        screen(tasks, prior=(1, 1))


def test_verdict_needs_the_threshold():
    assert verdict(0.5, 0.3, 0.2, 0.55) == "undecided"
    assert verdict(0.3, 0.6, 0.1, 0.55) == "weight"


@pytest.mark.parametrize("seed", [1100, 1101])
@pytest.mark.parametrize(
    "kind",
    ["twins", "siblings", "strangers", "sign-flipped twins", "noise-correlated", "null task", "representation"],
)
def test_drawn_pairs(kind, seed):
    pair = draw(kind, seed, 150)
    evidence = screen(pair.tasks).pairs[0]
    assert outcome(evidence) == pair.truth
    if kind == "sign-flipped twins":
        assert evidence.scale < 0
        assert evidence.kind.startswith("sign-flipped")
        assert evidence.gain_a > 0
        assert evidence.gain_b > 0
    if kind == "noise-correlated":
        assert evidence.residual_correlation == pytest.approx(0.6, abs=0.2)
        assert abs(evidence.correlation) < 0.1
    if kind == "representation":
        assert evidence.p_representation > evidence.p_correlated


@pytest.mark.parametrize("seed", [1100, 1101])
def test_dense_strangers_are_not_related_for_sure(seed):
    # Smooth functions of two or three inputs correlate by chance, so undecided is an honest answer.
    evidence = screen(draw("dense strangers", seed, 150).tasks).pairs[0]
    assert outcome(evidence) in ("decouple", "undecided")


@pytest.mark.parametrize("seed", [0, 1])
def test_part_of_a_function_of_more_inputs(seed):
    # With much data one kernel no longer fits both, but task b is still task a and a remainder of other inputs.
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(3000, 6))
    f, g = np.tanh(1.5 * X[:, 0]) + X[:, 1] * X[:, 2], np.sin(1.5 * X[:, 3]) + X[:, 4]
    Y = np.column_stack([f, 0.7 * f + 0.6 * g]) + rng.normal(size=(3000, 2)) * [0.1, 0.5]
    evidence = screen(Tasks.from_arrays(X, Y, families=["gaussian"] * 2)).pairs[0]
    assert outcome(evidence) == "weight"
    assert evidence.p_correlated > 0.9


@pytest.mark.parametrize("family", ["bernoulli", "poisson"])
@pytest.mark.parametrize("kind", ["twins", "strangers"])
def test_other_families(kind, family):
    pair = draw(kind, 1100, 600, family)
    assert outcome(screen(pair.tasks).pairs[0]) == pair.truth


def test_mixed_families_and_outliers():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(400, 3))
    f = 1.5 * np.tanh(X[:, 0] + X[:, 1])
    counts = rng.negative_binomial(3, 3 / (3 + np.exp(1 + 0.6 * f))).astype(float)
    robust = f + 0.3 * rng.standard_t(4, size=400)
    robust[:5] += 40.0
    found = screen(Tasks.from_arrays(X, np.column_stack([robust, counts]), families=[StudentT(), NegativeBinomial()]))
    assert outcome(found.pairs[0]) == "merge"
    assert found.pairs[0].kind == "same up to scale"
    assert np.all(found.signal > 0.99)
    assert np.all(np.isfinite([found.pairs[0].gain_a, found.pairs[0].gain_b]))


def test_linear_dictionary():
    dictionary = Dictionary(np.random.default_rng(0).normal(size=(30, 3)), linear=True)
    assert (LINEAR,) * 3 in dictionary.starts()
    assert all(set(theta) <= {0, LINEAR} for theta in dictionary.neighbours((LINEAR, 0, 0)))
    rng = np.random.default_rng(1)
    X = rng.normal(size=(120, 4))
    Y = (X[:, :2] @ [1.0, -1.0])[:, None] + 0.4 * rng.normal(size=(120, 2))
    assert outcome(screen(Tasks.from_arrays(X, Y, families=["gaussian"] * 2), linear=True).pairs[0]) == "merge"


def test_prior_over_kernels_is_proper():
    dictionary = Dictionary(np.random.default_rng(0).normal(size=(10, 2)))
    levels = range(LINEAR)
    members = [(i, j) for i in levels for j in levels if i or j]
    products = sum(np.exp(dictionary.log_prior(own)) for own in members)
    sums = sum(np.exp(dictionary.log_prior(sum_of(*both))) for both in combinations(members, 2))
    # All but sums of a part and itself.
    twice = P_SUM * sum(np.exp(2 * dictionary.log_part(own)) for own in members)
    assert products == pytest.approx(1.0 - P_SUM)
    assert products + sums + twice == pytest.approx(1.0)

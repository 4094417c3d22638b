"""Functions related in part: one component in common, the one a part of the other, and what only looks like it."""

from __future__ import annotations

import numpy as np
import pytest

from bmtl.advice.candidate import Candidate
from bmtl.advice.features import Dictionary, sum_of
from bmtl.advice.hypotheses import RHO
from bmtl.advice.partly import COMMON, SHARE, nested, one_common_part
from bmtl.advice.screen import PairEvidence, screen
from bmtl.tasks import Tasks

ROWS = 300


def parts(X):
    """Four components of two inputs each, at about unit variance."""
    return [
        np.sqrt(2.0) * np.sin(1.5 * X[:, 0] + X[:, 1]), 1.3 * np.tanh(2.0 * X[:, 2] - X[:, 3]),
        np.sqrt(2.0) * np.cos(1.5 * X[:, 4] - X[:, 5]), 1.3 * np.tanh(X[:, 1] + 2.0 * X[:, 4]),
    ]


def tasks_of(seed, make, noise=0.3):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(ROWS, 6))
    Y = np.column_stack(make(X, rng))
    return Tasks.from_arrays(X, Y + noise * rng.normal(size=Y.shape), families=["gaussian"] * Y.shape[1])


def pair(seed, make, noise=0.3) -> PairEvidence:
    return screen(tasks_of(seed, make, noise)).pairs[0]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_component_in_common_is_weight(seed, sign):
    def make(X, rng):
        g = parts(X)
        return g[0] + g[1], sign * g[1] + g[2]

    found = pair(seed, make)
    assert found.p_weight > 0.95 and found.p_correlated > 0.9
    assert sign * found.correlation == pytest.approx(0.5, abs=0.15)
    assert found.gain_a > 0 and found.gain_b > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_sums_without_a_common_component_are_apart(seed):
    """Of the same inputs in part, which alone is no relation."""

    def make(X, rng):
        g = parts(X)
        return g[0] + g[1], g[2] + np.sqrt(2.0) * np.sin(2.0 * X[:, 3])

    assert pair(seed, make).p_decouple > 0.65


def test_common_part_does_not_depend_on_the_order_of_tasks():
    def make(X, rng):
        g = parts(X)
        return g[0] + g[1], g[1] + g[2]

    tasks = tasks_of(0, make)
    dictionary = Dictionary(tasks.Z)
    a, b = (Candidate(tasks, t, dictionary) for t in (0, 1))
    own = [task.score(task.visited[0]) for task in (a, b)]
    (one, found), (other, _) = one_common_part(a, b, *own), one_common_part(b, a, *own[::-1])
    assert found is not None and one == pytest.approx(other, abs=1e-6)
    np.testing.assert_array_equal(found.rho, COMMON)
    mean, square = found.moments()
    assert 0.3 < mean <= SHARE and mean**2 <= square <= SHARE**2


def test_products_have_no_common_part():
    tasks = tasks_of(0, lambda X, rng: (np.sin(X[:, 0] * X[:, 1]), X[:, 2]))
    dictionary = Dictionary(tasks.Z)
    a, b = (Candidate(tasks, t, dictionary) for t in (0, 1))
    assert one_common_part(a, b, 0.0, 0.0) == (-np.inf, None)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_kernel_that_helps_a_task_anyway_is_no_relation(seed):
    """Task b is smooth but for a small ripple in input 0; task a is another ripple of it, and unrelated."""

    def make(X, rng):
        return np.cos(4.0 * X[:, 0]), X @ np.ones(6) / 2.0 + 0.3 * np.sin(4.0 * X[:, 0])

    tasks = tasks_of(seed, make, noise=0.1)
    dictionary = Dictionary(tasks.Z)
    a, b = (Candidate(tasks, t, dictionary) for t in (0, 1))
    ripple, smooth = (1, 0, 0, 0, 0, 0), (4,) * 6
    assert b.single(sum_of(ripple, smooth)).log_evidence > b.single(smooth).log_evidence + 20.0
    inner = RHO[1:-1]
    assert nested(a, b, ripple, smooth, inner).related < 3.0


def test_a_permuted_outcome_is_decoupled_but_not_for_sure():
    """Nothing tells it from a relation too weak to be seen."""

    def make(X, rng):
        return parts(X)[0], rng.permutation(parts(X)[0])

    assert 0.65 < pair(0, make).p_decouple < 0.9

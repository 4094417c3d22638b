"""The evidence of one task given its parents."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.special import log_expit, logsumexp

import bmtl
from bmtl.causal import laplace, normal
from bmtl.causal.columns import columns
from bmtl.causal.scores import LocalScores
from bmtl.families import Laplace, StudentT, get

NO_INPUTS = np.empty((300, 0))


def drawn(families=("gaussian",) * 4, n=300, seed=0) -> bmtl.Tasks:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    a = X[:, 0] + rng.normal(size=n)
    b = 0.8 * a + rng.normal(size=n)
    c = 0.7 * b - 0.4 * a + rng.normal(size=n)
    d = {
        "gaussian": a - c + rng.normal(size=n), "bernoulli": rng.random(n) < 1 / (1 + np.exp(-b)),
        "poisson": rng.poisson(np.exp(0.4 * b)), "student_t": b + rng.standard_t(4, size=n),
    }[families[-1]]
    return bmtl.Tasks.from_arrays(X, np.column_stack([a, b, c, d]), families, names=list("abcd"))


def without_inputs(tasks) -> LocalScores:
    return LocalScores(replace(columns(tasks, 8), inputs=(), input_names=(), together=((),) * tasks.n_tasks))


def test_subset_forms_are_those_of_each_submatrix(rng):
    half = rng.normal(size=(7, 7))
    A = half @ half.T + np.eye(7)
    sizes = [1, 2, 1, 2]
    log_det, corner = normal.subset_forms(A, sizes)
    ends = np.cumsum(sizes)
    for mask in range(16):
        at = [j for k in range(4) if mask >> k & 1 for j in range(ends[k] - sizes[k], ends[k])]
        Q = A[np.ix_(at, at)]
        assert log_det[mask] == pytest.approx(np.linalg.slogdet(Q)[1], abs=1e-10)
        assert corner[mask] == pytest.approx(A[6, 6] - A[6, at] @ np.linalg.solve(Q, A[at, 6]), abs=1e-9)


def test_closed_form_is_the_regression_evidence_by_quadrature(rng):
    # One parent and few cells: a grid over intercept, slope and log σ.
    x, z = rng.normal(size=(2, 6))
    c, b, s = np.meshgrid(np.linspace(-8, 8, 121), np.linspace(-8, 8, 121), np.linspace(-3, 3, 121), indexing="ij")
    variance, t = np.exp(2 * s), normal.PRECISION
    freedom = normal.FREEDOM + 2
    log_joint = -(freedom + 2 + len(z)) * s - 0.5 * (c**2 + t * b**2 + t) / variance
    log_joint += 0.5 * np.log(t) - (1 + len(z) / 2) * np.log(2 * np.pi) + np.log(2) + freedom / 2 * np.log(t / 2)
    log_joint -= laplace.lgamma(freedom / 2)
    for xi, zi in zip(x, z, strict=True):
        log_joint -= 0.5 * (zi - c - b * xi) ** 2 / variance
    cell = (16 / 120) ** 2 * 6 / 120
    found = np.log(np.sum(np.exp(log_joint))) + np.log(cell)
    assert normal.log_evidence(z, x[:, None], np.array([t])) == pytest.approx(found, abs=0.01)


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_table_and_single_scores_agree(family):
    scores = LocalScores(columns(drawn(("gaussian", "gaussian", "gaussian", family)), 8))
    for child in (0, 3):
        others = [u for u in range(4) if u != child]
        table = scores.table(child, others, 2)
        for mask in range(8):
            own = [u for i, u in enumerate(others) if mask >> i & 1]
            expected = scores.one(child, own) if len(own) <= 2 else -np.inf
            assert table[mask] == pytest.approx(expected, abs=1e-9)


def test_equivalent_graphs_score_the_same_without_inputs():
    scores = without_inputs(drawn())
    for a, b in combinations(range(4), 2):
        for others in ([], [u for u in range(4) if u not in (a, b)]):
            forth = scores.one(a, others) + scores.one(b, [*others, a])
            back = scores.one(b, others) + scores.one(a, [*others, b])
            assert forth == pytest.approx(back, abs=1e-8)


def test_an_instrument_breaks_the_tie_and_inputs_without_effect_do_not():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(400, 2))
    gains = []
    for effect in (0.0, 1.0):
        a = effect * X[:, 0] + rng.normal(size=400)
        b = a + rng.normal(size=400)
        tasks = bmtl.Tasks.from_arrays(X, np.column_stack([a, b]), ["gaussian"] * 2)
        scores = LocalScores(columns(tasks, 8))
        gains.append(scores.one(0, []) + scores.one(1, [0]) - scores.one(1, []) - scores.one(0, [1]))
    assert abs(gains[0]) < 0.5
    # What it takes is one more coefficient than need be: a factor that grows with the root of the rows.
    assert gains[1] > 1.5


def test_curves_of_inputs_are_taken_in_where_they_pay():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(300, 2))
    Y = np.column_stack([np.sin(2 * X[:, 0]), X[:, 1]]) + 0.5 * rng.normal(size=(300, 2))
    found = columns(bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2), 8)
    assert [block.shape[1] for block in found.inputs] == [4, 1]


def test_of_more_inputs_than_groups_those_without_use_to_a_task_act_together():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(200, 7))
    a, b = X[:, [5, 2]].T + rng.normal(size=(2, 200))
    # Given its effect c, what else acts on the effect is of use to b.
    c = b + 2 * X[:, 3] + rng.normal(size=200)
    tasks = bmtl.Tasks.from_arrays(X, np.column_stack([a, b, c]), ["gaussian"] * 3)
    assert columns(tasks, 7).together == (tuple((g,) for g in range(7)),) * 3
    alone = [{own for own in together if len(own) == 1} for together in columns(tasks, 4).together]
    assert [own & {(2,), (3,), (5,)} for own in alone] == [{(5,)}, {(2,), (3,)}, {(2,), (3,)}]
    assert all(sorted(sum(together, ())) == list(range(7)) for together in columns(tasks, 4).together)
    assert columns(tasks, 2).together[2] == ((0, 1, 2, 4, 5, 6), (3,))


def test_inputs_that_act_together_change_little_where_they_do_not_act():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(300, 6))
    a = X[:, 5] + rng.normal(size=300)
    b = a + X[:, 0] + rng.normal(size=300)
    tasks = bmtl.Tasks.from_arrays(X, np.column_stack([a, b]), ["gaussian"] * 2)

    def odds(scores: LocalScores) -> float:
        return scores.one(0, []) + scores.one(1, [0]) - scores.one(1, []) - scores.one(0, [1])

    apart, few = (LocalScores(columns(tasks, most)) for most in (6, 4))
    assert [len(own.sizes) for own in apart.acting + few.acting] == [6, 6, 4, 4]
    assert odds(few) == pytest.approx(odds(apart), abs=0.3)
    drawn = few.draw(1, [0], 500, rng)
    assert drawn.inputs[:, 0].mean() == pytest.approx(apart.draw(1, [0], 500, rng).inputs[:, 0].mean(), abs=0.02)
    assert np.mean(drawn.inputs[:, 1:] != 0) < 0.1


def test_student_t_with_many_degrees_of_freedom_is_gaussian():
    found = columns(drawn(), 8)
    robust = laplace.Robust(found.z[:, 0], StudentT(1e7))
    for own in ([], [1, 2]):
        precision = np.full(len(own), normal.PRECISION)
        exact = normal.log_evidence(found.z[:, 0], found.z[:, own], precision)
        assert robust.log_evidence(found.z[:, own], NO_INPUTS, [], np.zeros(1)) == pytest.approx(exact, abs=0.03)
    sizes = [block.shape[1] for block in found.inputs]
    scores = LocalScores(found)
    averaged = robust.log_evidence(found.z[:, [1]], np.hstack(found.inputs), sizes, scores.acting[0].log_prior)
    # The prior of its noise counts parents, not inputs.
    assert averaged == pytest.approx(scores.one(0, [1]), abs=0.6)


@pytest.mark.parametrize("family", [StudentT(4.0), Laplace()], ids=lambda family: family.name)
def test_evidence_of_heavy_tails_is_near_the_integral(family, rng):
    """A grid over intercept, slope and log σ."""
    x = rng.normal(size=60)
    z = family.draw(rng, 0.3 + 0.5 * x, 0.6)
    axes = np.linspace(-1.0, 1.6, 53), np.linspace(-0.8, 1.8, 53), np.linspace(-1.3, 0.3, 33)
    c, b, s = np.meshgrid(*axes, indexing="ij")
    variance, t, freedom = np.exp(2 * s), normal.PRECISION, normal.FREEDOM + 2
    fit = sum(family.log_prob(zi, c + b * xi, np.exp(s)) for xi, zi in zip(x, z, strict=True))
    prior = -0.5 * (normal.MEAN_CELLS * c**2 + t * b**2 + t) / variance - (freedom + 2) * s
    prior += 0.5 * np.log(normal.MEAN_CELLS * t) - np.log(2 * np.pi)
    prior += np.log(2) + freedom / 2 * np.log(t / 2) - laplace.lgamma(freedom / 2)
    exact = logsumexp(fit + prior) + sum(np.log(axis[1] - axis[0]) for axis in axes)
    found = laplace.Robust(z, family).log_evidence(x[:, None], np.empty((60, 0)), [], np.zeros(1))
    assert found == pytest.approx(exact, abs=0.15)


def test_bernoulli_evidence_is_near_the_integral():
    found = columns(drawn(("gaussian", "gaussian", "gaussian", "bernoulli")), 8)
    y, z = found.y[:, 3], found.z[:, 1]
    model = laplace.Generalised.of(get("bernoulli"), y, np.ones(300), NO_INPUTS)
    grid = np.linspace(-4, 4, 201)
    c, b = np.meshgrid(grid, grid, indexing="ij")
    fit = np.sum(log_expit(np.where(y == 1, 1, -1) * (c[..., None] + b[..., None] * z)), axis=-1)
    prior = -0.5 * ((c - model.loc) / model.scale) ** 2 - 0.5 * (b / model.spread) ** 2
    prior -= np.log(2 * np.pi * model.scale * model.spread)
    exact = np.log(np.sum(np.exp(fit + prior)) * 0.04**2)
    assert model.log_evidence(z[:, None], NO_INPUTS, [], np.zeros(1)) == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize("family", [
    "poisson", "negative_binomial", "zero_inflated_poisson", "gamma", "beta", "bernoulli", "binomial", "ordinal",
    "lognormal", "student_t", "laplace",
])
def test_every_family_prefers_its_own_parent(family):
    rng = np.random.default_rng(4)
    n = 250
    X = rng.normal(size=(n, 1))
    a, b = rng.normal(size=(2, n))
    p = 1 / (1 + np.exp(-a))
    y = {
        "poisson": rng.poisson(np.exp(0.5 * a)), "negative_binomial": rng.poisson(np.exp(a) * rng.gamma(2, 0.5, n)),
        "zero_inflated_poisson": rng.poisson(np.exp(1 + 0.5 * a)) * (rng.random(n) < 0.7),
        "gamma": rng.gamma(2, np.exp(0.7 * a)), "beta": rng.beta(4 * p, 4 - 4 * p).clip(0.01, 0.99),
        "bernoulli": rng.random(n) < p, "binomial": rng.binomial(5, p), "lognormal": np.exp(a + rng.normal(size=n)),
        "ordinal": np.searchsorted([-1.0, 1.0], a + rng.logistic(size=n)), "student_t": a + rng.standard_t(4, n),
        "laplace": a + rng.laplace(size=n),
    }[family]
    exposure = np.full((n, 3), 5.0) if family == "binomial" else None
    if exposure is not None:
        exposure[:, :2] = np.nan
    families = ["gaussian", "gaussian", family]
    tasks = bmtl.Tasks.from_arrays(X, np.column_stack([a, b, y]), families, exposure=exposure)
    scores = LocalScores(columns(tasks, 8))
    assert scores.one(2, [0]) - scores.one(2, []) > 10
    assert scores.one(2, [1]) - scores.one(2, []) < 1


def test_overdispersion_is_no_parent():
    rng = np.random.default_rng(5)
    found = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        counts = rng.poisson(5 * rng.gamma(0.5, 2.0, size=200))
        tasks = bmtl.Tasks.from_arrays(
            rng.normal(size=(200, 1)), np.column_stack([rng.normal(size=200), counts]), ["gaussian", "poisson"]
        )
        scores = LocalScores(columns(tasks, 8))
        found.append(scores.one(1, [0]) - scores.one(1, []))
    assert np.mean(found) < 0

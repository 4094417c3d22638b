"""Effects: coefficients, interventions, paths and mechanisms, against what they must be."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bmtl
from benchmarks.causal.problems import all_graphs, random_graph, with_slopes
from bmtl.causal import dag_posterior, effects, laplace, normal
from bmtl.causal.columns import columns
from bmtl.causal.partition import layers
from bmtl.causal.scores import LocalScores
from bmtl.families import StudentT

NAMES = list("abcd")


def given(graph, Y, X=None, families=None, **options):
    """Effects of tasks whose graph is known, (T, T) or pairs of names."""
    names = NAMES[: Y.shape[1]]
    X = np.random.default_rng(99).normal(size=(len(Y), 1)) if X is None else X
    tasks = bmtl.Tasks.from_arrays(X, Y, families or ["gaussian"] * len(names), names=names)
    pairs = [(a, b) for a in names for b in names if a != b]
    prior = bmtl.EdgePrior(required=graph, forbidden=[pair for pair in pairs if pair not in graph])
    return effects(tasks, dag_posterior(tasks, prior), **options)


def fork(n=2000, seed=0):
    """c acts on a and b, and a not on b."""
    rng = np.random.default_rng(seed)
    c = rng.normal(size=n)
    return np.column_stack([c + rng.normal(size=n), 2 * c + rng.normal(size=n), c])


FORK = [("c", "a"), ("c", "b"), ("a", "b")]


def test_draws_have_the_conjugate_moments():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(30, 1)), np.cumsum(rng.normal(size=(30, 3)), axis=1)
    scores = LocalScores(columns(bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 3), 8))
    m = 40_000
    found = scores.draw(2, [0, 1], m, np.random.default_rng(1))
    z, design = scores.columns.z, scores.columns.design
    weight, moments = [], []
    for inputs in (design[:, :0], design):
        x = np.column_stack([np.ones(30), z[:, :2], inputs])
        precision = np.array([normal.MEAN_CELLS, *[normal.PRECISION] * (x.shape[1] - 1)])
        Q = x.T @ x + np.diag(precision)
        mean = np.linalg.solve(Q, x.T @ z[:, 2])
        freedom = normal.FREEDOM + x.shape[1] + 30
        rate = normal.PRECISION + z[:, 2] @ z[:, 2] - mean @ Q @ mean
        moments.append((mean, rate / (freedom - 2) * np.diag(np.linalg.inv(Q)), rate / (freedom - 2)))
        weight.append(normal.log_evidence(z[:, 2], x[:, 1:], precision[1:]))
    acts = (found.inputs != 0).any(axis=1)
    p = 1 / (1 + np.exp(weight[0] - weight[1]))
    assert np.mean(acts) == pytest.approx(p, abs=0.01)
    for own, (mean, variance, noise) in zip((~acts, acts), moments, strict=True):
        drawn = np.column_stack([found.intercepts, found.parents, found.inputs])[own][:, : len(mean)]
        error = 4.5 / np.sqrt(own.sum())
        np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=error * np.sqrt(variance.max()))
        np.testing.assert_allclose(drawn.var(axis=0), variance, rtol=2 * error)
        assert np.mean(found.noises[own] ** 2) == pytest.approx(noise, rel=error)


def test_draws_around_a_mode_are_the_conjugate_ones_where_noise_is_normal():
    rng = np.random.default_rng(8)
    z, x = rng.normal(size=(2, 200, 3))
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    sizes, used = [1, 2], np.array([1, 2])
    form = laplace.Robust(z[:, 0], StudentT(1e7)).form(z[:, 1:2], x, sizes)
    drawn = form.draw(used, 20_000, rng)
    precision = np.array([normal.PRECISION, normal.PRECISION, *[2 * normal.PRECISION] * 2])
    columns = np.hstack([z[:, 1:2], x])
    closed = normal.Closed(
        normal.moments(z[:, 0], columns, precision), np.append(columns.mean(axis=0), 0.0), 200, 1, np.zeros(4)
    )
    exact = closed.draw(used, 20_000, rng)
    assert drawn[1].shape == exact[1].shape == (20_000, 3)
    # Its noise is at the mode of a prior that counts no inputs.
    for own, other, error in zip(drawn, exact, (0.004, 0.004, 0.02), strict=True):
        np.testing.assert_allclose(own.mean(axis=0), other.mean(axis=0), atol=error)
        np.testing.assert_allclose(own.std(axis=0), other.std(axis=0), rtol=0.04)


@pytest.mark.parametrize(("family", "truth"), [
    ("student_t", 1.5), ("laplace", 1.5), ("poisson", 0.3), ("negative_binomial", 0.3), ("gamma", 0.4),
    ("bernoulli", 1.0), ("binomial", 0.8), ("beta", 0.6), ("ordinal", 1.0), ("lognormal", 0.5),
    ("zero_inflated_poisson", 0.3),
])
def test_slopes_of_every_family_are_in_the_users_units(family, truth):
    rng = np.random.default_rng(2)
    n = 1500
    a = 3 + 2 * rng.normal(size=n)
    eta = truth * (a - 3)
    p = 1 / (1 + np.exp(-eta))
    b = {
        "student_t": eta + rng.standard_t(4, n), "laplace": eta + rng.laplace(size=n),
        "poisson": rng.poisson(np.exp(eta)),
        "negative_binomial": rng.poisson(np.exp(eta) * rng.gamma(2, 0.5, n)), "gamma": rng.gamma(2, np.exp(eta) / 2),
        "bernoulli": rng.random(n) < p, "binomial": rng.binomial(6, p), "lognormal": np.exp(eta + rng.normal(size=n)),
        "beta": rng.beta(5 * p, 5 - 5 * p).clip(1e-6, 1 - 1e-6),
        "ordinal": np.searchsorted([-1.0, 1.0], eta + rng.logistic(size=n)),
        "zero_inflated_poisson": rng.poisson(np.exp(1 + eta)) * (rng.random(n) < 0.7),
    }[family]
    exposure = np.column_stack([np.full(n, np.nan), np.full(n, 6.0)]) if family == "binomial" else None
    tasks = bmtl.Tasks.from_arrays(
        rng.normal(size=(n, 1)), np.column_stack([a, b]), ["gaussian", family], names=["a", "b"], exposure=exposure
    )
    found = effects(tasks, dag_posterior(tasks, bmtl.EdgePrior(required=[("a", "b")])))
    edge = found.edges().iloc[0]
    width = edge["slope_high"] - edge["slope_low"]
    assert abs(edge["slope"] - truth) < 1.2 * width + 0.02
    assert edge["std"] == pytest.approx(edge["slope"] * a.std() / (found.draws.columns.unit[1]), rel=1e-9)
    as_they_come = found.do({})
    y = np.asarray(b, dtype=float)
    drawn = as_they_come.outcomes["b"]
    assert found.tasks.families[1].valid(drawn).all()
    for at in (0.25, 0.5, 0.75):
        # New outcomes are distributed as the old ones, of which the rows drawn are 200.
        assert np.mean(drawn <= np.quantile(y, at)) == pytest.approx(np.mean(y <= np.quantile(y, at)), abs=0.06)
    set_ = found.do({"a": 4.0}).means["b"].mean() - found.do({"a": 2.0}).means["b"].mean()
    assert set_ > 0


@pytest.mark.parametrize("last", ["gaussian", "poisson", "bernoulli"])
def test_intervals_cover(last):
    inside = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        graph = random_graph(4, 1.0, rng)
        # The last task has no effects: of counts they would be of a different size.
        graph[3] &= last == "gaussian"
        B = np.where(graph, rng.uniform(0.3, 1.0, (4, 4)) * rng.choice([-1, 1], (4, 4)), 0.0)
        X, Y = rng.normal(size=(120, 1)), np.zeros((120, 4))
        for t in np.argsort(layers(graph), kind="stable"):
            eta = Y @ B[:, t] + (t % 2) * X[:, 0]
            Y[:, t] = eta + rng.normal(size=120)
            if t == 3 and last == "poisson":
                B[:, t], eta = B[:, t] / 3, eta / 3
                Y[:, t] = rng.poisson(np.exp(eta))
            elif t == 3 and last == "bernoulli":
                Y[:, t] = rng.random(120) < 1 / (1 + np.exp(-eta))
        edges = [(NAMES[a], NAMES[b]) for a, b in zip(*np.nonzero(graph), strict=True)]
        found = given(edges, Y, X, ["gaussian"] * 3 + [last], graphs=150, draws=2).edges()
        for own in found.itertuples():
            truth = B[NAMES.index(own.cause), NAMES.index(own.effect)]
            if last == "gaussian" or own.effect == "d":
                inside.append(own.slope_low <= truth <= own.slope_high)
    assert len(inside) > 50
    assert 0.80 <= np.mean(inside) <= 0.96


@pytest.mark.slow
def test_total_effects_are_calibrated_over_graphs():
    # Graph, slopes and data from the prior: the true effect is one more draw, ties at zero broken at random.
    graphs, prior, ranks = all_graphs(3), bmtl.EdgePrior(), []
    chance = np.exp(prior.densities(3).log_prior(graphs.sum(axis=(1, 2))))
    for seed in range(250):
        rng = np.random.default_rng(seed)
        tasks, B = with_slopes(graphs[rng.choice(len(graphs), p=chance / chance.sum())], 100, rng)
        draws = effects(tasks, dag_posterior(tasks), graphs=300, draws=1).draws
        truth = np.linalg.inv(np.eye(3) - B)
        for cause in range(3):
            moved = draws.moved(np.zeros((300, 3)), cause)[1]
            for effect in {0, 1, 2} - {cause}:
                apart = moved[:, effect] - truth[cause, effect]
                ranks.append(np.mean(apart < -1e-12) + rng.random() * np.mean(np.abs(apart) <= 1e-12))
    assert stats.kstest(ranks, "uniform").pvalue > 0.01


def test_interventions_are_the_algebra_of_paths():
    rng = np.random.default_rng(3)
    Y = fork(300)
    X = rng.normal(size=(300, 1))
    Y[:, 0] += X[:, 0]
    found = given(FORK, Y, X)
    draws = found.draws
    M = np.linalg.inv(np.eye(3) - draws.slopes)
    moved = draws.moved(np.zeros((len(draws), 3)), 2)
    # Cutting c off from causes that it has not changes nothing.
    np.testing.assert_allclose(moved[1], M[:, 2], atol=1e-12)
    total = found.total("c", "b")
    assert total["mean"] == pytest.approx(M[:, 2, 1].mean(), abs=1e-12)
    assert total["p_none"] == 0.0
    contrast = found.do({"c": 2.0}).means["b"].mean(axis=1) - found.do({"c": 1.0}).means["b"].mean(axis=1)
    assert np.mean(contrast) == pytest.approx(total["mean"], abs=0.02)
    # Means that are set propagate exactly where nothing is drawn between.
    direct = found.do({"c": 2.0, "a": 1.0}).means["b"] - found.do({"c": 1.0, "a": 1.0}).means["b"]
    np.testing.assert_allclose(direct, np.broadcast_to(draws.slopes[:, 2, 1][:, None], direct.shape), atol=1e-10)
    inputs = found.mechanisms(["x0"]).set_index(["task_a", "task_b"])
    slot = draws.inputs[:, 0] / found.tasks.x_scale[0]
    expected = np.einsum("su,suv->sv", slot, M).mean(axis=0)
    assert inputs.loc[("a", "b"), "effect_a"] == pytest.approx(expected[0], abs=1e-12)
    assert inputs.loc[("a", "b"), "effect_b"] == pytest.approx(expected[1], abs=1e-12)


def test_doing_is_not_seeing_under_a_fork_and_is_without():
    Y = fork()
    confounded = given(FORK, Y)
    done = confounded.do({"a": 2.0}).means["b"].mean() - confounded.do({"a": 0.0}).means["b"].mean()
    seen = 2 * stats.linregress(Y[:, 0], Y[:, 1]).slope
    assert abs(done) < 0.15
    assert seen > 1.8
    Y[:, 0] -= Y[:, 2]
    alone = given([("c", "b"), ("a", "b")], Y)
    done = alone.do({"a": 2.0}).means["b"].mean() - alone.do({"a": 0.0}).means["b"].mean()
    assert done == pytest.approx(2 * stats.linregress(Y[:, 0], Y[:, 1]).slope, abs=0.25)
    assert alone.do({"a": 2.0}).means["c"].mean() == pytest.approx(alone.do({}).means["c"].mean(), abs=1e-9)


def test_effects_are_averaged_over_graphs():
    rng = np.random.default_rng(4)
    a = rng.normal(size=400)
    Y = np.column_stack([a, a + rng.normal(size=400)])
    tasks = bmtl.Tasks.from_arrays(rng.normal(size=(400, 1)), Y, ["gaussian"] * 2, names=["a", "b"])
    posterior = dag_posterior(tasks)
    found = effects(tasks, posterior, graphs=2000, draws=1)
    p = posterior.edges.loc["a", "b"]
    total = found.total("a", "b")
    assert 0.2 < p < 0.8
    assert total["p_none"] == pytest.approx(1 - p, abs=0.05)
    assert total["mean"] == pytest.approx(p * 1.0, abs=0.1)
    given_edge = found.edges().set_index(["cause", "effect"]).loc[("a", "b")]
    assert given_edge["p"] == pytest.approx(p)
    assert given_edge["slope"] == pytest.approx(1.0, abs=0.1)
    assert "data do not show which way it points" in found.advice("a", "b")


def test_new_inputs_give_what_the_rows_give():
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"x": rng.normal(size=150), "g": rng.choice(["u", "v", "w"], 150)})
    frame["a"] = np.sin(2 * frame["x"]) + (frame["g"] == "v") + 0.3 * rng.normal(size=150)
    frame["b"] = rng.poisson(2 * np.exp(0.5 * frame["a"]))
    frame["time"] = 2.0
    tasks = bmtl.Tasks.from_frame(
        frame, ["x", "g"], {"a": "gaussian", "b": "poisson"}, exposure={"b": "time"}
    )
    found = effects(tasks, dag_posterior(tasks))
    assert any(group.curve for group in found.draws.columns.groups)
    own, new = found.do({"a": 1.0}), found.do({"a": 1.0}, frame[["x", "g"]], exposure={"b": 2.0})
    np.testing.assert_allclose(new.means["b"], own.means["b"], rtol=1e-9)
    half = found.do({"a": 1.0}, frame[["x", "g"]])
    np.testing.assert_allclose(2 * half.means["b"], own.means["b"], rtol=1e-9)
    assert (own.outcomes["a"] == 1.0).all()
    table = own.table.set_index("task")
    assert table.loc["a", "set"] and not table.loc["b", "set"]
    assert table.loc["b", "mean_low"] < table.loc["b", "mean"] < table.loc["b", "mean_high"]
    np.testing.assert_array_equal(found.do({}, seed=3).outcomes["b"], found.do({}, seed=3).outcomes["b"])


def test_averages_over_count_parents_are_those_of_interventions():
    rng = np.random.default_rng(6)
    a = rng.normal(size=1500)
    b = rng.poisson(np.exp(1 + 0.3 * a))
    c = 0.5 * b + rng.normal(size=1500)
    found = given([("a", "b"), ("b", "c")], np.column_stack([a, b, c]), families=["gaussian", "poisson", "gaussian"])
    step = 0.5 * (found.do({"a": 0.25}).means["c"].mean() - found.do({"a": -0.25}).means["c"].mean()) / 0.25
    total = found.total("a", "c")["mean"]
    # The derivative of an exponential, averaged over a standard normal a, against that at 0.
    assert total == pytest.approx(step * np.exp(0.3**2 / 2), rel=0.08)
    path = found.paths("a", "c")
    assert path["slope"][0] == pytest.approx(total, rel=1e-6)


def test_interventions_in_the_data_leave_cells_unexplained():
    rng = np.random.default_rng(7)
    a, noise = rng.normal(size=(2, 400))
    b = 1 + 2 * a + noise
    marks = np.zeros((400, 2), dtype=bool)
    marks[200:, 1] = True
    b[200:] = 50 + rng.normal(size=200)
    tasks = bmtl.Tasks.from_arrays(
        rng.normal(size=(400, 1)), np.column_stack([a, b]), ["gaussian"] * 2, names=["a", "b"], intervened=marks
    )
    found = effects(tasks, dag_posterior(tasks))
    assert found.edges()["slope"][0] == pytest.approx(2.0, abs=0.15)
    assert found.do({"a": 0.0}).means["b"].mean() == pytest.approx(1.0, abs=0.2)
    assert found.split("a", "b")["correlation"].iloc[-1] == pytest.approx(np.corrcoef(a[:200], b[:200])[0, 1])


def test_draws_are_reproducible():
    Y = fork(100)
    first, again, other = (given(FORK, Y, seed=seed).draws.slopes for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()

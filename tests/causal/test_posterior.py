"""The posterior over graphs, from tasks to tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bmtl
from benchmarks.causal.problems import all_graphs, is_acyclic, linear_tasks, random_graph
from bmtl.causal import dag_posterior, effects, posterior
from bmtl.causal.columns import columns
from bmtl.causal.normal import PRECISION, log_evidence
from bmtl.causal.scores import LocalScores
from bmtl.errors import ConvergenceWarning, TaskError, TaskWarning
from bmtl.models import CausalTasks, SharedTrunk

LEARNED = bmtl.EdgePrior(expected_parents=None)
CHAIN = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)


def pair_row(found, a, b):
    table = found.equivalence
    return table[(table["task_a"] == a) & (table["task_b"] == b)].iloc[0]


@pytest.mark.parametrize("expected_parents", [0.6, None])
@pytest.mark.parametrize("seed", range(3))
def test_edges_are_those_of_enumeration_with_the_prior(seed, expected_parents):
    rng = np.random.default_rng(seed)
    tasks = linear_tasks(random_graph(4, 1.0, rng), 60, rng)
    prior = bmtl.EdgePrior(required=[("y0", "y1")], forbidden=[("y2", "y3")], expected_parents=expected_parents)
    scores = LocalScores(columns(tasks, 8))
    graphs = all_graphs(4)
    graphs = graphs[graphs[:, 0, 1] & ~graphs[:, 2, 3] & (graphs.sum(axis=1) <= 2).all(axis=1)]
    logs = np.array([
        sum(scores.one(v, np.flatnonzero(graph[:, v]).tolist()) for v in range(4)) for graph in graphs
    ]) + prior.densities(4).log_prior(graphs.sum(axis=(1, 2)))
    mass = np.exp(logs - logs.max())
    expected = np.tensordot(mass / mass.sum(), graphs, axes=1)
    found = dag_posterior(tasks, prior, max_parents=2)
    assert found.method == "exact"
    np.testing.assert_allclose(found.edges.to_numpy(), expected, atol=1e-9)
    np.testing.assert_array_equal(found.map.to_numpy(), graphs[np.argmax(logs)])


def test_without_inputs_the_evidence_is_that_of_parents_alone():
    rng = np.random.default_rng(20)
    Y = np.cumsum(rng.normal(size=(80, 3)), axis=1)
    tasks = bmtl.Tasks.from_arrays(None, Y, ["gaussian"] * 3)
    found, graphs = dag_posterior(tasks), all_graphs(3)
    z = (Y - Y.mean(axis=0)) / Y.std(axis=0)
    logs = np.array([
        sum(log_evidence(z[:, v], z[:, graph[:, v]], np.full(graph[:, v].sum(), PRECISION)) for v in range(3))
        for graph in graphs
    ]) + bmtl.EdgePrior().densities(3).log_prior(graphs.sum(axis=(1, 2)))
    mass = np.exp(logs - logs.max())
    np.testing.assert_allclose(found.edges, np.tensordot(mass / mass.sum(), graphs, axes=1), atol=1e-9)
    assert found.diagnostics["inputs"] == []


def test_without_inputs_there_are_effects_and_chains(monkeypatch):
    rng = np.random.default_rng(23)
    a = rng.standard_t(3, size=200)
    b = a + rng.standard_t(3, size=200)
    Y = np.column_stack([a, b, rng.poisson(np.exp(0.3 * b.clip(-3, 3)))])
    tasks = bmtl.Tasks.from_arrays(None, Y, ["student_t", "student_t", "poisson"], names=list("abc"))
    found = dag_posterior(tasks)
    told = effects(tasks, found)
    assert found.edges.loc["a", "b"] > 0.9
    assert told.total("a", "b")["mean"] == pytest.approx(1.0, abs=0.25)
    assert told.do({"a": 1.0}).table["mean"][1] == pytest.approx(1.0, abs=0.35)
    assert told.mechanisms().empty
    assert told.split("a", "b").set_index("part")["correlation"]["inputs"] == 0.0
    monkeypatch.setattr(posterior, "MOST_EXACT", 2)
    monkeypatch.setattr("bmtl.causal.many.BLOCK", 100)
    np.testing.assert_allclose(dag_posterior(tasks).edges, found.edges, atol=0.05)


def test_models_without_inputs_say_what_is_missing():
    Y = np.random.default_rng(24).normal(size=(30, 2))
    tasks = bmtl.Tasks.from_arrays(None, Y, ["gaussian"] * 2)
    for what, call in {
        "SharedTrunk": lambda: bmtl.fit(SharedTrunk(), tasks),
        "CausalTasks": lambda: bmtl.fit(CausalTasks(), tasks),
        "advise": lambda: bmtl.advise(SharedTrunk(), tasks),
        "a model": lambda: bmtl.prior_predictive(SharedTrunk(), tasks),
    }.items():
        with pytest.raises(TaskError, match=f"{what} needs inputs, and these tasks have none: .*dag_posterior"):
            call()


@pytest.mark.parametrize("prior", [bmtl.EdgePrior(), LEARNED])
def test_units_and_order_do_not_matter(prior):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 3))
    Y = X[:, :1] + np.cumsum(rng.normal(size=(80, 4)), axis=1)
    Y[:, 3] = rng.poisson(np.exp(0.3 * Y[:, 3].clip(-3, 3)))
    families, names = ["gaussian", "student_t", "gaussian", "poisson"], list("abcd")
    first = dag_posterior(bmtl.Tasks.from_arrays(X, Y, families, names=names), prior)
    order = [3, 1, 0, 2]
    scaled = Y * [1e3, 1e-3, 7.0, 1.0] + [0.0, 5.0, -1e4, 0.0]
    other = dag_posterior(bmtl.Tasks.from_arrays(
        X * [1e-4, 3.0, 1e5] + 2.0, scaled[:, order], [families[t] for t in order], names=[names[t] for t in order]
    ), prior)
    np.testing.assert_allclose(other.edges.loc[names, names], first.edges, atol=1e-6)


def test_lognormal_is_its_logarithm():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(100, 1))
    Y = np.cumsum(rng.normal(size=(100, 3)), axis=1)
    plain = dag_posterior(bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 3))
    Y[:, 1] = np.exp(Y[:, 1])
    logs = dag_posterior(bmtl.Tasks.from_arrays(X, Y, ["gaussian", "lognormal", "gaussian"]))
    np.testing.assert_allclose(logs.edges, plain.edges, atol=1e-9)


def test_a_chain_has_no_direction_and_a_collider_has():
    rng = np.random.default_rng(2)
    X, e = rng.normal(size=(3000, 1)), rng.normal(size=(3000, 4))
    chain = np.column_stack([e[:, 0], e[:, 0] + e[:, 1], e[:, 0] + e[:, 1] + e[:, 2]])
    found = dag_posterior(bmtl.Tasks.from_arrays(X, chain, ["gaussian"] * 3, names=list("abc")))
    for a, b in ("ab", "bc"):
        assert pair_row(found, a, b)["p_unidentified"] > 0.85
    assert pair_row(found, "a", "c")["p_none"] > 0.8
    collider = np.column_stack([e[:, 0], e[:, 1], e[:, 0] + e[:, 1] + e[:, 2]])
    found = dag_posterior(bmtl.Tasks.from_arrays(X, collider, ["gaussian"] * 3, names=list("abc")))
    assert pair_row(found, "a", "c")["p_forward"] > 0.85
    assert pair_row(found, "b", "c")["p_forward"] > 0.85
    columns_of_p = [name for name in found.equivalence if name.startswith("p_")]
    np.testing.assert_allclose(found.equivalence[columns_of_p].sum(axis=1), 1.0, atol=1e-12)


def test_instruments_identify_direction():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(1000, 3))
    a = X.sum(axis=1) + rng.normal(size=1000)
    Y = np.column_stack([a, a + rng.normal(size=1000)])
    found = dag_posterior(bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2))
    assert found.edges.loc["y0", "y1"] > 0.95
    assert found.equivalence["p_forward"][0] > 0.9


def test_interventions_identify_direction():
    rng = np.random.default_rng(4)
    a = rng.normal(size=400)
    b = a + rng.normal(size=400)
    marks = np.zeros((400, 2), dtype=bool)
    marks[200:, 1] = True
    b[200:] = rng.normal(size=200)
    X, Y = rng.normal(size=(400, 1)), np.column_stack([a, b])
    families, names = ["gaussian"] * 2, ["a", "b"]
    found = dag_posterior(bmtl.Tasks.from_arrays(X, Y, families, names=names, intervened=marks))
    assert found.edges.loc["a", "b"] > 0.999
    assert pair_row(found, "a", "b")["p_forward"] > 0.999
    # Set cells act on others and are not explained themselves: here b causes a.
    Y = np.column_stack([np.where(marks[:, 1], b, a) + 0.5 * rng.normal(size=400), b])
    Y[:200, 1] = Y[:200, 0] + rng.normal(size=200)
    found = dag_posterior(bmtl.Tasks.from_arrays(X, Y, families, names=names, intervened=marks))
    assert found.edges.loc["b", "a"] > 0.999


def test_heavy_tails_identify_direction():
    rng = np.random.default_rng(5)
    a = rng.standard_t(3, size=1000)
    Y = np.column_stack([a, a + rng.standard_t(3, size=1000)])
    X = rng.normal(size=(1000, 1))
    for family in ("student_t", "laplace"):
        found = dag_posterior(bmtl.Tasks.from_arrays(X, Y, [family] * 2))
        assert found.edges.loc["y0", "y1"] > 0.99
    gaussian = dag_posterior(bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2))
    assert gaussian.equivalence["p_unidentified"][0] > 0.8


def test_tiers_identify_direction_and_required_edges_stay():
    rng = np.random.default_rng(6)
    tasks = linear_tasks(CHAIN, 200, rng)
    prior = bmtl.EdgePrior(tiers=[["y0"], ["y1", "y2", "y3"]], required=[("y0", "y3")])
    found = dag_posterior(tasks, prior)
    assert found.edges.loc["y0", "y3"] == pytest.approx(1.0)
    assert found.edges["y0"].max() == 0.0
    assert pair_row(found, "y0", "y1")["p_unidentified"] < 1e-9


def test_draws_agree_with_the_table_and_are_reproducible():
    rng = np.random.default_rng(7)
    found = dag_posterior(linear_tasks(CHAIN, 60, rng))
    drawn = found.draw(4000, seed=1)
    assert drawn.shape == (4000, 4, 4)
    assert drawn.dtype == bool
    assert np.max(np.abs(drawn.mean(axis=0) - found.edges.to_numpy())) < 0.04
    np.testing.assert_array_equal(found.draw(10, seed=1), found.draw(10, seed=1))
    assert (found.draw(50, seed=1) != found.draw(50, seed=2)).any()
    with pytest.raises(TaskError, match="whole number ≥ 1, got 0"):
        found.draw(0)


@pytest.mark.parametrize(("n_tasks", "prior"), [
    (6, bmtl.EdgePrior()), pytest.param(6, LEARNED, marks=pytest.mark.slow),
    pytest.param(8, bmtl.EdgePrior(), marks=pytest.mark.slow), pytest.param(8, LEARNED, marks=pytest.mark.slow),
])
def test_chains_agree_with_the_sum_over_all_graphs(n_tasks, prior, monkeypatch):
    rng = np.random.default_rng(8 + n_tasks)
    tasks = linear_tasks(random_graph(n_tasks, 1.0, rng), 60, rng)
    exact = dag_posterior(tasks, prior)
    monkeypatch.setattr(posterior, "MOST_EXACT", 2)
    chains = dag_posterior(tasks, prior)
    assert chains.method == "mcmc"
    assert chains.diagnostics["converged"]
    assert np.max(np.abs(chains.edges.to_numpy() - exact.edges.to_numpy())) < 0.05
    np.testing.assert_allclose(chains.density, exact.density, atol=0.05)
    assert np.max(np.abs(chains.draw(4000).mean(axis=0) - chains.edges.to_numpy())) < 0.05
    ours, theirs = (own.equivalence.set_index(["task_a", "task_b"]) for own in (chains, exact))
    assert np.max(np.abs(ours - theirs).to_numpy()) < 0.08


def test_dense_and_sparse_graphs_are_told_apart():
    rng = np.random.default_rng(17)
    dense, sparse = np.triu(np.ones((5, 5), dtype=bool), 1), np.zeros((5, 5), dtype=bool)
    means = []
    for graph in (dense, sparse):
        tasks = linear_tasks(graph, 1000, rng)
        found, usual = dag_posterior(tasks, LEARNED), dag_posterior(tasks)
        assert found.density["posterior"].sum() == pytest.approx(1.0)
        means.append(found.density["posterior"] @ found.density["expected_parents"])
        # At least as near to the truth as where the density is fixed: 10 edges and none.
        edges, usually = found.edges.to_numpy().sum(), usual.edges.to_numpy().sum()
        assert abs(edges - graph.sum()) < abs(usually - graph.sum())
        assert usual.density.to_numpy().tolist() == [[1.0, 1.0, 1.0]]
    assert means[0] > means[1] + 0.5


@pytest.mark.parametrize("kind", ["tiers", "required"])
def test_chains_keep_to_the_prior(kind, monkeypatch):
    monkeypatch.setattr(posterior, "MOST_EXACT", 2)
    monkeypatch.setattr("bmtl.causal.many.BLOCK", 200)
    rng = np.random.default_rng(9)
    tasks = linear_tasks(CHAIN, 60, rng)
    prior = {
        "tiers": bmtl.EdgePrior(tiers=[["y1", "y2"], ["y0", "y3"]]),
        "required": bmtl.EdgePrior(required=[("y3", "y0"), ("y2", "y1")], forbidden=[("y0", "y2")]),
    }[kind]
    chains = dag_posterior(tasks, prior)
    monkeypatch.setattr(posterior, "MOST_EXACT", 15)
    exact = dag_posterior(tasks, prior)
    np.testing.assert_allclose(chains.edges, exact.edges, atol=0.05)
    may, must = prior.allowed(tasks.names)
    drawn = chains.draw(500)
    assert not (drawn & ~may).any()
    assert drawn[:, must].all()


def test_edges_from_tasks_that_are_no_candidates_are_not_impossible(monkeypatch):
    rng = np.random.default_rng(16)
    tasks = linear_tasks(random_graph(7, 1.0, rng), 200, rng)
    exact = dag_posterior(tasks).edges.to_numpy()
    monkeypatch.setattr(posterior, "MOST_EXACT", 2)
    monkeypatch.setattr(posterior, "CANDIDATES", 5)
    monkeypatch.setattr("bmtl.causal.many.BLOCK", 150)
    edges = dag_posterior(tasks).edges.to_numpy()
    assert np.all(edges[exact > 0.001] > 0)
    assert np.max(np.abs(edges - exact)) < 0.1


def test_chains_that_have_not_settled_say_so(monkeypatch):
    monkeypatch.setattr(posterior, "MOST_EXACT", 2)
    monkeypatch.setattr("bmtl.causal.many.BLOCK", 16)
    monkeypatch.setattr("bmtl.causal.many.MOST_BLOCKS", 1)
    rng = np.random.default_rng(10)
    with pytest.warns(ConvergenceWarning, match="R-hat of"):
        found = dag_posterior(linear_tasks(random_graph(8, 2.0, rng), 40, rng))
    assert not found.diagnostics["converged"]


@pytest.mark.slow
def test_forty_tasks():
    rng = np.random.default_rng(11)
    graph = random_graph(40, 1.0, rng)
    found = dag_posterior(linear_tasks(graph, 500, rng))
    assert found.diagnostics["r_hat"] <= 1.05
    skeleton = found.edges.to_numpy() + found.edges.to_numpy().T
    assert np.sum((skeleton - (graph | graph.T)) ** 2) / 2 < 3
    assert all(is_acyclic(own) for own in found.draw(50))


def test_missing_cells_leave_rows_out():
    rng = np.random.default_rng(12)
    X, Y = rng.normal(size=(50, 1)), rng.normal(size=(50, 2))
    Y[:20, 0] = np.nan
    with pytest.warns(TaskWarning, match="30 of 50 rows have all tasks.*'y0' 30, 'y1' 50"):
        found = dag_posterior(bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2))
    assert found.diagnostics["rows"] == 30
    Y[24:, 1] = np.nan
    with pytest.raises(TaskError, match=r"only 4 rows have all 2 tasks, 5 are needed .*'y0' 30, 'y1' 24"):
        dag_posterior(bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2))


@pytest.mark.filterwarnings("ignore:related outcomes")
def test_collinear_tasks_are_named():
    rng = np.random.default_rng(13)
    X, Y = rng.normal(size=(60, 1)), rng.normal(size=(60, 5))
    Y[:, 3] = 2 * Y[:, 0] - 0.5 * Y[:, 1] + 7
    with pytest.raises(TaskError, match="exact linear combination of each other: 'a', 'b', 'd';"):
        dag_posterior(bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 5, names=list("abcde")))
    Y[:, 4] = -Y[:, 2]
    with pytest.raises(TaskError, match="combination of each other: 'c', 'e';"):
        dag_posterior(bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 5, names=list("abcde")))


def test_what_cannot_be_part_of_a_graph():
    rng = np.random.default_rng(14)
    X, Y = rng.normal(size=(60, 1)), rng.normal(size=(60, 3))
    Y[:, 2] = rng.integers(0, 3, 60)
    tasks = bmtl.Tasks.from_arrays(X, Y, ["gaussian", "gaussian", "categorical"])
    with pytest.raises(TaskError, match="categorical tasks cannot be part of a graph yet: 'y2'"):
        dag_posterior(tasks)
    with pytest.raises(TaskError, match="needs at least 2"):
        dag_posterior(tasks.select(["y0"]))
    with pytest.raises(TaskError, match="required edges name unknown tasks: 'z'"):
        dag_posterior(tasks, bmtl.EdgePrior(required=[("z", "y0")]))
    frame = pd.DataFrame({"x": X[:, 0], "y": Y[:, 0], "g": ["a", "b"] * 30})
    with pytest.raises(TaskError, match="not observed together"):
        dag_posterior(bmtl.Tasks.from_groups(frame, ["x"], "y", "g", "gaussian"))
    two = tasks.select(["y0", "y1"])
    with pytest.raises(TaskError, match="whole number ≥ 0, got -1"):
        dag_posterior(two, max_parents=-1)
    with pytest.raises(TaskError, match="more parents are required than max_parents=0 allows of 'y1'"):
        dag_posterior(two, bmtl.EdgePrior(required=[("y0", "y1")]), max_parents=0)


@pytest.mark.parametrize(
    ("n_tasks", "expected"), [(3, 2), (9, 8), (11, 10), (12, 5), (13, 4), (15, 4), (20, 19)]
)
def test_parents_are_limited_where_there_would_be_too_many_fits(n_tasks, expected):
    rng = np.random.default_rng(21)
    X, Y = rng.normal(size=(40, 1)), rng.standard_t(4, size=(40, n_tasks))
    must = np.zeros((n_tasks, n_tasks), dtype=bool)
    for family, limit in (("student_t", expected), ("gaussian", n_tasks - 1)):
        tasks = bmtl.Tasks.from_arrays(X, Y, [family] * n_tasks)
        assert posterior._limit(tasks, None, must) == limit


def test_a_heavy_tailed_task_may_have_many_causes():
    rng = np.random.default_rng(22)
    causes = rng.standard_t(4, size=(200, 7))
    Y = np.column_stack([causes, causes.sum(axis=1) + rng.standard_t(4, size=200), rng.standard_t(4, size=200)])
    tasks = bmtl.Tasks.from_arrays(rng.normal(size=(200, 1)), Y, ["student_t"] * 9)
    edges = dag_posterior(tasks).edges.to_numpy()
    assert edges[:7, 7].min() > 0.95
    assert edges[:, 8].max() < 0.3 and edges[8].max() < 0.3


def test_a_task_that_is_constant_on_the_common_rows():
    rng = np.random.default_rng(15)
    X, Y = rng.normal(size=(30, 1)), rng.normal(size=(30, 2))
    Y[:15, 0] = np.nan
    Y[15:, 1] = 4.0
    with pytest.raises(TaskError, match="'y1' is constant on the 15 rows"), pytest.warns(TaskWarning):
        dag_posterior(bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2))

"""Tasks that act on each other: the program, its posterior, and what is read off it, against what they must be."""

from __future__ import annotations

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from scipy import stats

import bmtl
from bmtl import replay
from bmtl.causal import dag_posterior, effects
from bmtl.causal.fitted import FittedDraws, predicted
from bmtl.data import Data, Design
from bmtl.engine.replay import Replay
from bmtl.fitting import numpyro_latent, pyro_latent
from bmtl.model import explained, specification
from bmtl.models import CausalTasks, SharedTrunk
from bmtl.noise import ByGroup, Known
from bmtl.prior import prior_draws
from bmtl.runs import values_of
from bmtl.storage import restore
from bmtl.trunks import MLP, Identity

EDGES = [("size", "count"), ("tail", "count"), ("count", "any"), ("size", "burst"), ("any", "burst")]


def given(tasks, model, edges=EDGES) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Arrays of the tasks with a graph, and the graph."""
    graph = np.zeros((tasks.n_tasks, tasks.n_tasks), dtype=np.float32)
    for cause, effect in edges:
        graph[tasks.index(cause), tasks.index(effect)] = 1.0
    return values_of(model, tasks, Design.of(tasks)) | {"given/edge": graph}, graph


@pytest.fixture(scope="module")
def marked(five):
    """`five` with some cells of a task set from outside."""
    marks = tuple((np.arange(n) % 3 == 0) & (name == "size") for name, n in zip(five.names, five.n_cells, strict=True))
    return replace(five, intervened=marks)


def test_the_story(marked, programs) -> None:
    """η = c + a · tanh(x W + b) · w / √k + Σ b (y − mean) / sd, and the cells that count, in plain numpy."""
    model = CausalTasks(MLP((4,)))
    values, graph = given(marked, model)
    sites = programs.draw(model, marked, 1, values)
    design = Design.of(marked)
    engine, data = Replay({name: value[None] for name, value in sites.items()}), Data(design, values)
    model.program(engine, data)
    phi = np.tanh(marked.Z @ sites["trunk_w0"][0] + sites["trunk_b0"][0])
    complete = set(range(marked.n_rows)).intersection(*(set(own.tolist()) for own in marked.rows))
    assert 3 < len(complete) < marked.n_rows
    head_of = design.plan(model.arranged(marked.names)).head_of
    v = np.full((5, marked.n_rows), np.nan)
    for t, (family, rows) in enumerate(zip(marked.families, marked.rows, strict=True)):
        y = marked.y_std(t)
        v[t, rows] = y if family.standardised else (y - y.mean()) / y.std()
    for block in data.blocks():
        for j, t in enumerate(block.tasks):
            eta = sites["intercept"][t] + sites["amplitude"][t] * phi @ sites["head"][head_of[t]] / 2.0
            for u in np.flatnonzero(graph[:, t]):
                eta = eta + sites["slope"][u, t] * v[u]
            rows = sorted(complete)
            np.testing.assert_allclose(np.asarray(engine.eta[block.name])[0, j, rows], eta[rows], rtol=2e-4, atol=1e-4)
            own = {row for row, mark in zip(marked.rows[t], marked.intervened[t], strict=True) if not mark}
            assert set(np.flatnonzero(block.mask[j])) == complete & own
            assert set(explained(model, marked).rows[t]) == complete & own


def test_engines_agree_and_so_does_reading_again(marked, programs) -> None:
    model = CausalTasks(MLP((4,)))
    values, graph = given(marked, model)
    sites = programs.draw(model, marked, 2, values)
    total = float(programs.numpyro(model, marked, sites, values))
    np.testing.assert_allclose(float(programs.pyro(model, marked, sites, values)), total, rtol=1e-4)
    drawn = {name: value[None] for name, value in (sites | {"edge": graph}).items()}
    read = replay.log_likelihood(model, marked, drawn)
    units = sum(len(own[0]) * np.log(unit) for own, unit in zip(read, marked.y_scale, strict=True))
    found = programs.pyro_trace(model, marked, sites, values)
    scored = sum(float(node["log_prob_sum"]) for name, node in found.nodes.items() if name.startswith("y_"))
    np.testing.assert_allclose(sum(float(own.sum()) for own in read) + units, scored, rtol=1e-4)
    # An edge that is not there does nothing: neither to the likelihood, nor do other tasks' outcomes through it.
    moved = sites | {"slope": sites["slope"] + np.where(graph == 0, 1.0, 0.0).astype(np.float32)}
    prior = stats.norm(0, Design.of(marked).amplitude_scale)
    change = np.where(graph == 0, prior.logpdf(moved["slope"]) - prior.logpdf(sites["slope"]), 0.0).sum()
    np.testing.assert_allclose(float(programs.numpyro(model, marked, moved, values)) - total, change, rtol=1e-3)


def test_gradients_are_finite_where_a_fit_starts(marked) -> None:
    model = CausalTasks()
    values, _ = given(marked, model)
    design = Design.of(marked)
    held = {name: jax.numpy.asarray(value) for name, value in values.items()}
    latent = numpyro_latent.Latent.of(model, design, held)
    gradient = jax.jit(jax.value_and_grad(lambda z: latent.log_density(z, held)))
    for seed in range(10):
        value, slope = gradient(latent.start(jax.random.PRNGKey(seed), held))
        assert np.isfinite(value) and np.all(np.isfinite(slope)) and np.all(slope != 0)
    tensors = {name: torch.as_tensor(value) for name, value in values.items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        own = pyro_latent.Latent(
            lambda engine, held, scale=1.0: model.program(engine, Data(design, held, scale)), "cpu", tensors,
            lambda name: False,
        )
        z = own.start().requires_grad_()
        (slope,) = torch.autograd.grad(own.log_density(z, tensors), z)
        assert torch.isfinite(slope).all() and (slope != 0).all()


# The conjugate model: noise and amplitude known, so that given the graph all coefficients are Gaussian.
NOISE, AMPLITUDE, ROWS = 2.0, 0.7, 1000
TOTAL = {("a", "b"): 1.5, ("b", "c"): -0.8, ("a", "c"): 0.5 - 1.5 * 0.8}


@pytest.fixture(scope="module")
def sem():
    """Gaussian tasks a → b → c and a → c, all noises `NOISE`, two inputs that act on all; a model with the graph."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(ROWS, 2)) * [2.0, 5.0]
    a = 3.0 + X @ [1.0, 0.3] + NOISE * rng.normal(size=ROWS)
    b = 20.0 + 1.5 * a - X @ [1.0, 0.2] + NOISE * rng.normal(size=ROWS)
    c = 0.5 * a - 0.8 * b + X @ [0.8, 0.3] + NOISE * rng.normal(size=ROWS)
    tasks = bmtl.Tasks.from_arrays(X, np.column_stack([a, b, c]), ["gaussian"] * 3, names=list("abc"))
    known = bmtl.EdgePrior(required=[("a", "b"), ("b", "c"), ("a", "c")])
    return tasks, CausalTasks(Identity(), known, noise=Known(NOISE), amplitude=Known(AMPLITUDE))


@pytest.fixture(scope="module")
def sampled(sem):
    tasks, model = sem
    return bmtl.fit(model, tasks, method="nuts", seed=2, warmup=300, draws=500)


def conjugate(tasks, t, causes) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and covariance of a task's (intercept, head, slopes) on the modelled scale, closed form."""
    v = np.column_stack([tasks.y_std(u) for u in range(3)])
    A = np.column_stack([np.ones(ROWS), AMPLITUDE * tasks.Z / np.sqrt(2), v[:, causes]])
    sigma = NOISE / tasks.y_scale[t]
    covariance = np.linalg.inv(np.eye(A.shape[1]) + A.T @ A / sigma**2)
    return covariance @ A.T @ v[:, t] / sigma**2, covariance


def assert_mean(values: np.ndarray, truth: float, least_ess: float = 800.0) -> None:
    """The mean of ``chains × draws`` is the truth within five Monte Carlo errors, at a least effective size."""
    ess = float(array_stats.ess(values, chain_axis=0, draw_axis=1, method="mean"))
    assert ess >= least_ess
    assert abs(values.mean() - truth) < 5 * values.std() / np.sqrt(ess)


def test_nuts_has_the_conjugate_posterior_of_a_known_graph(sem, sampled) -> None:
    tasks, _ = sem
    assert sampled.converged
    sites = sampled.draws.sites
    for t, causes in enumerate(([], [0], [0, 1])):
        mean, covariance = conjugate(tasks, t, causes)
        z = np.concatenate(
            [sites["intercept"][..., t, None], sites["head"][..., t, :], sites["slope"][..., causes, t]], axis=-1
        ).astype(float)
        for i in range(len(mean)):
            assert_mean(z[..., i], mean[i])
            for j in range(i + 1):
                assert_mean((z[..., i] - mean[i]) * (z[..., j] - mean[j]), covariance[i, j], 300.0)
    np.testing.assert_array_equal(sites["slope"][sites["edge"] == 0], 0.0)
    np.testing.assert_array_equal(sites["edge"][0, 0], [[0, 1, 1], [0, 0, 1], [0, 0, 0]])


def test_effects_agree_with_those_in_closed_form(sem, sampled) -> None:
    """Their priors differ, which at 1,000 rows moves a slope by a fraction of its interval."""
    tasks, model = sem
    closed = effects(tasks, dag_posterior(tasks, model.edges), graphs=2000, draws=1)
    ours, theirs = (own.edges().set_index(["cause", "effect"]) for own in (sampled, closed))
    assert list(ours.columns) == list(theirs.columns)
    np.testing.assert_array_equal(ours["p"], 1.0)
    for edge in ours.index:
        for kind in ("slope", "std"):
            width = theirs.loc[edge, f"{kind}_high"] - theirs.loc[edge, f"{kind}_low"]
            for end in ("", "_low", "_high"):
                assert abs(ours.loc[edge, kind + end] - theirs.loc[edge, kind + end]) < 0.15 * width
    total = sampled.effects.total("a", "c")
    assert abs(total["mean"] - closed.total("a", "c")["mean"]) < 0.15 * (total["high"] - total["low"])
    assert total["p_none"] == 0.0
    assert set(sampled.paths("a", "c")["path"]) == {"a → b → c", "a → c"}
    assert sampled.paths("a", "c")["slope"].sum() == pytest.approx(total["mean"], rel=1e-9)
    table = sampled.mechanisms().set_index(["input", "task_a", "task_b"])
    same = closed.mechanisms().set_index(["input", "task_a", "task_b"])
    for key in table.index:
        for end in ("a", "b"):
            low, high = same.loc[key, f"effect_{end}_low"], same.loc[key, f"effect_{end}_high"]
            assert abs(table.loc[key, f"effect_{end}"] - same.loc[key, f"effect_{end}"]) < 0.15 * (high - low)


def test_straight_lines_of_a_linear_trunk_are_its_coefficients(sem, sampled) -> None:
    tasks, _ = sem
    draws = sampled.effects.draws
    head = sampled.flat["head"].astype(float)
    for j in range(2):
        exact = AMPLITUDE * head[:, :, j] / np.sqrt(2) * tasks.y_scale
        np.testing.assert_allclose(draws.lines(j), exact, rtol=1e-3, atol=1e-4)


def test_interventions_are_the_algebra_of_the_draws_and_near_the_truth(sem, sampled) -> None:
    _, slopes = sem, sampled.effects.draws.slopes
    high, low = sampled.do({"a": 5.0}), sampled.do({"a": 3.0})
    step = (high.means["b"] - low.means["b"]).mean(axis=1)
    np.testing.assert_allclose(step, 2.0 * slopes[:, 0, 1], atol=1e-6)
    both = sampled.do({"a": 5.0, "b": 22.0}).means["c"] - sampled.do({"a": 3.0, "b": 22.0}).means["c"]
    np.testing.assert_allclose(both.mean(axis=1), 2.0 * slopes[:, 0, 2], atol=1e-6)
    for (cause, effect), slope in TOTAL.items():
        at = {"a": 3.0, "b": 24.5}[cause]
        up, down = (sampled.do({cause: at + d}).outcomes[effect].mean(axis=1) for d in (1.0, -1.0))
        assert abs((up - down).mean() / 2 - slope) < 4 * sampled.effects.draws.moved(
            np.zeros((2000, 3)), "abc".index(cause)
        )[0][:, "abc".index(effect)].std()
    # b is set: a is as it comes, and new outcomes of c have the variance of a and of c's own noise.
    done = sampled.do({"b": 22.0})
    np.testing.assert_array_equal(done.outcomes["b"], 22.0)
    np.testing.assert_allclose(done.means["a"], sampled.do({}).means["a"])
    at_one = done.outcomes["c"][:, 0] - done.means["c"][:, 0]
    assert stats.kstest(at_one / NOISE, "norm").pvalue > 1e-3


def test_predictions_are_of_causes_before_effects(sem, sampled) -> None:
    """Means and variances of the joint Gaussian that the draws say, at a new row."""
    tasks, _ = sem
    x = np.array([[2.0, -10.0]])
    found = sampled.predict(x, seed=5)
    assert set(found["predictions"].data_vars) == {"a", "b", "c"}
    draws = sampled.effects.draws
    functions = draws.at(tasks.standardise(x))[:, :, 0]
    M = np.linalg.inv(np.eye(3) - draws.slopes)
    mean = np.einsum("st,stv->sv", functions, M)
    variance = NOISE**2 * np.einsum("stv,stv->sv", M, M)
    for t, name in enumerate(tasks.names):
        drawn = found["predictions"][name].values.reshape(-1).astype(float)
        z = (drawn - mean[:, t]) / np.sqrt(variance[:, t])
        assert stats.kstest(z, "norm").pvalue > 1e-3
    expected = found["mean"]["c"].values.reshape(-1)
    b = found["predictions"]["b"].values.reshape(-1)
    a = found["predictions"]["a"].values.reshape(-1)
    given_causes = functions[:, 2] + draws.slopes[:, 0, 2] * a + draws.slopes[:, 1, 2] * b
    np.testing.assert_allclose(expected, given_causes, rtol=1e-4)


def test_what_is_saved_is_read(sem, sampled, tmp_path) -> None:
    path = tmp_path / "fit.nc"
    sampled.save(path)
    back = bmtl.load(path)
    assert back.model == sampled.model and back.checks.equals(sampled.checks) and back.converged
    assert back.edges().equals(sampled.edges()) and back.mechanisms().equals(sampled.mechanisms())
    np.testing.assert_array_equal(back.do({"a": 1.0}).outcomes["c"], sampled.do({"a": 1.0}).outcomes["c"])
    tree = back.data
    assert tree["posterior"]["edge"].dims == tree["posterior"]["slope"].dims == ("chain", "draw", "cause", "effect")
    assert tree["posterior"]["edge"].sel(cause="a", effect="b").all()
    assert float(tree["constant_data"]["edge_probability"].sel(cause="b", effect="c")) == pytest.approx(1.0)
    assert back.elpd().equals(sampled.elpd())
    assert back.summary() == sampled.summary() and back.summary()["graphs"] == "1, together of probability 1.00"


@pytest.fixture(scope="module")
def unsure():
    """Two tasks that go together with next to nothing to tell cause from effect, and a third of two of its own."""
    rng = np.random.default_rng(1)
    a = rng.normal(size=150)
    Y = np.column_stack([a, 0.8 * a + rng.normal(size=150), rng.normal(size=150)])
    return bmtl.Tasks.from_arrays(rng.normal(size=(150, 1)), Y, ["gaussian"] * 3, names=list("abc"))


@pytest.fixture(scope="module")
def mixed(unsure):
    return bmtl.fit(CausalTasks(Identity(), graphs=20), unsure, seed=0, restarts=1, draws=2000)


def test_draws_hold_graphs_in_proportion_to_their_posterior(unsure, mixed) -> None:
    posterior = dag_posterior(unsure).edges.to_numpy()
    assert 0.2 < posterior[0, 1] < 0.8
    share = mixed.draws.sites["edge"].mean(axis=(0, 1))
    np.testing.assert_allclose(share, posterior, atol=0.03)
    p = mixed.edges().set_index(["cause", "effect"])["p"]
    assert p["a", "b"] == pytest.approx(posterior[0, 1], abs=1e-12)
    assert mixed.summary()["graphs"].endswith("together of probability 1.00")
    # Slopes are of their own graph: of b on a where the edge leads there.
    tables = mixed.edges().set_index(["cause", "effect"])
    y = unsure.y[0], unsure.y[1]
    assert tables.loc[("a", "b"), "slope"] == pytest.approx(stats.linregress(*y).slope, abs=0.06)
    assert tables.loc[("b", "a"), "slope"] == pytest.approx(stats.linregress(*y[::-1]).slope, abs=0.06)
    none = mixed.effects.total("a", "b")["p_none"]
    assert none == pytest.approx(1 - share[0, 1], abs=0.03)


def test_a_mode_is_that_of_the_likeliest_graph(unsure) -> None:
    fit = bmtl.fit(CausalTasks(Identity()), unsure, method="map", seed=0, restarts=1)
    assert fit.draws.shape == (1, 1) and fit.converged
    edge = fit.draws.sites["edge"][0, 0]
    assert edge[0, 1] + edge[1, 0] == 1 and edge.sum() == 1
    assert fit.edges()["p"].max() < 1.0


@pytest.mark.slow
def test_a_mixture_of_families_with_cells_missing_and_set() -> None:
    """log b = ½ + 0.4 a, and c = 2 + 0.5 b + e; a third of b was set from outside, and some cells are missing."""
    rng = np.random.default_rng(4)
    n = 600
    x, a = rng.normal(size=(2, n))
    b = rng.poisson(np.exp(0.5 + 0.4 * a)).astype(float)
    marks = np.zeros((n, 3), dtype=bool)
    marks[:200, 1] = True
    b[:200] = rng.integers(0, 9, 200)
    c = 2 + 0.5 * b + x + rng.normal(size=n)
    Y = np.column_stack([a, b, c])
    Y[rng.random(n) < 0.05, 2] = np.nan
    tasks = bmtl.Tasks.from_arrays(
        x[:, None], Y, ["gaussian", "poisson", "gaussian"], names=list("abc"), intervened=marks
    )
    missing = np.isnan(Y[:, 2])
    with pytest.warns(bmtl.TaskWarning, match=f"{n - missing.sum()} of 600 rows have all tasks; the others are left"):
        fit = bmtl.fit(
            CausalTasks(Identity(), bmtl.EdgePrior(required=[("a", "b"), ("b", "c")], forbidden=[("a", "c")])), tasks,
            guide="full_rank", restarts=1, seed=0,
        )
    np.testing.assert_array_equal(fit.explained.n_cells, [(~missing).sum(), (~missing[200:]).sum(), (~missing).sum()])
    assert [own.shape[-1] for own in fit.log_likelihood] == list(fit.explained.n_cells)
    assert list(fit.elpd()["n"]) == list(fit.explained.n_cells)
    assert fit.data["observed_data"]["b"].size == fit.explained.n_cells[1]
    table = fit.edges().set_index(["cause", "effect"])
    for edge, truth in ((("a", "b"), 0.4), (("b", "c"), 0.5)):
        own = table.loc[edge]
        assert abs(own["slope"] - truth) < 1.5 * (own["slope_high"] - own["slope_low"])
    assert fit.do({"a": 1.0}).means["b"].mean() == pytest.approx(np.exp(0.9), rel=0.15)
    new = fit.score(tasks)
    assert list(new["n"]) == list(fit.explained.n_cells)
    with pytest.raises(bmtl.TaskError, match="scored given their causes: give 'b', 'c'"):
        fit.score(tasks.select(["a"]))


def test_prior_predictive_draws_causes_first() -> None:
    """Var b = 1 + a²|x|²/k + σ² + Var v_a, in units of the outcome: slopes are standard normal."""
    rng = np.random.default_rng(7)
    tasks = bmtl.Tasks.from_arrays(rng.normal(size=(20, 1)), rng.normal(size=(20, 2)), ["gaussian"] * 2, ["a", "b"])
    model = CausalTasks(Identity(), bmtl.EdgePrior(required=[("a", "b")]), amplitude=Known(0.5), noise=Known(0.8))
    n = 20_000
    drawn = bmtl.prior_predictive(model, tasks, draws=n, seed=1)["prior_predictive"]
    own = [1 + 0.25 * tasks.Z[:, 0] ** 2 + (0.8 / unit) ** 2 for unit in tasks.y_scale]
    for t, variance in enumerate((own[0], own[1] + own[0])):
        y = (drawn[tasks.names[t]].values[0].astype(float) - tasks.y_centre[t]) / tasks.y_scale[t]
        # Products of normal numbers have fourth moments of up to 9 variances squared.
        assert np.all(np.abs(y.var(axis=0) / variance - 1) < 5 * np.sqrt(8 / n))
    free = bmtl.prior_predictive(CausalTasks(Identity()), tasks, draws=2000, seed=0)["prior"]["edge"].values[0]
    # Three graphs, of which one has no edge: θ is such that tasks have one parent on average, or 1 where they cannot.
    np.testing.assert_allclose(free.mean(axis=0), [[0, 1 / 3], [1 / 3, 0]], atol=0.05)


def test_every_family_can_be_cause_and_effect(seven) -> None:
    """Trials and labels included, at the cells there are; sums of shares of labels are one."""
    tasks = seven.select([name for name in seven.names if name != "colour"])
    model = CausalTasks(Identity(), bmtl.EdgePrior(tiers=[["income", "grade"], ["wins", "cost"], ["share", "visits"]]))
    drawn = bmtl.prior_predictive(model, tasks, draws=50, seed=0)
    assert drawn["prior"]["edge"].values.any(axis=(0, 1)).sum() > 10
    for t, name in enumerate(tasks.names):
        y = drawn["prior_predictive"][name].values[0].astype(float)
        assert y.shape == (50, tasks.n_cells[t]) and tasks.families[t].valid(y).all()
        assert tasks.families[t].valid_exposure(y, np.broadcast_to(tasks.exposure[t], y.shape)).all()
    sites = prior_draws(model, tasks, 50, 0)
    means, _ = predicted(FittedDraws.of(model, tasks, sites), tasks.Z, np.full((6, 40), 5.0), 0)
    grade = means[tasks.index("grade")]
    assert grade.shape == (50, 40, 4)
    np.testing.assert_allclose(grade.sum(axis=-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("expected_parents", [0.5, None])
def test_specification_there_and_back(expected_parents) -> None:
    known = bmtl.EdgePrior([("a", "b")], [("b", "c")], [["a"], ["b", "c"]], expected_parents)
    model = CausalTasks(Identity(), known, graphs=3)
    assert restore(json.loads(json.dumps(specification(model)))) == model


@pytest.mark.slow
def test_nuts_under_several_graphs(unsure) -> None:
    """Slopes of each direction are those in closed form, up to the prior."""
    fit = bmtl.fit(CausalTasks(Identity(), graphs=4), unsure, method="nuts", warmup=400, draws=600, target_accept=0.99)
    assert len(np.unique(fit.flat["edge"], axis=0)) > 1
    closed = effects(unsure, dag_posterior(unsure), graphs=2000, draws=2).edges().set_index(["cause", "effect"])
    own = fit.edges().set_index(["cause", "effect"])
    for edge in (("a", "b"), ("b", "a")):
        low, high = closed.loc[edge, "slope_low"], closed.loc[edge, "slope_high"]
        for end in ("", "_low", "_high"):
            assert abs(own.loc[edge, f"slope{end}"] - closed.loc[edge, f"slope{end}"]) < 0.2 * (high - low)


@pytest.mark.slow
def test_pyro_has_the_same_posterior(sem) -> None:
    tasks, model = sem
    fit = bmtl.fit(model, tasks, engine="pyro", device="cpu", guide="full_rank", restarts=1, seed=0, batch_size=ROWS,
                   learning_rate=0.1)
    mean, covariance = conjugate(tasks, 2, [0, 1])
    slopes = fit.flat["slope"][:, [0, 1], 2]
    sd = np.sqrt(np.diag(covariance))[-2:]
    assert np.max(np.abs(slopes.mean(axis=0) - mean[-2:]) / sd) < 0.15
    np.testing.assert_allclose(slopes.std(axis=0), sd, rtol=0.15)


def test_errors(unsure, sem, seven, five, pair, grouped, made) -> None:
    fit = made(SharedTrunk(Identity()), pair, bmtl.fitting.SVI(draws=20))
    for call in (fit.edges, fit.mechanisms, lambda: fit.do({"u": 1.0}), lambda: fit.paths("u", "v")):
        with pytest.raises(TypeError, match="outcomes of SharedTrunk do not act on each other: fit a CausalTasks"):
            call()
    with pytest.raises(ValueError, match="one noise a task, not noises by group"):
        CausalTasks(noise=ByGroup())
    with pytest.raises(ValueError, match="graphs ≥ 1, got 0"):
        CausalTasks(graphs=0)
    with pytest.raises(bmtl.TaskError, match="categorical tasks cannot be part of a graph yet: 'colour'"):
        bmtl.fit(CausalTasks(), seven)
    with pytest.raises(bmtl.TaskError, match="no edge between them can be learned"):
        bmtl.fit(CausalTasks(), grouped("gaussian"))
    with pytest.raises(bmtl.TaskError, match="needs at least 2; got 1"):
        bmtl.fit(CausalTasks(), unsure.select(["a"]))
    with pytest.raises(bmtl.TaskError, match="required edges name unknown tasks: 'z'"):
        bmtl.fit(CausalTasks(edges=bmtl.EdgePrior(required=[("a", "z")])), unsure)
    with pytest.raises(ValueError, match="marginal=True needs outcomes that do not act on each other"):
        bmtl.fit(sem[1], sem[0], method="nuts", marginal=True)
    with pytest.raises(TypeError, match="CausalTasks has none: use SharedTrunk"):
        bmtl.advise(CausalTasks(), unsure)
    with pytest.raises(ValueError, match="graphs are possible: simulate under one"):
        bmtl.diagnostics.simulation_based_calibration(CausalTasks(Identity()), unsure, simulations=2)

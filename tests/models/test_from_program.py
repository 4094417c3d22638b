"""A program of one's own: its likelihood cell by cell, its predictions, its posterior, and what it may not do."""

from __future__ import annotations

from types import FunctionType, SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
import pyro
import pytest
import torch
from arviz_stats import loo
from arviz_stats.base import array_stats
from scipy import stats

import bmtl
from bmtl.fitting import NUTS, SVI
from bmtl.models import FromProgram

NOISE = 0.5
"""Of the tasks of `known`, on the modelled scale."""


def written(engine: str) -> SimpleNamespace:
    """The same programs for one engine or the other."""
    module, exp = {"numpyro": (numpyro, jnp.exp), "pyro": (pyro, torch.exp)}[engine]
    sample, dist = module.sample, module.distributions

    def known(x: Any, y: Any) -> None:
        """Two regressions with known noise: the posterior is conjugate."""
        w = sample("w", dist.Normal(0.0, 1.0).expand([2, x.shape[1]]).to_event(2))
        with module.plate("rows", len(x)):
            for t, name in enumerate(("u", "v")):
                sample(name, dist.Normal(x @ w[t], NOISE), obs=None if y is None else y[name])

    def counts(x: Any, exposure: Any) -> None:
        """Two counts on one slope, the second with twice the rate; what is observed is not said."""
        b = sample("b", dist.Normal(0.0, 1.0))
        rate = module.deterministic("rate", 0.3 * b * x[:, 0])
        sample("n", dist.Poisson(exposure["n"] * exp(rate)))
        sample("m", dist.Poisson(2.0 * exposure["m"] * exp(rate)))

    def scaled(x: Any) -> None:
        """`known`, each of whose sites counts half."""
        handlers = {"numpyro": numpyro.handlers, "pyro": pyro.poutine}[engine]
        with handlers.scale(scale=0.5):
            known(x, None)

    def chained(x: Any) -> None:
        """The second outcome is twice the first, but for next to no noise."""
        b = sample("b", dist.Normal(0.0, 1.0))
        u = sample("u", dist.Normal(b * x[:, 0], 1.0))
        sample("v", dist.Normal(2.0 * u, 0.01))

    def shared(x: Any, arrangement: bmtl.Arrangement) -> None:
        """Linear functions, one for each head of the arrangement."""
        plan = arrangement.plan(("u", "v"))
        w = sample("w", dist.Normal(0.0, 1.0).expand([plan.n_heads, x.shape[1]]).to_event(2))
        s = sample("s", dist.HalfNormal(1.0).expand([2]).to_event(1))
        for t, name in enumerate(("u", "v")):
            sample(name, dist.Normal(float(plan.sign[t]) * (x @ w[int(plan.head_of[t])]), s[t]))

    def wrong_name(x: Any) -> None:
        sample("u", dist.Normal(x[:, 0], 1.0))

    def wrong_shape(x: Any) -> None:
        sample("u", dist.Normal(x, 1.0).to_event(1))

    def taken_name() -> None:
        sample("noise", dist.Normal(0.0, 1.0))

    def discrete() -> None:
        sample("z", dist.Bernoulli(0.5))

    def parameter(x: Any) -> None:
        module.param("size", x[0, 0])

    own = {name: value for name, value in locals().items() if isinstance(value, FunctionType)}
    return SimpleNamespace(**own, engine=engine, model=lambda name: FromProgram(own[name], engine=engine))


@pytest.fixture(scope="module", params=["numpyro", "pyro"])
def on(request: pytest.FixtureRequest) -> SimpleNamespace:
    return written(request.param)


@pytest.fixture(scope="module")
def gaussian() -> bmtl.Tasks:
    rng = np.random.default_rng(21)
    X = rng.normal(size=(60, 2)) * [1.0, 5.0] + [0.0, 3.0]
    Y = X @ np.array([[2.0, 1.0], [0.4, -0.6]]) + rng.normal(size=(60, 2)) + [100.0, -5.0]
    Y[:15, 1] = np.nan
    return bmtl.Tasks.from_arrays(X, Y, ["gaussian", "gaussian"], names=["u", "v"])


@pytest.fixture(scope="module")
def fit(made: Any, gaussian: bmtl.Tasks, on: SimpleNamespace) -> bmtl.Fit:
    return made(on.model("known"), gaussian, SVI(draws=60))


def test_likelihood_of_every_cell(fit: bmtl.Fit, gaussian: bmtl.Tasks) -> None:
    w = fit.draws.sites["w"][0]
    for t, found in enumerate(fit.log_likelihood):
        rows = gaussian.rows[t]
        mean = gaussian.y_centre[t] + gaussian.y_scale[t] * np.einsum("nd,sd->sn", gaussian.Z[rows], w[:, t])
        expected = stats.norm.logpdf(gaussian.y[t], mean, NOISE * gaussian.y_scale[t])
        assert found.shape == (1, 60, len(rows))
        np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-3)


def test_scales_that_a_program_sets_are_kept(
    fit: bmtl.Fit, gaussian: bmtl.Tasks, on: SimpleNamespace, programs: SimpleNamespace
) -> None:
    sites = {"w": fit.draws.sites["w"][0, 0]}
    joint = getattr(programs, on.engine)
    whole, half = (joint(on.model(own), gaussian, sites, None, 3.0) for own in ("known", "scaled"))
    assert float(half) == pytest.approx(0.5 * float(whole), rel=1e-5)


def test_predictions(fit: bmtl.Fit, gaussian: bmtl.Tasks) -> None:
    found = fit.predict(gaussian.X, seed=1)
    w = fit.draws.sites["w"][0]
    for t, name in enumerate(gaussian.names):
        mean = gaussian.y_centre[t] + gaussian.y_scale[t] * np.einsum("nd,sd->sn", gaussian.Z, w[:, t])
        np.testing.assert_allclose(found["mean"][name].values[0], mean, rtol=1e-3, atol=1e-2)
        z = (found["predictions"][name].values[0] - mean) / (NOISE * gaussian.y_scale[t])
        # Standard normal numbers, 60 × 60 of them.
        assert abs(z.mean()) < 4 / 60 and abs(z.var() - 1) < 4 * np.sqrt(2) / 60
        assert np.abs(np.corrcoef(z[:2])[0, 1]) < 0.5


def test_functions_are_compared(fit: bmtl.Fit, gaussian: bmtl.Tasks) -> None:
    f = np.einsum("nd,std->stn", gaussian.Z, fit.draws.sites["w"][0])
    expected = np.mean([np.corrcoef(own)[0, 1] for own in f])
    assert fit.relations()["correlation"][0] == pytest.approx(expected, abs=1e-4)
    slope = gaussian.y_scale[0] * fit.draws.sites["w"][0, :, 0, 0].mean()
    assert fit.inputs()["effect"][0] == pytest.approx(slope, rel=1e-4)
    assert fit.weights()[["noise", "weight"]].isna().all().all()


def test_the_tree_is_for_arviz(fit: bmtl.Fit) -> None:
    with pytest.warns(UserWarning, match="Estimated shape parameter"):
        found = loo(fit.data, var_name="v", reff=1.0)
    assert found.n_data_points == 45 and np.isfinite(found.elpd)
    assert set(fit.data["posterior"].data_vars) == {"w"}
    assert list(fit.elpd()["task"]) == ["u", "v"]


def test_exposures_and_counts(made: Any, on: SimpleNamespace) -> None:
    rng = np.random.default_rng(22)
    X, years = rng.normal(size=(40, 1)), rng.uniform(0.5, 2.0, (40, 2))
    Y = rng.poisson(years * [1.0, 2.0]).astype(float)
    tasks = bmtl.Tasks.from_arrays(X, Y, ["poisson", "poisson"], names=["n", "m"], exposure=years)
    fit = made(on.model("counts"), tasks, SVI(draws=20))
    rate = np.exp(0.3 * fit.draws.sites["b"][0][:, None] * tasks.Z[:, 0])
    for t, found in enumerate(fit.log_likelihood):
        np.testing.assert_allclose(found[0], stats.poisson.logpmf(Y[:, t], (t + 1) * years[:, t] * rate), rtol=1e-3)
    mean = fit.predict(X, exposure={"m": 3.0})["mean"]["m"].values[0]
    np.testing.assert_allclose(mean, 6.0 * rate, rtol=1e-4)


def test_groups_of_rows(made: Any, on: SimpleNamespace) -> None:
    rng = np.random.default_rng(23)
    frame = pd.DataFrame({"a": rng.normal(size=40), "b": rng.normal(size=40), "g": list("uv") * 20})
    frame["y"] = frame["a"] + rng.normal(size=40)
    tasks = bmtl.Tasks.from_groups(frame, ["a", "b"], "y", "g", "gaussian")
    fit = made(on.model("known"), tasks, SVI(draws=20))
    for t, found in enumerate(fit.log_likelihood):
        mean = np.einsum("nd,sd->sn", tasks.Z[tasks.rows[t]], fit.draws.sites["w"][0][:, t])
        expected = stats.norm.logpdf(tasks.y_std(t), mean, NOISE) - np.log(tasks.y_scale[t])
        np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-3)


def test_what_depends_on_an_outcome_follows_it(made: Any, gaussian: bmtl.Tasks, on: SimpleNamespace) -> None:
    """New outcomes follow the new ones they depend on, and observed ones are scored given the observed."""
    fit = made(on.model("chained"), gaussian, SVI(draws=30))
    new = fit.predict(gaussian.X, seed=2)["predictions"]
    u, v = ((new[name].values - gaussian.y_centre[t]) / gaussian.y_scale[t] for t, name in enumerate("uv"))
    # Of 1800 draws none is six standard deviations off, and rounding is of numbers around 100.
    np.testing.assert_allclose(v, 2.0 * u, atol=6 * 0.01 + 1e-3)
    given = gaussian.y_std(0)[gaussian.rows[1]]
    expected = stats.norm.logpdf(gaussian.y_std(1), 2.0 * given, 0.01) - np.log(gaussian.y_scale[1])
    np.testing.assert_allclose(fit.log_likelihood[1][0], np.tile(expected, (30, 1)), rtol=1e-3, atol=1e-2)


def test_saved_by_name_and_loaded_with_the_program(fit: bmtl.Fit, tmp_path: Any, on: SimpleNamespace) -> None:
    path = tmp_path / "fit.nc"
    fit.save(path)
    name = f"{on.known.__module__}:written.<locals>.known"
    with pytest.raises(ValueError, match=rf"made by the program {name}: give it, bmtl.load\(path, program=...\)"):
        bmtl.load(path)
    with pytest.raises(ValueError, match=f"made by the program {name}, not by .*counts"):
        bmtl.load(path, program=on.counts)
    again = bmtl.load(path, program=fit.model.function)
    assert again.model == fit.model
    np.testing.assert_array_equal(again.log_likelihood[1], fit.log_likelihood[1])


@pytest.mark.parametrize(
    ("program", "kind", "message"),
    [
        ("wrong_name", bmtl.TaskError, "has no sample site named 'v'"),
        ("wrong_shape", bmtl.TaskError, r"'u' must have one outcome a row, but has .* event shape \(2,\)"),
        ("taken_name", ValueError, "a name of its own for the site 'noise'"),
        ("discrete", ValueError, "the latent site 'z' is discrete"),
        ("parameter", ValueError, "the parameter 'size' has no prior"),
    ],
)
def test_programs_that_do_not_fit(
    program: str, kind: Any, message: str, gaussian: bmtl.Tasks, on: SimpleNamespace
) -> None:
    with pytest.raises(kind, match=message):
        bmtl.fit(on.model(program), gaussian, method="map", restarts=1)


def test_what_is_no_program() -> None:
    known = written("pyro").known
    with pytest.raises(TypeError, match=r"may take x, y, exposure, arrangement, but .* asks for \['z'\]"):
        FromProgram(lambda z: None)
    with pytest.raises(TypeError, match="needs a function, got 3"):
        FromProgram(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes no arrangement that could be varied"):
        FromProgram(known, bmtl.Arrangement.shared(["u", "v"]))
    with pytest.raises(ValueError, match="unknown engine 'jax'; known: pyro, numpyro"):
        FromProgram(known, engine="jax")
    with pytest.raises(ValueError, match="vectorised=False is for Pyro programs"):
        FromProgram(known, vectorised=False)


def test_a_program_runs_on_its_engine_only(gaussian: bmtl.Tasks, seven: bmtl.Tasks, on: SimpleNamespace) -> None:
    other = {"numpyro": "pyro", "pyro": "numpyro"}[on.engine]
    with pytest.raises(ValueError, match=f"the model runs on the engine {on.engine} only, not on '{other}'"):
        bmtl.fit(on.model("known"), gaussian, engine=other)
    with pytest.raises(TypeError, match="no outcomes with labels, and a task is categorical"):
        bmtl.fit(on.model("known"), seven)


@pytest.mark.slow
def test_posterior_is_the_conjugate_one(gaussian: bmtl.Tasks, on: SimpleNamespace) -> None:
    """w_t ~ Normal(S Z'y/σ², S), S = (I + Z'Z/σ²)⁻¹, by NUTS."""
    fit = bmtl.fit(on.model("known"), gaussian, method=NUTS(chains=2, warmup=300, draws=500), seed=0)
    assert fit.converged
    w = fit.draws.sites["w"]
    for t in range(2):
        Z = gaussian.Z[gaussian.rows[t]]
        S = np.linalg.inv(np.eye(2) + Z.T @ Z / NOISE**2)
        mean = S @ Z.T @ gaussian.y_std(t) / NOISE**2
        for j in range(2):
            own = w[:, :, t, j]
            ess = float(array_stats.ess(own, chain_axis=0, draw_axis=1))
            assert ess > 200
            assert abs(own.mean() - mean[j]) < 4 * np.sqrt(S[j, j] / ess)
            assert own.std() == pytest.approx(np.sqrt(S[j, j]), rel=4 / np.sqrt(2 * ess))


@pytest.fixture(scope="module")
def mirrored() -> bmtl.Tasks:
    """A linear function and its negative, with some noise."""
    rng = np.random.default_rng(24)
    X = rng.normal(size=(120, 2))
    f = X @ np.array([1.0, -0.7])
    Y = np.column_stack([f, -f]) + 0.3 * rng.normal(size=(120, 2))
    return bmtl.Tasks.from_arrays(X, Y, ["gaussian", "gaussian"], names=["u", "v"])


@pytest.mark.slow
def test_advice_on_a_program(mirrored: bmtl.Tasks) -> None:
    advice = bmtl.advise(written("numpyro").model("shared"), mirrored, seed=0, folds=2, restarts=1)
    assert advice.pairs["verdict"][0] == "merge" and str(advice.arrangement) == "{u = −v}"
    assert advice.fit.draws.sites["w"].shape[2:] == (1, 2)
    table = advice.differences.set_index("arrangement")
    # One function for both with the right sign loses nothing that is beyond noise.
    assert table.loc["merged", "difference"].sum() > -2 * np.sqrt((table.loc["merged", "se"] ** 2).sum())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bmtl.ConvergenceWarning")
def test_advice_on_a_pyro_program_tries_the_same(mirrored: bmtl.Tasks) -> None:
    """Short of the steps that a verdict needs, and it says so."""
    short = {"folds": 2, "restarts": 1, "max_steps": 500, "draws": 100}
    advice = bmtl.advise(written("pyro").model("shared"), mirrored, seed=0, **short)
    assert advice.fit.engine == "pyro" and advice.pairs["verdict"][0] == "undecided"
    assert str(advice.arrangement) == "{u = −v}" and advice.fit.draws.sites["w"].shape[2:] == (1, 2)
    assert np.isfinite(advice.differences[["difference", "se"]]).all(axis=None)

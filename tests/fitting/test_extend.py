"""Tasks added to a fitted trunk: exact given the trunk's draws, and nothing of what was fitted changes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import bmtl
from bmtl import replay
from bmtl._inputs import inputs_like
from bmtl.arrangement import Arrangement
from bmtl.fitting import MAP, NUTS, SVI
from bmtl.fitting import extend as module
from bmtl.models import Decoupled, SharedTrunk
from bmtl.noise import ByGroup, Common, Known
from bmtl.relations import Exchangeable
from bmtl.tasks import Tasks
from bmtl.trunks import MLP, Identity, Linear, Module

NOISE, AMPLITUDE = 0.8, 1.3
ARRANGEMENT = Arrangement(((("size", "tail"), ("any",)), (("count",), ("burst",))), frozenset({"tail"}))
# Short fits are not meant to have settled.
unsettled = pytest.mark.filterwarnings("ignore::bmtl.errors.ConvergenceWarning")


def new_tasks(five: Tasks, names=("about", "zeal"), n: int = 15, seed: int = 3) -> Tasks:
    """A Gaussian and a Poisson task on the inputs of the five, at rows of their own; one sorts first, one last."""
    rng = np.random.default_rng(seed)
    X = five.X[rng.integers(five.n_rows, size=n)] + 0.1 * rng.normal(size=(n, 3)) * five.x_scale
    f = (X - five.x_centre) / five.x_scale @ [1.0, -0.5, 0.2]
    Y = np.column_stack([7.0 + 2.0 * f + rng.normal(size=n), rng.poisson(np.exp(0.5 * f))])
    return Tasks.from_arrays(X, Y, ["gaussian", "poisson"], names=list(names))


@pytest.fixture(scope="module")
def linear(pair, made):
    """Draws of a linear trunk that nobody fitted, and a new task with known noise and amplitude."""
    model = SharedTrunk(Linear(2), noise=Known(NOISE), amplitude=Known(AMPLITUDE))
    rng = np.random.default_rng(8)
    X = rng.normal(size=(30, 2))
    new = Tasks.from_arrays(X, (X @ [2.0, 1.0] + NOISE * rng.normal(size=30))[:, None], ["gaussian"], names=["w"])
    return made(model, pair, SVI(draws=300)), new


def conjugate(fit, new) -> tuple[np.ndarray, np.ndarray]:
    """Closed-form posterior mean and covariance of the new task's (intercept, head) at each draw of the trunk."""
    z = (new.X - fit.tasks.x_centre) / fit.tasks.x_scale
    sigma = NOISE / new.y_scale[0]
    means, covariances = [], []
    for V in fit.draws.sites["trunk_w"][0, :, 0].astype(float):
        A = np.column_stack([np.ones(len(z)), AMPLITUDE * z @ V / np.sqrt(2)])
        covariances.append(np.linalg.inv(np.eye(3) + A.T @ A / sigma**2))
        means.append(covariances[-1] @ A.T @ new.y_std(0) / sigma**2)
    return np.array(means), np.array(covariances)


def test_heads_have_their_posterior_at_every_draw_of_the_trunk(linear, monkeypatch) -> None:
    """Whitened by the closed form of their own draw, they are standard normal; fitted in two parts."""
    fit, new = linear
    monkeypatch.setattr(module, "FEATURES_AT_ONCE", 150 * 30 * 2)
    out = fit.extend(new, guide="full_rank", seed=1)
    mean, covariance = conjugate(fit, new)
    order = out.arrangement.plan(out.tasks.names).head_of[2]
    drawn = np.concatenate([out.draws.sites["intercept"][0, :, 2:], out.draws.sites["head"][0, :, order]], axis=-1)
    white = np.linalg.solve(np.linalg.cholesky(covariance), (drawn - mean)[..., None])[..., 0]
    assert np.all(np.abs(white.mean(axis=0)) < 5 / np.sqrt(300))
    assert np.all(np.abs(white.var(axis=0) - 1) < 5 * np.sqrt(2 / 300))
    assert np.max(np.abs(np.corrcoef(white.T) - np.eye(3))) < 5 / np.sqrt(300)
    assert stats.kstest(white.ravel(), "norm").pvalue > 1e-3
    # The trunks differ, so heads that knew nothing of their own trunk would not be standard normal.
    pooled = np.linalg.solve(np.linalg.cholesky(covariance), (drawn[::-1] - mean)[..., None])
    assert np.mean(pooled**2) > 2.0


def test_the_log_ratio_of_the_cut_posterior(linear) -> None:
    """Heads that are exact add nothing to the ratio of the old draws but the error of the ELBO."""
    fit, new = linear
    added = fit.extend(new, guide="full_rank", seed=1).draws.log_ratio - fit.draws.log_ratio
    assert abs(added.mean()) < 0.1 and added.std() < 0.5


def test_a_mean_field_guide_has_the_posterior_mean(linear) -> None:
    fit, new = linear
    out = fit.extend(new)
    mean, covariance = conjugate(fit, new)
    sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    error = (out.draws.sites["intercept"][0, :, 2] - mean[:, 0]) / sd[:, 0]
    assert abs(error.mean()) < 5 / np.sqrt(300)


@unsettled
@pytest.mark.parametrize(
    ("settings", "beside"),
    [(SVI(draws=20), "any"), (MAP(), "burst"), (NUTS(chains=2, draws=10), "burst")],
    ids=["svi", "map", "nuts"],
)
def test_what_was_fitted_stays(settings, beside, five, made) -> None:
    """Linear predictors and noises of the old tasks, draw by draw, in an arrangement that sorts the new ones in."""
    fit = made(SharedTrunk(MLP((3, 2)), arrangement=ARRANGEMENT), five, settings)
    new = new_tasks(five)
    out = fit.extend(new, beside=beside, max_steps=500)
    assert out.tasks.names == (*five.names, "about", "zeal") and out.added == ("about", "zeal")
    assert out.method == fit.method and out.draws.shape == fit.draws.shape
    assert out.tasks.n_rows == five.n_rows + 15
    assert out.arrangement.relation("about", beside) == out.arrangement.relation("about", "zeal") == "weight"
    other = "burst" if beside == "any" else "any"
    assert out.arrangement.relation("zeal", other) == "decouple"
    # Every number of the old draws is there, to the last bit, and none but the new tasks' besides.
    for name, value in fit.draws.sites.items():
        now = out.draws.sites[name]
        extra = {"head": 2, "intercept": 2, "amplitude": 2, "noise_gaussian": 1}.get(name, 0)
        assert now.shape == (*value.shape[:2], value.shape[2] + extra, *value.shape[3:])
        rows = np.moveaxis(now, 2, 0)
        assert all(any(np.array_equal(own, row) for row in rows) for own in np.moveaxis(value, 2, 0))
    for name, noise in fit.noise.items():
        assert np.array_equal(out.noise[name], noise)
    ours, theirs = (replay.linear_predictor(own.model, own.tasks, own.flat) for own in (fit, out))
    for value, expected in zip(theirs, ours, strict=False):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    assert np.isfinite(out.weights()["weight"]).all()
    assert "settled" in set(out.checks["check"]) and not out.converged


@pytest.mark.slow
@unsettled
def test_the_features_are_those_of_the_trunk_beside(five, made) -> None:
    """A head on known features, again: η of the new task from the trunk's own sites, in numpy."""
    fit = made(SharedTrunk(MLP((3,)), arrangement=ARRANGEMENT), five, SVI(draws=5))
    out = fit.extend(new_tasks(five), beside="burst", max_steps=250)
    sites = {name: value[0] for name, value in out.draws.sites.items()}
    old = {name: value[0] for name, value in fit.draws.sites.items()}
    before = fit.arrangement.plan(five.names)
    trunk = before.trunk_of_head[before.head_of[five.index("burst")]]
    z = (new_tasks(five).X - five.x_centre) / five.x_scale
    phi = np.tanh(z @ old["trunk_w0"][:, trunk] + old["trunk_b0"][:, trunk])
    plan = out.arrangement.plan(out.tasks.names)
    found = replay.linear_predictor(out.model, out.tasks, out.flat)
    for t in (5, 6):
        f = np.einsum("snk,sk->sn", phi, sites["head"][:, plan.head_of[t]]) / np.sqrt(3)
        eta = sites["intercept"][:, t, None] + sites["amplitude"][:, t, None] * f
        np.testing.assert_allclose(found[t], eta, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@unsettled
def test_the_same_rows_are_not_doubled(five, made, tmp_path) -> None:
    fit = made(SharedTrunk(Linear(2)), five, SVI(draws=20))
    Y = np.column_stack([five.X @ [1.0, 0.1, 1.0] + np.sin(np.arange(24))])
    out = fit.extend(Tasks.from_arrays(five.X, Y, ["gaussian"], names=["more"]), max_steps=250)
    assert out.tasks.n_rows == 24
    again = out.extend(Tasks.from_arrays(five.X, Y**2, ["gaussian"], names=["again"]), max_steps=250)
    assert again.added == ("more", "again") and "more, again" in str(again)
    again.save(tmp_path / "fit.nc")
    back = bmtl.load(tmp_path / "fit.nc")
    assert back.added == again.added and repr(back) == repr(again)
    new = back.predict(five.X[:3])["mean"]
    assert list(new) == [*five.names, "more", "again"] and np.isfinite(new["again"]).all()


@unsettled
def test_groups_of_rows(grouped, made) -> None:
    """A new school beside three: each task on rows of its own."""
    schools = grouped("gaussian")
    fit = made(SharedTrunk(Linear(2)), schools, SVI(draws=20))
    fit = dataclasses.replace(fit, tasks=schools.with_noise_groups(list("lr") * 15))
    frame = pd.DataFrame(schools.X[:12] + 0.1, columns=["a", "b"]).assign(y=np.arange(12.0), school="x")
    out = fit.extend(Tasks.from_groups(frame, ["a", "b"], "y", "school", "gaussian"), max_steps=250)
    assert out.tasks.names == ("u", "v", "w", "x") and out.tasks.n_rows == 42
    for value, expected in zip(out.log_likelihood, fit.log_likelihood, strict=False):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)


@unsettled
@pytest.mark.parametrize("trainable", [True, False])
def test_a_torch_module(trainable, pair) -> None:
    """Features are computed on torch, at each draw of what was trained; heads are fitted on them as ever."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh())
    new = Tasks.from_arrays(pair.X, pair.X @ [[1.0], [1.0]] + 1.0, ["gaussian"], names=["w"])
    model = SharedTrunk(Module(net, trainable=trainable))
    fit = bmtl.fit(model, pair, trunk="guide", max_steps=250, restarts=1, draws=10)
    out = fit.extend(new, max_steps=250)
    s = {name: value[0] for name, value in out.draws.sites.items()}
    held = {name: value.detach().numpy()[None, None] for name, value in net.named_parameters()}
    V, b = (s.get(f"trunk_{name}", held[name])[:, 0] for name in ("0.weight", "0.bias"))
    phi = np.tanh(pair.Z @ np.swapaxes(V, -1, -2) + b[:, None])
    head = s["head"][:, out.arrangement.plan(out.tasks.names).head_of[2]]
    f = np.sum(phi * head[:, None], axis=-1) / np.sqrt(3)
    eta = s["intercept"][:, 2, None] + s["amplitude"][:, 2, None] * f
    found = replay.linear_predictor(out.model, out.tasks, out.flat)[2]
    np.testing.assert_allclose(found, eta, rtol=1e-4, atol=1e-4)
    for name, value in fit.draws.sites.items():
        if name.startswith("trunk_"):
            assert np.array_equal(value, out.draws.sites[name])


def frame_of(levels: str, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({
        "x": rng.normal(size=12), "flag": rng.random(12) < 0.5, "kind": list(levels) * (12 // len(levels)),
        "old": rng.normal(size=12), "new": rng.normal(size=12),
    })


@pytest.mark.parametrize(
    ("old", "new"), [("abc", "abc"), ("abc", "bc"), ("abc", "ca"), ("abc", "c"), ("abcd", "bd"), ("ab", "b")]
)
def test_levels_are_those_of_the_fit(old, new) -> None:
    """Whatever level the new tasks take for their reference, and whichever of the old ones do not occur."""
    inputs = ["x", "flag", "kind"]
    first = Tasks.from_frame(frame_of(old), inputs, {"old": "gaussian"})
    frame = frame_of(new, 1)
    second = Tasks.from_frame(frame, inputs, {"new": "gaussian"}) if len(new) > 1 else None
    if second is None:
        with pytest.warns(bmtl.TaskWarning, match="constant"):
            second = Tasks.from_frame(frame, inputs, {"new": "gaussian"})
    np.testing.assert_array_equal(inputs_like(first, second), first.encode(frame))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(kind=["z", "a"] * 6), "input 'kind' has levels that the fit does not know: 'z'"),
        (lambda f: f.drop(columns="flag"), r"inputs missing from the new tasks: 'flag' \(not given, or dropped"),
        (lambda f: f.rename(columns={"x": "y"}), "inputs that the fit does not know: 'y'; it has 'x', 'flag', 'kind'"),
    ],
)
def test_other_inputs_are_refused(change, message) -> None:
    first = Tasks.from_frame(frame_of("abc"), ["x", "flag", "kind"], {"old": "gaussian"})
    frame = change(frame_of("abc", 1))
    second = Tasks.from_frame(frame, [name for name in frame if name not in ("old", "new")], {"new": "gaussian"})
    with pytest.raises(bmtl.TaskError, match=message):
        inputs_like(first, second)


def test_refused(five, pair, made) -> None:
    fit = made(SharedTrunk(Linear(2), arrangement=ARRANGEMENT), five, SVI(draws=10))
    new = new_tasks(five)
    with pytest.raises(bmtl.TaskError, match="already in the fit: 'any'"):
        fit.extend(new_tasks(five, names=["any", "b"]), beside="any")
    with pytest.raises(bmtl.TaskError, match=r"the fit has 2 trunks, .* name a task beside which to put the new ones"):
        fit.extend(new)
    with pytest.raises(bmtl.TaskError, match="no task 'nobody' in the fit; it has "):
        fit.extend(new, beside="nobody")
    with pytest.raises(bmtl.TaskError, match="inputs missing from the new tasks: 'x2'"):
        fit.extend(pair, beside="any")
    with pytest.raises(TypeError, match="extend has no option draws, trunk; it has guide, max_steps"):
        fit.extend(new, beside="any", draws=3, trunk="point")
    with pytest.raises(TypeError, match="Decoupled has no trunk that more tasks could share: fit a SharedTrunk"):
        made(Decoupled(Identity()), five, SVI(draws=10)).extend(new)
    for field, part in [("noise", Common()), ("noise", ByGroup()), ("amplitude", Common())]:
        tied = dataclasses.replace(fit, model=dataclasses.replace(fit.model, **{field: part}))
        with pytest.raises(TypeError, match=f"extend needs one {field} to each task, .*; {type(part).__name__} is not"):
            tied.extend(new, beside="any")
    tied = dataclasses.replace(fit, model=dataclasses.replace(fit.model, relation=Exchangeable()))
    with pytest.raises(TypeError, match="heads tied by Exchangeable would change with every new one"):
        tied.extend(new, beside="any")
    with pytest.warns(bmtl.ConvergenceWarning, match="the heads of 'about', 'zeal' had not settled after 250 steps"):
        fit.extend(new, beside="any", max_steps=250)


@pytest.mark.slow
def test_a_few_rows_on_a_learned_trunk_beat_a_few_rows_alone() -> None:
    """Two tasks of 400 rows teach a narrow trunk two functions; a third, their sum, has thirty."""
    rng = np.random.default_rng(6)
    X = rng.normal(size=(1000, 4))
    f, g = np.sin(1.5 * X[:, 0]) + 0.5 * X[:, 1], np.tanh(2 * X[:, 1] * X[:, 2])
    Y = np.column_stack([f, g, f + g]) + 0.2 * rng.normal(size=(1000, 3))
    both = Tasks.from_arrays(X[:400], Y[:400, :2], ["gaussian"] * 2, names=["f", "g"])
    few = Tasks.from_arrays(X[400:430], Y[400:430, 2:], ["gaussian"], names=["sum"])
    trunk = MLP((32, 3))
    fit = bmtl.fit(SharedTrunk(trunk), both, trunk="point", seed=0, restarts=1)
    assert fit.converged
    shared, alone = fit.extend(few), bmtl.fit(Decoupled(trunk), few, trunk="guide", seed=0, restarts=1)
    predicted = [own.predict(X[430:])["mean"]["sum"].values.mean(axis=(0, 1)) for own in (shared, alone)]
    error = [float(np.sqrt(np.mean((own - (f + g)[430:]) ** 2))) for own in predicted]
    assert shared.converged and error[0] < 0.5 * error[1]

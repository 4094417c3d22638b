"""What a fit tells of its tasks' functions: closed forms, finite differences, signs, and the order of tasks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import bmtl
from bmtl import replay
from bmtl.arrangement import Arrangement
from bmtl.data import Data, Design, inputs_only
from bmtl.engine.replay import Replay
from bmtl.engine.torch_replay import TorchReplay
from bmtl.fitting import MAP, NUTS, SVI
from bmtl.models import Decoupled, Merged, SharedTrunk
from bmtl.relations import Clustered, Correlated, LowRank, Sparse
from bmtl.results import Fit
from bmtl.trunks import MLP, Fourier, Identity, Linear, Module

DRAWS = NUTS(chains=2, draws=30)
FLIPPED = Arrangement(((("burst", "size"), ("any",), ("count",), ("tail",)),), frozenset({"size"}))
TWO_TRUNKS = Arrangement(((("burst", "size"), ("any",)), (("count", "tail"),)), frozenset({"tail"}))


def coefficients(fit) -> np.ndarray:
    """Of the linear predictors on the inputs, with a trunk `Identity` and independent heads, ``draws × P × inputs``."""
    sites = {name: value.reshape(-1, *value.shape[2:]).astype(float) for name, value in fit.draws.sites.items()}
    plan = Design.of(fit.tasks).plan(fit.arrangement)
    size = sites["amplitude"][:, plan.task_of] * plan.sign
    return size[..., None] * sites["head"][:, plan.head_of] / np.sqrt(sites["head"].shape[-1])


def test_effects_of_a_linear_model_are_its_coefficients(five, made) -> None:
    fit = made(SharedTrunk(Identity(), arrangement=FLIPPED), five, DRAWS)
    table = fit.inputs(threshold=0.3, prob=0.5)
    assert list(table["task"]) == list(np.repeat(five.names, 3)) and list(table["input"]) == [*five.inputs] * 5
    w = coefficients(fit)
    unit = np.asarray(five.y_scale)[:, None]
    expected = {
        "effect": w.mean(axis=0) * unit,
        "effect_low": np.quantile(w, 0.25, axis=0) * unit,
        "effect_high": np.quantile(w, 0.75, axis=0) * unit,
        "size": np.abs(w).mean(axis=0) * unit,
        "p_matters": np.mean(np.abs(w) > 0.3 * Design.of(five).amplitude_scale[:, None], axis=0),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(table[name].to_numpy().reshape(5, 3), value, rtol=1e-4, atol=1e-6, err_msg=name)
    assert set(table["label"]) == {""}


def frozen() -> Module:
    """A torch network whose weights do not depend on what was drawn before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Module(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh()), trainable=False)


TRUNKS = {"linear": Linear(2), "tanh": MLP((5, 4)), "fourier": Fourier(8), "module": frozen()}


def predictors(fit, x) -> np.ndarray:
    """Linear predictors at standardised inputs, ``draws × P × rows``."""
    sites = {name: value.reshape(-1, *value.shape[2:]) for name, value in fit.draws.sites.items()}
    design = Design.of(fit.tasks)
    engine = (TorchReplay if fit.engine == "pyro" else Replay)(sites)
    values = {name: torch.tensor(v) if fit.engine == "pyro" else v for name, v in inputs_only(x, design).items()}
    data = Data(design, values)
    fit.model.program(engine, data)
    by_task = {t: np.asarray(engine.eta[own.name])[:, j] for own in data.blocks() for j, t in enumerate(own.tasks)}
    eta = [by_task[t] for t in range(design.n_tasks)]
    return np.concatenate([v[:, None] if v.ndim == 2 else np.swapaxes(v, 1, 2) for v in eta], axis=1).astype(float)


@pytest.mark.parametrize("trunk", TRUNKS.values(), ids=TRUNKS)
def test_effects_are_derivatives(trunk, five, made) -> None:
    """Central differences of the linear predictors at the rows."""
    tasks = five.select(["size", "any"])
    fit = made(SharedTrunk(Identity() if isinstance(trunk, Module) else trunk), tasks, DRAWS)
    if isinstance(trunk, Module):
        sites = fit.draws.sites | {"head": np.repeat(fit.draws.sites["head"], 2, axis=-1)[..., :4]}
        fit = replace(fit, model=SharedTrunk(trunk), draws=replace(fit.draws, sites=sites), engine="pyro")
    table, h = fit.inputs(), 0.03
    unit, limit = np.asarray(tasks.y_scale), 0.1 * Design.of(tasks).amplitude_scale
    for j, name in enumerate(tasks.inputs):
        up, down = (predictors(fit, tasks.Z + sign * h * np.eye(3)[j]) for sign in (1, -1))
        slope = (up - down) / (2 * h)
        size = np.sqrt(np.mean(slope**2, axis=2))
        own = table[table["input"] == name]
        np.testing.assert_allclose(own["effect"] / unit, slope.mean(axis=(0, 2)), rtol=2e-3, atol=1e-3)
        np.testing.assert_allclose(own["size"] / unit, size.mean(axis=0), rtol=2e-3, atol=1e-3)
        # A draw on the edge of the limit may fall to either side.
        edge = np.mean(np.abs(size - limit) < 1e-3, axis=0)
        assert np.all(np.abs(own["p_matters"] - np.mean(size > limit, axis=0)) <= edge + 1e-12)
    assert np.ptp(table["p_matters"]) > 0


def test_correlations_are_those_of_the_functions(five, made) -> None:
    fit = made(SharedTrunk(MLP((4,)), arrangement=FLIPPED), five, DRAWS)
    eta = predictors(fit, five.Z)
    table = fit.relations(prob=0.5).set_index(["task_a", "task_b"])
    assert len(table) == 10 and table["together"].isna().all()
    for (a, b), row in table.iterrows():
        one, other = (eta[:, five.names.index(name)] for name in (a, b))
        r = np.array([np.corrcoef(f, g)[0, 1] for f, g in zip(one, other, strict=True)])
        expected = [r.mean(), *np.quantile(r, [0.25, 0.75]), np.mean(r < 0)]
        np.testing.assert_allclose(row[:4].to_numpy(float), expected, atol=1e-3)
    # Tasks of one head, one of them flipped.
    assert table.loc[("size", "burst"), "correlation"] == pytest.approx(-1.0, abs=1e-4)
    assert table.loc[("size", "burst"), "p_negative"] == 1.0


def test_a_constant_function_is_correlated_with_none(pair, made) -> None:
    fit = made(SharedTrunk(Identity()), pair, DRAWS)
    still = fit.draws.sites | {"head": fit.draws.sites["head"] * np.array([[1.0], [0.0]], dtype=np.float32)}
    row = replace(fit, draws=replace(fit.draws, sites=still)).relations().iloc[0]
    assert row["correlation"] == row["p_negative"] == row["correlation_low"] == 0.0


def test_rank_of_known_heads(five, made) -> None:
    fit = made(SharedTrunk(Identity()), five, DRAWS)
    rng = np.random.default_rng(0)
    for rank in (1, 2, 3):
        w = rng.normal(size=(2, 30, 5, rank)) @ np.linalg.qr(rng.normal(size=(3, 3)))[0][:rank]
        found = replace(fit, draws=replace(fit.draws, sites=fit.draws.sites | {"head": w.astype(np.float32)}))
        assert found.rank(share=1e-8).to_dict("list") == {"rank": [rank], "probability": [1.0]}
    # Of the heads times their amplitudes in units of each family's own.
    w = coefficients(fit) / Design.of(five).amplitude_scale[:, None]
    squares = np.linalg.svd(w, compute_uv=False) ** 2
    shares = squares / squares.sum(axis=1, keepdims=True)
    expected = np.bincount(np.sum(shares > 0.2, axis=1), minlength=4) / 60
    table = fit.rank(share=0.2).set_index("rank")["probability"]
    np.testing.assert_allclose(table.reindex(range(4), fill_value=0.0), expected, atol=1e-9)
    assert made(Merged(Identity()), five, DRAWS).rank()["rank"].tolist() == [1]


def test_features_of_different_trunks_are_different_directions(five, made) -> None:
    """One function a trunk is one direction a trunk, however alike the numbers; inputs are the same for all trunks."""
    fit = made(SharedTrunk(Linear(2), LowRank(1), arrangement=TWO_TRUNKS), five, DRAWS)
    assert fit.rank(share=1e-9)["rank"].tolist() == [2]
    apart = made(Decoupled(Identity()), five, DRAWS)
    assert apart.rank(share=1e-9)["rank"].tolist() == [3]
    assert made(Decoupled(Linear(2)), five, DRAWS).rank(share=1e-9)["rank"].tolist() == [5]


@pytest.mark.parametrize("relation", [LowRank(), Clustered(), Correlated()], ids=lambda own: type(own).__name__)
def test_the_order_of_tasks_does_not_matter(relation, five, made) -> None:
    fit = made(SharedTrunk(Identity(), relation, arrangement=FLIPPED), five, DRAWS)
    order = np.array([3, 0, 4, 2, 1])
    sites = {
        name: value[..., order] if name in ("intercept", "amplitude") else value
        for name, value in fit.draws.sites.items()
    }
    other = replace(fit, tasks=five.select([five.names[t] for t in order]), draws=replace(fit.draws, sites=sites))
    ours, theirs = (own.inputs().set_index(["task", "input"]).drop(columns="label") for own in (fit, other))
    pd.testing.assert_frame_equal(theirs.loc[ours.index], ours, rtol=1e-4, atol=1e-6)
    pd.testing.assert_frame_equal(fit.rank(), other.rank())
    tables = []
    for own in (fit, other):
        table = own.relations()
        table.index = pd.Index([" ".join(sorted(pair)) for pair in zip(table.task_a, table.task_b, strict=True)])
        tables.append(table.drop(columns=["task_a", "task_b"]).sort_index())
    pd.testing.assert_frame_equal(*tables, rtol=1e-4, atol=1e-5)
    assert tables[0]["together"].notna().all() == isinstance(relation, Clustered)
    assert ("rho" in tables[0]) == isinstance(relation, Correlated)
    if isinstance(relation, Correlated):
        assert tables[0].loc["burst size", "rho"] < 0
    if isinstance(relation, Clustered):
        assert tables[0].loc["burst size", "together"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("relation", "read"),
    [(Sparse(0.5), Fit.inputs), (LowRank(2), Fit.rank), (Clustered(3, 0.5), Fit.relations)],
    ids=["sparse", "low rank", "clustered"],
)
def test_saved_fits_tell_the_same(relation, read, pair, made, tmp_path) -> None:
    fit = made(SharedTrunk(Identity(), relation), pair, SVI(draws=20))
    fit.save(tmp_path / "fit.nc")
    again = bmtl.load(tmp_path / "fit.nc")
    assert again.model == fit.model
    pd.testing.assert_frame_equal(read(again), read(fit))


def test_labels_are_told_apart(grouped, made) -> None:
    """Effects on a category are against the mean of all categories, and tasks are compared over all of them."""
    tasks = grouped("categorical")
    fit = made(SharedTrunk(Identity()), tasks, DRAWS)
    table = fit.inputs()
    labels = tasks.families[0].labels
    assert table["label"].tolist() == list(np.tile(np.repeat(labels, 2), 3))
    total = table.groupby(["task", "input"])["effect"].sum()
    np.testing.assert_allclose(total, 0.0, atol=1e-5)
    eta = predictors(fit, tasks.Z).reshape(60, 3, len(labels), -1)
    eta = eta - eta.mean(axis=2, keepdims=True)
    eta = (eta - eta.mean(axis=3, keepdims=True)).reshape(60, 3, -1)
    r = np.array([np.corrcoef(own) for own in eta]).mean(axis=0)
    np.testing.assert_allclose(fit.relations()["correlation"], r[np.triu_indices(3, 1)], atol=1e-3)


def test_tasks_with_other_numbers_of_labels_are_not_compared(seven, made) -> None:
    table = made(SharedTrunk(Identity()), seven, DRAWS).relations()
    several = {name for name, own in zip(seven.names, seven.families, strict=True) if own.n_predictors > 1}
    mixed = (table.task_a.isin(several) != table.task_b.isin(several)).to_numpy()
    assert mixed.any() and table["correlation"].isna().equals(pd.Series(mixed))
    assert table["p_negative"].isna().equals(pd.Series(mixed))


def test_many_draws_are_read_in_parts(five, made, monkeypatch) -> None:
    fit = made(SharedTrunk(MLP((4,))), five, DRAWS)
    whole = fit.inputs(), fit.relations()
    monkeypatch.setattr(replay, "CELLS_AT_ONCE", 7 * 16 * five.n_rows)
    for ours, theirs in zip((fit.inputs(), fit.relations()), whole, strict=True):
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_posterior_mode_is_one_draw(pair, made) -> None:
    table = made(SharedTrunk(Identity()), pair, MAP(restarts=1)).inputs()
    np.testing.assert_array_equal(table["effect_low"], table["effect_high"])


def test_refused(pair, made) -> None:
    fit = made(SharedTrunk(MLP((3,)), head_widths=(2,)), pair, DRAWS)
    with pytest.raises(ValueError, match="threshold must be finite and ≥ 0, got -1"):
        fit.inputs(threshold=-1)
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match="share must lie in"):
            fit.rank(share=share)
    with pytest.raises(ValueError, match="the heads have layers of their own"):
        fit.rank()

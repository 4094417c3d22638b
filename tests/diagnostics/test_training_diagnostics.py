"""Diagnostics of training: on results made by hand, on cases they must flag, and against one run of `bmtl.train`."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import bmtl
from bmtl import Arrangement
from bmtl.diagnostics import (
    Capacity,
    Conflict,
    Restarts,
    Trajectory,
    capacity,
    conflict,
    restarts,
    trajectory,
)
from bmtl.diagnostics._geometry import CELLS, MEASURES, geometry
from bmtl.training import Profiled, Sampling, Unitary
from bmtl.training.held_out import split
from bmtl.training.network import Network
from bmtl.training.runs import Runs
from bmtl.trunks import MLP, Identity

NOISE = np.random.default_rng(0).normal(size=400)


def cells(mean: float, scale: float = 0.1) -> np.ndarray:
    """Scores of 400 cells with exactly that mean."""
    return mean + scale * (NOISE - NOISE.mean())


@pytest.fixture(scope="module")
def three() -> Any:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(80, 2))
    Y = np.tanh(X @ rng.normal(size=(2, 3))) + 0.3 * rng.normal(size=(80, 3))
    return bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 3, names=["a", "b", "c"])


def three_runs() -> Restarts:
    """Run 0 is good at u, run 1 at v by as much, run 2 worse at both by little. Their cells vary in other ways."""
    u = np.stack([cells(1.0), cells(0.0)[::-1], cells(-0.1, 0.2)])
    v = np.stack([cells(0.0), cells(1.0)[::-1], cells(-0.1, 0.2)])
    return Restarts(("u", "v"), (7, 8, 9), (u, v))


def test_restarts_name_runs_that_tie_and_differ() -> None:
    found = three_runs()
    pairs = found.pairs().set_index(["run_a", "run_b"])
    assert pairs["tied"].tolist() == [True, False, False]
    assert pairs["trap"].tolist() == [True, False, False]
    assert pairs.loc[(0, 1), ["a_better", "b_better"]].tolist() == ["u", "v"]
    assert pairs.loc[(0, 2), "a_better"] == "u, v"
    assert found.pareto.tolist() == [True, True, False]
    gain = NOISE - NOISE.mean()
    assert pairs.loc[(0, 1), "difference"] == pytest.approx(0.0, abs=1e-12)
    each = (0.1 * (gain - gain[::-1])).std() / 20
    assert pairs.loc[(0, 1), "se"] == pytest.approx(np.sqrt(2) * each / 2)
    table = found.table()
    assert table["seed"].tolist() == [7, 7, 8, 8, 9, 9]
    assert table["aggregate"].tolist() == pytest.approx([0.5, 0.5, 0.5, 0.5, -0.1, -0.1])
    misled = found.misleading().set_index("task")["p_misled"]
    assert misled.to_dict() == {"u": 1.0, "v": 1.0, "any": 1.0}


def test_restarts_that_predict_alike_mislead_nobody() -> None:
    same = np.stack([cells(0.3)] * 4)
    other = same + 1e-3 * np.random.default_rng(1).normal(size=same.shape)
    for own in (same, other - other.mean(axis=1, keepdims=True)):
        found = Restarts(("u", "v"), (0, 1, 2, 3), (own, own))
        assert found.misleading()["p_misled"].tolist() == [0.0, 0.0, 0.0]
        assert found.pairs()["tied"].all() and not found.pairs()["trap"].any()


def test_restarts_are_runs_of_train(three) -> None:
    options: dict[str, Any] = {"epochs": 30, "weighting": Unitary()}
    found = restarts(MLP((4,)), three, runs=2, held_out=0.25, seed=5, device="cpu", **options)
    one = bmtl.train(MLP((4,)), three, seed=5, held_out=0.25, device="cpu", **options)
    _, held = split(three, 0.25, 5)
    np.testing.assert_allclose(found.scores[0], one.score(held)["lpd"], rtol=1e-3, atol=1e-3)
    assert (found.scores[0] != found.scores[1]).all()
    batched = restarts(MLP((4,)), three, runs=2, seed=5, epochs=3, sampling=Sampling(32))
    assert batched.scores.shape == (2, 3) and (batched.scores[0] != batched.scores[1]).all()


def test_restarts_find_two_basins_that_are_each_good_for_one_task() -> None:
    # A trunk of one unit can follow one of two unrelated tasks.
    rng = np.random.default_rng(13)
    X = rng.normal(size=(400, 2))
    Y = np.tanh(2.0 * X) + 0.3 * rng.normal(size=(400, 2))
    tasks = bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=["u", "v"])
    found = restarts(MLP((1,)), tasks, runs=8, epochs=700, optimiser=partial(torch.optim.Adam, lr=0.03), device="cpu")
    pairs, aggregate = found.pairs(), found.scores.mean(axis=1)
    ahead = found.scores[:, 0] > found.scores[:, 1]
    assert 0 < ahead.sum() < 8
    # Runs in different basins are more than half a nat apart on each task, and not a tenth of it in the mean.
    assert np.abs(np.diff(found.scores, axis=1)).min() > 0.5 > 0.05 > np.ptp(aggregate)
    crossed = pairs["trap"].to_numpy()
    assert crossed.sum() == ahead.sum() * (~ahead).sum()
    assert pairs.loc[crossed, ["a_better", "b_better"]].isin(["u", "v"]).all(axis=None)


@pytest.mark.slow
def test_capacity_finds_that_a_narrow_trunk_is_too_small_for_two() -> None:
    rng = np.random.default_rng(12)
    X = rng.normal(size=(1500, 6))
    hidden = np.tanh(X @ rng.normal(0.0, 1.5 / np.sqrt(6), (2, 6, 6)) + rng.normal(size=(2, 1, 6)))
    f = hidden.sum(axis=2).T
    f = (f - f.mean(axis=0)) / f.std(axis=0)
    tasks = bmtl.Tasks.from_arrays(X, f + 0.1 * rng.normal(size=f.shape), ["gaussian"] * 2)
    adam = partial(torch.optim.Adam, lr=0.02)
    found = capacity(MLP((8,)), tasks, widths=(8, 64), runs=2, epochs=800, optimiser=adam, device="cpu")
    assert found.width == 64
    assert found.summary["competes"].any()
    assert "widen to 64 before decoupling" in repr(found)


def two_widths(gaps: list[list[float]], shared: list[float] | None = None) -> Capacity:
    """Gaps by width and task, runs and cells alike but for the level."""
    levels = shared or [0.0] * len(gaps)
    own = [[np.stack([cells(level)] * 2) for _ in by_task] for level, by_task in zip(levels, gaps, strict=True)]
    single = [[s - g for s, g in zip(*pair, strict=True)] for pair in zip(own, gaps, strict=True)]
    # Some of the cells' noise is of one arm alone, else any gap would be clear.
    single = [[s + 0.5 * cells(0.0)[::-1] for s in row] for row in single]
    widths = tuple(2 ** (k + 1) for k in range(len(gaps)))
    zeros = np.zeros((len(gaps), len(gaps[0])))
    return Capacity(("u", "v"), widths, {"shared": own, "single": single}, {"shared": zeros, "single": zeros})


def test_capacity_says_from_which_width_sharing_does_not_hurt() -> None:
    found = two_widths([[-0.5, -0.5], [-0.2, 0.0], [0.0, 0.0], [0.0, 0.3]])
    summary = found.summary.set_index("task")
    assert summary["competes"].tolist() == [True, True]
    assert summary["width"].tolist() == [8, 4]
    assert summary["helps"].tolist() == [False, True]
    assert found.width == 8
    assert "widen to 8 before decoupling" in repr(found)
    expected = np.array([-0.5, -0.5, -0.2, 0.0, 0.0, 0.0, 0.0, 0.3])
    np.testing.assert_allclose(found.table()["gap"], expected, atol=1e-12)


def test_capacity_says_where_no_width_is_enough() -> None:
    found = two_widths([[-0.5, 0.0], [-0.5, 0.0]])
    assert found.summary["width"].isna().tolist() == [True, False]
    assert found.summary["competes"].tolist() == [False, False]
    assert found.width is None and "still hurts u at width 4" in repr(found)
    assert "hurts no task at any width" in repr(two_widths([[0.0, 0.1], [0.0, 0.1]]))


def test_capacity_sees_a_second_descent() -> None:
    flat = [[0.0, 0.0]] * 4
    assert two_widths(flat, [0.0, 0.5, 0.1, 0.6]).summary["second_descent"].all()
    assert not two_widths(flat, [0.0, 0.2, 0.4, 0.6]).summary["second_descent"].any()
    assert not two_widths(flat, [0.0, 0.5, 0.4, 0.1]).summary["second_descent"].any()


def test_capacity_compares_networks_of_one_width(three) -> None:
    found = capacity(MLP((3, 3)), three, widths=(4, 2), runs=2, epochs=20)
    assert found.widths == (2, 4)
    assert found.table().shape == (6, 8)
    again = capacity(lambda width: MLP((width, width)), three, widths=(2, 4), runs=2, epochs=20)
    pd.testing.assert_frame_equal(found.table(), again.table())


def test_conflict_of_known_gradients() -> None:
    g = np.array([[3.0, 4.0], [-4.0, 3.0], [-6.0, -8.0]])
    found = Conflict(("a", "b", "c"), (0, 5), (0,), np.stack([g @ g.T] * 2)[:, None])
    table = found.table().query("epoch == 5").set_index(["task_a", "task_b"])
    np.testing.assert_allclose(table["cosine"], [0.0, -1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(table["ratio"], [1.0, 0.5, 0.5])
    assert found.summary()["conflicting"].tolist() == [0.0, 1.0, 0.0]


def test_one_task_twice_agrees_with_itself() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(50, 2)), rng.normal(size=50)
    with pytest.warns(bmtl.TaskWarning, match="related outcomes"):
        tasks = bmtl.Tasks.from_arrays(X, np.column_stack([y, y]), ["gaussian"] * 2, names=["a", "b"])
    one = conflict(MLP((4,)), tasks, arrangement=Arrangement.merged(tasks.names), epochs=25, every=10, runs=2)
    assert one.epochs == (0, 10, 20, 25)
    np.testing.assert_allclose(one.table()[["cosine", "ratio"]], 1.0, rtol=1e-5)
    # With a head each they share no more than the trunk, and with a trunk each nothing.
    heads = conflict(MLP((4,)), tasks, epochs=5, every=5, runs=2)
    assert (heads.table()["cosine"] < 0.999).all()
    apart = conflict(MLP((4,)), tasks, arrangement=Arrangement.decoupled(tasks.names), epochs=5, every=5, runs=2)
    np.testing.assert_array_equal(apart.table()["cosine"], 0.0)


def lines(offset: float, epochs: int, runs: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Training losses that fall by a line from 2 to 1, and held-out losses above them by an offset and a run's own."""
    train = np.linspace(2.0, 1.0, epochs + 1)[:, None, None] * np.ones((1, runs, 1))
    return train, 1.5 * train + offset + 0.1 * np.arange(runs)[None, :, None]


def test_trajectories_are_compared_at_equal_training_loss() -> None:
    # The shared network takes twice the epochs to the same losses.
    shared, single = lines(0.2, 40), lines(0.7, 20)
    single = tuple(np.concatenate([own, np.repeat(own[-1:], 20, axis=0)]) for own in single)
    constant = {name: np.full((3, 2, 1), float(k)) for k, name in enumerate(MEASURES)}
    found = Trajectory(
        ("u",), {"shared": shared[0], "single": single[0]}, {"shared": shared[1], "single": single[1]}, (0, 20, 40),
        {"shared": constant, "single": constant},
    )
    gaps = found.gaps(7)
    np.testing.assert_allclose(gaps["train"], np.linspace(2.0, 1.0, 8)[1:])
    np.testing.assert_allclose(gaps["transfer"], 0.5, rtol=1e-9)
    np.testing.assert_allclose(gaps["held_shared"], 1.5 * gaps["train"] + 0.25, rtol=1e-9)
    # Two runs a tenth apart: standard errors of .05 in each arm.
    np.testing.assert_allclose(gaps["se"], 0.05 * np.sqrt(2), rtol=1e-9)
    assert found.summary()["says"].tolist() == ["helps"]
    assert len(found.table()) == 2 * 3 * 2


def test_trajectory_of_networks(three) -> None:
    found = trajectory(MLP((4,)), three, runs=2, epochs=20, every=10)
    assert found.looks == (0, 10, 20)
    table = found.table()
    assert np.isfinite(table[["train", "held", *MEASURES]]).all(axis=None)
    assert table["coherence"].between(0, 1).all() and (table["fisher"] > 0).all()
    assert set(found.summary()["says"]) <= {"helps", "hurts", "undecided"}


@pytest.mark.parametrize("which", ["pair", "long"])
def test_geometry_of_a_small_network(which, pair, grouped) -> None:
    tasks = pair if which == "pair" else grouped("gaussian")
    assert tasks.n_rows < CELLS
    runs = Runs(Network(MLP((2,))), tasks, (0, 1), "fixed", "cpu")
    found = geometry(runs)
    sizes = [own[0].numel() for own in runs.trunk]
    names = [name for name in runs.free if name.startswith("trunk_")]
    for t in range(tasks.n_tasks):
        for run in range(2):

            def loss(flat: torch.Tensor, run: int = run, t: int = t) -> torch.Tensor:
                parts = [
                    own.reshape(runs.free[name][run].shape)
                    for name, own in zip(names, flat.split(sizes), strict=True)
                ]
                free = {name: value[run] for name, value in runs.free.items()} | dict(zip(names, parts, strict=True))
                x = torch.tensor(tasks.Z[tasks.rows[t]]).float()
                phi = torch.tanh(x @ free["trunk_w0"][0] + free["trunk_b0"][0])
                eta = free["intercept"][t] + phi @ free["head"][t] / 2**0.5
                return 0.5 * (torch.tensor(tasks.y_std(t)).float() - eta) ** 2

            at = torch.cat([runs.free[name][run].detach().flatten() for name in names])
            hessian = torch.autograd.functional.hessian(lambda flat: loss(flat).mean(), at)
            assert found["sharpness"][run, t] == pytest.approx(np.linalg.eigvalsh(hessian.numpy())[-1], rel=1e-3)
            each = torch.autograd.functional.jacobian(loss, at).numpy()
            coherence = np.sum(each.mean(axis=0) ** 2) / np.mean(np.sum(each**2, axis=1))
            assert found["coherence"][run, t] == pytest.approx(coherence, rel=1e-3)
            # Outcomes have variance 1 around the predictor: the expected squared gradient is that of the predictor.
            residual = np.sqrt(2 * loss(at).detach().numpy())
            fisher = np.mean(np.sum(each**2, axis=1) / residual**2)
            torch.manual_seed(0)
            drawn = np.array([geometry(runs)["fisher"][run, t] for _ in range(60)])
            assert drawn.mean() == pytest.approx(fisher, abs=4 * drawn.std() / np.sqrt(60))


def test_findings_are_sentences_with_the_figures() -> None:
    u, v, traded = three_runs().findings()
    assert (u.tasks, v.tasks, traded.tasks) == (("u",), ("v",), ("u", "v"))
    assert "probability 100%" in u.says and "from -0.10 to +1.00 nats" in u.says
    assert "3 pairs of runs, 1 tie" in traded.says
    competing, still = two_widths([[-0.5, -0.5], [0.0, -0.25]]).findings()
    assert competing.tasks == ("u",) and "−0.5000 ± 0.0025 nats" in competing.says and "width 4 on" in competing.says
    assert "harms v even at the widest trunk: −0.2500 ± 0.0025 nats a held-out cell at width 4" in still.says
    helped, indifferent = two_widths([[0.0, 0.0], [0.3, 0.0]]).findings()
    assert "helps u" in helped.says and "+0.3000" in helped.says
    assert "neither measurably helps nor harms v" in indifferent.says
    g = np.array([[3.0, 4.0], [-6.0, -8.0]])
    (opposed,) = Conflict(("a", "b"), (0, 5), (0,), np.stack([g @ g.T] * 2)[:, None]).findings()
    assert opposed.tasks == ("a", "b")
    assert "cosine of -1.00" in opposed.says and "at 100% of" in opposed.says and "are 0.5 times" in opposed.says
    shared, single = lines(0.2, 4, 1), lines(0.7, 4, 1)
    both = ({"shared": shared[k], "single": single[k]} for k in range(2))
    zeros = {arm: {own: np.zeros((2, 1, 1)) for own in MEASURES} for arm in ("shared", "single")}
    (one,) = Trajectory(("u",), *both, (0, 4), zeros).findings()
    assert one.tasks == ("u",) and "sharing gains 0.500 nats" in one.says


@pytest.mark.parametrize("name", ["restarts", "capacity", "conflict", "trajectory"])
def test_plots(name, three) -> None:
    gram = np.eye(3)[None, None] + np.zeros((2, 1, 1, 1))
    losses = {arm: lines(0.2, 4)[0] for arm in ("shared", "single")}
    measures = {arm: {own: np.zeros((2, 2, 1)) for own in MEASURES} for arm in losses}
    found: Any = {
        "restarts": three_runs(),
        "capacity": two_widths([[-0.5, 0.0], [0.0, 0.0]]),
        "conflict": Conflict(("a", "b", "c"), (0, 5), (0,), gram),
        "trajectory": Trajectory(("u",), losses, losses, (0, 4), measures),
    }[name]
    figure = found.plot()
    assert len(figure.axes[0].lines) >= 1
    figure.canvas.draw()
    assert type(found).__name__ in repr(found)


SGD = partial(torch.optim.SGD, lr=1e6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (partial(restarts, runs=1), ValueError, "runs must be ≥ 2, got 1"),
        (partial(restarts, held_out=0.0), ValueError, "held_out must be > 0"),
        (partial(restarts, optimiser=SGD, runs=2, epochs=20), bmtl.FitError, "with seed 0, 1: lower the learning rate"),
        (partial(capacity, widths=()), ValueError, "needs a width"),
        (partial(capacity, held_out=0.0), ValueError, "held_out must be > 0"),
        (partial(capacity, runs=0), ValueError, "runs must be ≥ 1"),
        (partial(conflict, every=0), ValueError, "every must be ≥ 1"),
        (partial(trajectory, every=0), ValueError, "every must be ≥ 1"),
        (partial(trajectory, held_out=0.0), ValueError, "held_out must be > 0"),
        (partial(trajectory, weighting=Profiled()), ValueError, "Profiled has another noise in each"),
        (partial(conflict, nonsense=1), TypeError, "nonsense"),
    ],
)
def test_what_they_refuse(call, error, message, three) -> None:
    with pytest.raises(error, match=message):
        call(MLP((4,)), three)


def test_they_need_tasks_and_a_trunk(three) -> None:
    one = three.select(["a"])
    for call in (capacity, conflict, trajectory):
        with pytest.raises(bmtl.TaskError, match=f"{call.__name__} compares tasks"):
            call(MLP((4,)), one)
    for call in (conflict, trajectory):
        with pytest.raises(ValueError, match="Identity has no parameters"):
            call(Identity(), three)

"""Branching: the trunks against those they stand for, posteriors and refits by hand, and a case that it must find."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import bmtl
from bmtl.diagnostics import Branching, branching
from bmtl.diagnostics._branches import GATE, Branch, Searched, branches, fixed, search
from bmtl.diagnostics.branching import _likeliest
from bmtl.training import Stopping
from bmtl.training.held_out import split
from bmtl.training.network import Network
from bmtl.training.runs import Runs
from bmtl.trunks import MLP, Identity

TRUNK = MLP((8, 4))
OPTIONS = branches(TRUNK, (4,))


def first_layer_only(seed: int = 0, rows: int = 800) -> bmtl.Tasks:
    """Two functions of the same six tanh units, each through three units of its own, more than a layer of four holds.

    A branch from the inputs on has four units in the place of the six.
    """
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 6))
    h = np.tanh(X @ rng.normal(0, 1.5 / np.sqrt(6), (6, 6)))
    parts = []
    for _ in range(2):
        g = np.tanh(h @ rng.normal(0, 2.5 / np.sqrt(6), (6, 3)) + rng.normal(size=3)) @ rng.choice([-1.0, 1.0], 3)
        parts.append((g - g.mean()) / g.std())
    Y = np.column_stack(parts) + 0.1 * rng.normal(size=(rows, 2))
    return bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=["u", "v"])


@pytest.fixture(scope="module")
def small() -> Any:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(80, 2))
    Y = np.tanh(X @ rng.normal(size=(2, 3))) + 0.3 * rng.normal(size=(80, 3))
    return bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 3, names=["c", "a", "b"])


def test_branches_there_are() -> None:
    assert branches(MLP((8, 8)), (4, 8)) == [
        Branch(2, None), Branch(1, 4), Branch(1, 8), Branch(0, 4), Branch(0, 8)
    ]


def features(trunk: Any, tasks: bmtl.Tasks, values: dict[str, torch.Tensor] | None = None) -> tuple[Any, Runs]:
    """Features of two runs, ``runs × copies × rows × k``, after some sites are given other values."""
    runs = Runs(Network(trunk, bmtl.Arrangement.decoupled(tasks.names)), tasks, (0, 1), "fixed", "cpu")
    for name, value in (values or {}).items():
        runs.free[name].data.copy_(value)
    engine = runs.run(runs.arrays)
    return trunk.sample(engine, runs.arrays["x"], tasks.n_tasks).detach(), runs


def test_a_fixed_trunk_shares_the_layers_it_says(small) -> None:
    # Copies are in the order of names: a, b, c. Task c, the first, shares all layers, a the first one, b none.
    trunk = fixed(MLP((3, 5)), (Branch(2, None), Branch(1, 4), Branch(0, 2)), small.names)
    found, runs = features(trunk, small)
    x = runs.arrays["x"]
    free = {name: value.detach() for name, value in runs.free.items()}

    def layer(start: str, number: int, inputs: torch.Tensor) -> torch.Tensor:
        return torch.tanh(inputs @ free[f"{start}w{number}"] + free[f"{start}b{number}"])

    one = layer("trunk_shared0_", 0, x[None])
    expected = {
        2: layer("trunk_shared1_", 0, one), 0: layer("trunk_own0_", 0, one),
        1: layer("trunk_own1_", 1, layer("trunk_own1_", 0, x[None])),
    }
    assert found.shape == (2, 3, 80, 5)
    for copy, own in expected.items():
        width = own.shape[-1]
        np.testing.assert_allclose(found[:, copy, :, :width], (5 / width) ** 0.5 * own[:, 0], rtol=1e-5, atol=1e-6)
        assert (found[:, copy, :, width:] == 0).all()


def test_gates_that_are_shut_leave_one_branch(small) -> None:
    options = branches(MLP((3, 5)), (4,))
    logits = torch.full((3, 3), -1e4)
    logits[0, 0] = logits[1, 1] = logits[2, 2] = 0.0
    found, _ = features(Searched(MLP((3, 5)), options), small, {GATE: logits})
    ends = np.cumsum([0, 5, 4, 4])
    for copy in range(3):
        for option in range(3):
            part = found[:, copy, :, ends[option] : ends[option + 1]]
            assert (part != 0).all() if option == copy else (part == 0).all()


def by_hand() -> Branching:
    """Two runs that are sure of their branches; three choices of which the third is best for u alone."""
    posterior = np.zeros((2, 2, 3))
    posterior[0, 0, 0] = posterior[0, 1, 1] = posterior[1, 0, 0] = posterior[1, 1, 2] = 1.0
    whole, half, none = OPTIONS
    cells = [[np.full((2, 50), gain) for gain in gains] for gains in ((0.0, 0.0), (-1.0, -1.0), (1.0, 0.5))]
    return Branching(("u", "v"), OPTIONS, posterior, [(whole, whole), (none, none), (whole, half)], cells)


def test_layers_that_one_task_alone_goes_through_are_not_shared() -> None:
    found = by_hand()
    # Task u goes through all layers in both runs, v through one in the first run and none in the second.
    np.testing.assert_allclose(found.depths().loc["u"], [0.5, 0.5, 0.0])
    np.testing.assert_allclose(found.depths().loc["v"], [0.5, 0.5, 0.0])
    assert found.table().query("task == 'u'")["probability"].tolist() == [1.0, 0.0, 0.0]
    assert found.best == (OPTIONS[0], OPTIONS[1]) and found.shares(found.best) == [1, 1]
    refits = found.refits()
    assert refits["choice"].tolist() == [2, 2, 0, 0, 1, 1]
    assert refits["gain"].tolist() == [1.0, 0.5, 0.0, 0.0, -1.0, -1.0]
    u, v, pair = found.findings()
    assert (u.tasks, v.tasks, pair.tasks) == (("u",), ("v",), ("u", "v"))
    assert "u shares the first 1 of 2 layers (probability 0.50" in u.says
    assert "share the first 1 of 2 layers with each other in the best refit (probability 0.50" in pair.says
    alone = replace(found, pointwise=[found.pointwise[0], found.pointwise[2], found.pointwise[1]])
    assert all("no layer" in own.says for own in alone.findings())
    together = replace(found, pointwise=[*found.pointwise[:2], found.pointwise[1]])
    assert all("all layers" in own.says for own in together.findings())


def test_likeliest_choices_come_first() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
    whole, half, none = OPTIONS
    assert _likeliest(OPTIONS, p, 3) == [(whole, half), (whole, none), (half, half)]


def test_branching_is_a_table_and_a_picture(small) -> None:
    found = branching(MLP((4, 4)), small, widths=(2, 4), top=1, steps=5, runs=2, epochs=5, device="cpu")
    assert found.posterior.shape == (2, 3, 5)
    np.testing.assert_allclose(found.posterior.sum(axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(found.depths().sum(axis=1), 1.0, rtol=1e-5)
    assert list(found.depths().index) == list(small.names)
    assert 2 <= len(found.choices) <= 3 and np.isfinite(found.refits()["lpd"]).all()
    assert "Branching" in repr(found)
    figure = found.plot()
    figure.canvas.draw()
    assert len(figure.axes[0].patches) == 3


@pytest.mark.parametrize(
    ("trunk", "options", "error", "message"),
    [
        (Identity(), {}, TypeError, "an MLP, got Identity"),
        (TRUNK, {"widths": ()}, ValueError, "needs widths"),
        (TRUNK, {"top": 0}, ValueError, "top and steps ≥ 1"),
        (TRUNK, {"held_out": 0.0}, ValueError, "held_out must be > 0"),
        (TRUNK, {"stopping": Stopping(5)}, ValueError, "give no stopping"),
    ],
)
def test_what_it_refuses(trunk, options, error, message, small) -> None:
    with pytest.raises(error, match=message):
        branching(trunk, small, **options)
    with pytest.raises(bmtl.TaskError, match="branching compares tasks"):
        branching(TRUNK, small.select(["a"]))


def test_the_search_finds_that_tasks_share_the_first_layer_only() -> None:
    train, judged = split(first_layer_only(), 0.4, 0)
    posterior = search(TRUNK, OPTIONS, train, judged, (0, 1, 2, 3), 800, 0.02, "cpu")
    depths = Branching(("u", "v"), OPTIONS, posterior, [], []).depths()
    assert (depths[1] > 0.6).all()


@pytest.mark.slow
def test_tasks_that_share_the_first_layer_only_part_after_it() -> None:
    adam = partial(torch.optim.Adam, lr=0.02)
    found = branching(
        TRUNK, first_layer_only(), widths=(4,), runs=4, steps=1500, epochs=700, optimiser=adam, device="cpu"
    )
    assert found.shares(found.best) == [1, 1]
    assert (found.depths()[1] > 0.5).all()
    best = found.refits().head(2)
    assert (best["gain"] > 2 * best["se"]).all()

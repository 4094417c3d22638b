"""Training: single steps by hand, fixed points, stopping, batches, and what comes back."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import bmtl
from bmtl import Arrangement
from bmtl.training import (
    Gains,
    GradNorm,
    PCGrad,
    Profiled,
    Recipe,
    Sampling,
    Static,
    Stopping,
    TorchJD,
    Uncertainty,
    Unitary,
)
from bmtl.training.loop import follow, paths
from bmtl.training.network import Network
from bmtl.trunks import MLP, Identity, Module

SGD = partial(torch.optim.SGD, lr=0.1)


def first(pair: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    """Parameters at the start, in double precision."""
    own = follow(Network(MLP((4,))), pair, Recipe(epochs=1, optimiser=partial(torch.optim.SGD, lr=0.0)), [seed], "cpu")
    return {name: value[0].detach().double().requires_grad_() for name, value in own.runs.free.items()}


def by_hand(pair: Any, theta: dict[str, torch.Tensor]) -> torch.Tensor:
    """Half the mean square of each task's residuals, written out once more."""
    phi = torch.tanh(torch.tensor(pair.Z) @ theta["trunk_w0"][0] + theta["trunk_b0"][0])
    eta = theta["intercept"] + phi @ theta["head"].T / phi.shape[1] ** 0.5
    y = torch.tensor(np.column_stack([pair.y_std(0), pair.y_std(1)]))
    return 0.5 * ((y - eta) ** 2).mean(dim=0)


def stepped(pair: Any, weighting: Any) -> dict[str, np.ndarray]:
    own = follow(Network(MLP((4,))), pair, Recipe(weighting=weighting, optimiser=SGD, epochs=1), [0], "cpu")
    return {name: value[0].detach().numpy() for name, value in own.runs.free.items()}


def descended(theta: dict[str, torch.Tensor], loss: torch.Tensor) -> dict[str, np.ndarray]:
    gradient = torch.autograd.grad(loss, list(theta.values()), allow_unused=True)
    return {
        name: (value if own is None else value - 0.1 * own).detach().numpy()
        for (name, value), own in zip(theta.items(), gradient, strict=True)
    }


@pytest.mark.parametrize(
    ("weighting", "weights"), [(Unitary(), [1.0, 1.0]), (Static({"v": 3.0}), [1.0, 3.0]), (GradNorm(), [1.0, 1.0])]
)
def test_one_step_of_linear_combinations(weighting, weights, pair) -> None:
    theta = first(pair)
    expected = descended(theta, by_hand(pair, theta) @ torch.tensor(weights, dtype=torch.float64))
    for name, value in stepped(pair, weighting).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_one_step_of_uncertainty(pair) -> None:
    theta = first(pair)
    log_sigma = theta["noise_gaussian"].detach().clone().requires_grad_()
    theta["noise_gaussian"] = log_sigma
    loss = (by_hand(pair, theta) * torch.exp(-2 * log_sigma) + log_sigma).sum()
    expected = descended(theta, loss)
    for name, value in stepped(pair, Uncertainty()).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_one_step_of_profiled(pair) -> None:
    theta = first(pair)
    expected = descended(theta, 0.5 * torch.log(by_hand(pair, theta)).sum())
    found = stepped(pair, Profiled())
    for name in ("trunk_w0", "trunk_b0", "head", "intercept"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def projected(g: torch.Tensor) -> torch.Tensor:
    inner = g[0] @ g[1]
    a, b = (g[i] - torch.clamp(inner, max=0.0) / (g[1 - i] @ g[1 - i]) * g[1 - i] for i in (0, 1))
    return a + b


def mean_of(g: torch.Tensor) -> torch.Tensor:
    return g.mean(dim=0)


@pytest.mark.parametrize("name", ["PCGrad", "Mean"])
def test_one_step_of_combined_gradients(name, pair) -> None:
    weighting, combine = PCGrad(), projected
    if name == "Mean":
        aggregation = pytest.importorskip("torchjd.aggregation")
        weighting, combine = TorchJD(aggregation.Mean()), mean_of
    theta = first(pair)
    losses = by_hand(pair, theta)
    expected = descended(theta, losses.sum())
    trunk = [theta["trunk_w0"], theta["trunk_b0"]]
    each = [torch.autograd.grad(by_hand(pair, theta)[t], trunk) for t in (0, 1)]
    both = combine(torch.stack([torch.cat([part.flatten() for part in own]) for own in each])).numpy()
    expected["trunk_w0"] = theta["trunk_w0"].detach().numpy() - 0.1 * both[:8].reshape(1, 2, 4)
    expected["trunk_b0"] = theta["trunk_b0"].detach().numpy() - 0.1 * both[8:].reshape(1, 1, 4)
    for site, value in stepped(pair, weighting).items():
        np.testing.assert_allclose(value, expected[site], rtol=1e-5, atol=1e-6, err_msg=site)


@pytest.fixture(scope="module")
def uneven() -> Any:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(60, 2))
    Y = np.tanh(X @ rng.normal(size=(2, 2))) + rng.normal(size=(60, 2)) * [0.1, 1.0]
    Y[40:, 1] = np.nan
    return bmtl.Tasks.from_arrays(X * 10, Y * [100.0, 1.0], ["gaussian"] * 2, names=["clean", "noisy"])


@pytest.mark.parametrize("weighting", [Uncertainty(), Profiled()])
def test_noise_ends_at_the_residual_standard_deviation(weighting, uneven) -> None:
    adam = partial(torch.optim.Adam, lr=0.03)
    own = bmtl.train(Identity(), uneven, weighting=weighting, optimiser=adam, epochs=600)
    mean = own.predict(uneven.X)
    last = own.history.query("epoch == 600").set_index("task")
    for t, name in enumerate(uneven.names):
        residual = uneven.y[t] - mean[name].to_numpy()[uneven.rows[t]]
        assert last.loc[name, "noise"] == pytest.approx(np.sqrt(np.mean(residual**2)), rel=2e-3)
        # At the optimum of a linear model these are the residuals of least squares.
        design = np.column_stack([np.ones(len(uneven.rows[t])), uneven.Z[uneven.rows[t]]])
        least = uneven.y[t] - design @ np.linalg.lstsq(design, uneven.y[t])[0]
        assert np.mean(residual**2) == pytest.approx(np.mean(least**2), rel=1e-3)


def test_units_mean_nothing(uneven) -> None:
    other = bmtl.Tasks.from_arrays(
        uneven.X, np.column_stack([uneven.y[0] * 1e4, np.r_[uneven.y[1], np.full(20, np.nan)]]), ["gaussian"] * 2,
        names=uneven.names,
    )
    for weighting in (Unitary(), Uncertainty(), Profiled(), GradNorm()):
        own, again = (
            bmtl.train(MLP((4,)), tasks, weighting=weighting, epochs=20).history for tasks in (uneven, other)
        )
        np.testing.assert_allclose(own["loss"], again["loss"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sampling", [Sampling(20), Sampling(20, within_task=True), Sampling(20, temperature=np.inf)])
def test_batches_average_to_the_objective(sampling, uneven) -> None:
    # With a learning rate of 0 the mean of the steps' directions is the gradient of the objective.
    seen: list[torch.Tensor] = []

    class Recording(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(torch.cat([own.grad.flatten().clone() for own in self.param_groups[0]["params"]]))

    recipe = Recipe(optimiser=partial(Recording, lr=0.0), sampling=sampling, epochs=400)
    runs = follow(Network(MLP((2,))), uneven, recipe, [0], "cpu").runs
    share = 2.0 * sampling.shares(uneven.n_cells)
    params = runs.groups()[0]["params"]
    exact = torch.autograd.grad((runs.losses(runs.arrays)[0] * torch.tensor(share)).sum().float(), params)
    target = torch.cat([own.flatten() for own in exact])
    steps = torch.stack(seen)
    error = steps.std(dim=0) / len(steps) ** 0.5
    # Five standard errors, of a dozen numbers; passes without replacement only make them smaller.
    assert bool((torch.abs(steps.mean(dim=0) - target) < 5 * error + 1e-4).all())


def test_full_batches_weigh_tasks_by_their_shares(uneven) -> None:
    proportional = follow(Network(MLP((2,))), uneven, Recipe(optimiser=SGD, epochs=1), [0], "cpu").runs
    by_weight = Recipe(
        weighting=Static({"clean": 1.2, "noisy": 0.8}), sampling=Sampling(temperature=np.inf), optimiser=SGD, epochs=1
    )
    again = follow(Network(MLP((2,))), uneven, by_weight, [0], "cpu").runs
    for name, value in proportional.free.items():
        torch.testing.assert_close(value, again.free[name])


@pytest.mark.parametrize("weighting", [Unitary(), PCGrad(), GradNorm(), Profiled()])
def test_runs_side_by_side_train_as_alone(weighting, uneven) -> None:
    recipe = Recipe(weighting=weighting, epochs=15)
    both = follow(Network(MLP((4,))), uneven, recipe, [5, 6], "cpu")
    alone = follow(Network(MLP((4,))), uneven, recipe, [6], "cpu")
    np.testing.assert_allclose(both.train[:, 1], alone.train[:, 0], rtol=1e-4, atol=1e-5)
    one, two = paths(Network(MLP((4,))), uneven, Recipe(epochs=2, sampling=Sampling(32)), [5, 6], "cpu")
    assert one.train.shape == two.train.shape == (3, 1, 2)


def test_stopped_tasks_are_frozen_and_the_others_go_on() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(80, 2))
    Y = np.column_stack([X[:, 0], rng.normal(size=80)]) + 0.05 * rng.normal(size=(80, 2))
    tasks = bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=["a signal", "nothing"])
    heads: list[np.ndarray] = []
    from bmtl.training.held_out import split

    train, held = split(tasks, 0.5, 0)
    recipe = Recipe(weighting=Uncertainty(), stopping=Stopping(patience=5), epochs=80)
    own = follow(
        Network(MLP((8,))), train, recipe, [0], "cpu", held,
        look=lambda epoch, runs: heads.append(runs.free["head"][0].detach().numpy().copy()),
    )
    stop = own.stopped[0, 1]
    assert 5 <= stop < 75
    assert own.stopped[0, 0] == -1 or own.stopped[0, 0] > stop
    # The epoch of the stop is five after the best one before it.
    assert np.argmin(own.held[: stop + 1, 0, 1]) == stop - 5
    moved = [np.abs(np.diff([head[t] for head in heads], axis=0)).max(axis=1) for t in (0, 1)]
    assert (moved[1][stop:] == 0).all() and (moved[1][:stop] > 0).all()
    assert (moved[0][stop : stop + 5] > 0).all()
    assert (own.weights[stop:, 0, 1] == 0).all() and (own.weights[:stop, 0, 1] == 1).all()
    # The trunk goes on, and so does the loss of the frozen task.
    assert own.noise[-1, 0, 1] == own.noise[stop, 0, 1]
    assert own.train[-1, 0, 1] != own.train[stop, 0, 1]


def test_training_ends_when_all_have_stopped_and_own_trunks_are_frozen(uneven) -> None:
    apart = Arrangement.decoupled(uneven.names)
    own = bmtl.train(
        MLP((8,)), uneven, arrangement=apart, stopping=Stopping(patience=3), held_out=0.4, epochs=400,
        optimiser=partial(torch.optim.Adam, lr=0.05),
    )
    epochs = own.stops.set_index("task")["epoch"]
    assert own.history["epoch"].max() == epochs.max() < 400
    early = epochs.idxmin()
    loss = own.history[(own.history["task"] == early) & (own.history["epoch"] >= epochs.min())]
    assert loss.groupby("split")["loss"].nunique().tolist() == [1, 1]


def test_the_same_seed_gives_the_same_numbers_and_another_others(uneven) -> None:
    options: dict[str, Any] = {"sampling": Sampling(16), "epochs": 3, "held_out": 0.2, "weighting": PCGrad()}
    one, again, other = (bmtl.train(MLP((4,)), uneven, seed=seed, **options) for seed in (1, 1, 2))
    assert one.history.equals(again.history)
    assert all(np.array_equal(value, again.sites[name]) for name, value in one.sites.items())
    assert not one.history["loss"].equals(other.history["loss"])


def test_the_global_state_of_torch_stays(uneven) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    bmtl.train(MLP((4,)), uneven, epochs=1)
    assert torch.equal(torch.rand(2), expected)


def test_what_comes_back(seven) -> None:
    own = bmtl.train(MLP((4,)), seven, weighting=Profiled(), epochs=5, held_out=0.3, device="cpu")
    assert own.history.columns.tolist() == ["epoch", "task", "split", "loss", "weight", "noise"]
    assert len(own.history) == 6 * 7 * 2
    assert np.isfinite(own.history["loss"]).all()
    found = own.predict(seven.X[:4], exposure={"wins": 5.0})
    assert {"income", "share", "colour[red]", "grade[0]"} <= set(found)
    np.testing.assert_allclose(found[[c for c in found if c.startswith("colour")]].sum(axis=1), 1.0, rtol=1e-5)
    assert found["wins"].between(0, 5).all()
    assert own.versions["torch"] == torch.__version__
    assert "Profiled" in repr(own) and "held out" in repr(own)
    score = own.score(seven.select(["income", "grade"]))
    assert score["task"].tolist() == ["income", "grade"] and np.isfinite(score["lpd"]).all()


def test_a_torch_module_is_trained_and_predicts(uneven) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh())
    trunk = Module(net, trainable=["0.weight"])
    own = bmtl.train(trunk, uneven, weighting=PCGrad(), epochs=5)
    assert set(own.sites) == {"trunk_0.weight", "head", "intercept", "noise_gaussian"}
    phi = np.tanh(uneven.Z @ own.sites["trunk_0.weight"][0].T + net[0].bias.detach().numpy())
    eta = own.sites["intercept"] + phi @ own.sites["head"].T / 2.0
    np.testing.assert_allclose(own.predict(uneven.X), eta * uneven.y_scale + uneven.y_centre, rtol=1e-4, atol=1e-3)


def test_score_is_the_density_at_the_point(uneven) -> None:
    own = bmtl.train(MLP((4,)), uneven, epochs=30)
    mean = own.predict(uneven.X)
    for t, row in own.score(uneven).iterrows():
        y, eta = uneven.y[t], mean[row["task"]].to_numpy()[uneven.rows[t]]
        # Held fixed while training, the noise is its optimum on the training cells afterwards.
        sigma = np.sqrt(np.mean((y - eta) ** 2))
        assert row["lpd"] == pytest.approx(-0.5 - np.log(sigma) - 0.5 * np.log(2 * np.pi), abs=1e-3)
        assert row["n"] == len(y)


def test_groups_of_rows_and_gains(grouped) -> None:
    own = bmtl.train(
        MLP((3,)), grouped("poisson"), optimiser=partial(Gains, lr=0.02, momentum=0.5), epochs=40, sampling=Sampling(9)
    )
    losses = own.history.pivot(index="epoch", columns="task", values="loss").sum(axis=1)
    assert losses.iloc[-1] < losses.iloc[0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs must be ≥ 1"),
        ({"weighting": "gradnorm"}, TypeError, "such as Unitary"),
        ({"weighting": Unitary}, TypeError, "such as Unitary"),
        ({"optimiser": "adam"}, TypeError, "must take parameters and give a torch optimiser"),
        ({"stopping": Stopping()}, ValueError, "stopping needs held-out cells"),
        ({"held_out": 1.0}, ValueError, r"held_out must lie in \[0, 1\)"),
        ({"held_out": 0.97}, bmtl.TaskError, "needs at least 3 and 1"),
        ({"weighting": PCGrad(), "sampling": Sampling(8, within_task=True)}, ValueError, "PCGrad compares the tasks"),
        ({"nothing": 1}, TypeError, "nothing"),
        ({"optimiser": partial(torch.optim.SGD, lr=1e6), "epochs": 30}, bmtl.FitError, "not finite after training"),
        ({"arrangement": Arrangement.shared(["clean"])}, bmtl.TaskError, "arrangement holds"),
    ],
)
def test_what_it_refuses(options, error, message, uneven) -> None:
    with pytest.raises(error, match=message):
        bmtl.train(MLP((4,)), uneven, **options)


def test_gradients_of_a_trunk_need_a_trunk(uneven) -> None:
    with pytest.raises(ValueError, match="GradNorm works on the trunk's parameters, and Identity has none"):
        bmtl.train(Identity(), uneven, weighting=GradNorm())


@pytest.mark.parametrize(("options", "message"), [({"patience": 0}, "patience"), ({"min_gain": -1.0}, "min_gain")])
def test_stopping_refuses(options, message) -> None:
    with pytest.raises(ValueError, match=f"Stopping needs {message}"):
        Stopping(**options)


@pytest.mark.gpu
def test_cuda_trains_as_the_cpu(uneven) -> None:
    for weighting in (Unitary(), Profiled(), GradNorm(), PCGrad()):
        one, two = (
            bmtl.train(MLP((8,)), uneven, weighting=weighting, epochs=20, device=device) for device in ("cpu", "cuda")
        )
        np.testing.assert_allclose(one.history["loss"], two.history["loss"], rtol=1e-3, atol=1e-4)

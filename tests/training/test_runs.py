"""The network that is trained: its losses, its gradients, and its noises at their optimum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import bmtl
from bmtl import Arrangement
from bmtl.model import noise_site
from bmtl.training.network import Network
from bmtl.training.runs import Runs
from bmtl.trunks import MLP, Fourier, Identity, Module


def runs(tasks: Any, noise: str = "fixed", trunk: Any = None, seeds: tuple[int, ...] = (0, 1), **options) -> Runs:
    return Runs(Network(trunk or MLP((4,)), **options), tasks, seeds, noise, "cpu")


def predictors(own: Runs, tasks: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Linear predictor of every task's cells and its noise, ``runs × cells …``."""
    engine, out = own.run(own.arrays), {}
    for block in own.blocks(own.arrays):
        eta, noise = engine.eta[block.name].detach().numpy(), engine.noise[block.name].detach().numpy()
        for j, t in enumerate(block.tasks):
            at = tasks.rows[t]
            if tasks.layout == "long":
                scale = np.broadcast_to(noise, (own.n_runs, *noise.shape[-1 - block.family.noise_dims :]))
                out[t] = eta[:, at], scale[:, at]
            else:
                scale = np.broadcast_to(noise, (own.n_runs, *noise.shape[-2 - block.family.noise_dims :]))
                out[t] = eta[:, j, at], scale[:, j]
    return [out[t] for t in range(tasks.n_tasks)]


@pytest.mark.parametrize("which", ["five", "seven", "gaussian", "poisson", "ordinal"])
def test_losses_are_the_families_likelihoods(which, five, seven, grouped) -> None:
    tasks = {"five": five, "seven": seven}.get(which) or grouped(which)
    own = runs(tasks)
    losses = own.losses(own.arrays).detach().numpy()
    found = predictors(own, tasks)
    assert losses.shape == (2, tasks.n_tasks)
    for t, (family, (eta, noise)) in enumerate(zip(tasks.families, found, strict=True)):
        for run in range(2):
            expected = -family.log_prob(tasks.y_std(t), eta[run], noise[run], tasks.exposure[t]).mean()
            assert losses[run, t] == pytest.approx(expected, rel=2e-5, abs=2e-5)


def test_scales_begin_at_one_and_are_learned_only_where_they_are_to_be(five) -> None:
    learned = {
        mode: {name for name, own in runs(five, mode).free.items() if "noise_" in name and own.requires_grad}
        for mode in ("fixed", "learned", "profiled")
    }
    # The overdispersion of counts shapes their likelihood; it is no scale.
    assert learned["fixed"] == {"noise_negative_binomial"}
    assert learned["learned"] == {"noise_gaussian", "noise_student_t", "noise_negative_binomial"}
    assert learned["profiled"] == set()
    own = runs(five)
    assert own.values()["noise_gaussian"].tolist() == [[1.0], [1.0]]
    np.testing.assert_allclose(own.noise()[:, 0], five.y_scale[0], rtol=1e-6)
    assert np.isnan(own.noise()[0].numpy()).tolist() == [False, False, True, True, False]


def test_no_weight_decay_acts_on_noises(five) -> None:
    own = runs(five, "learned")
    _, noises = own.groups()
    assert noises["weight_decay"] == 0.0
    assert {id(p) for p in noises["params"]} == {id(v) for k, v in own.free.items() if k.startswith("noise_")}
    decayed = torch.optim.SGD(own.groups(), lr=0.1, weight_decay=0.5)
    before = {name: value.detach().clone() for name, value in own.free.items()}
    (0.0 * own.losses(own.arrays).sum()).backward()
    decayed.step()
    for name, value in own.free.items():
        factor = 1.0 if name.startswith("noise_") else 0.95
        torch.testing.assert_close(value.detach(), factor * before[name])


def test_pulls_are_gradients_by_the_trunk_alone(pair) -> None:
    own = runs(pair)
    losses = own.losses(own.arrays)
    pulls = own.pulls(losses)
    own.losses(own.arrays)[1, 0].backward()
    expected = torch.cat([own.free[name].grad[1].flatten() for name in ("trunk_w0", "trunk_b0")])
    torch.testing.assert_close(pulls[1, 0], expected)
    assert pulls.shape == (2, 2, 4 * 2 + 4)
    own.descend(2.0 * pulls[:, 0])
    torch.testing.assert_close(own.free["trunk_b0"].grad[1].flatten(), 2.0 * expected[-4:])


def test_excess_is_zero_for_a_perfect_fit(five, seven) -> None:
    for tasks in (five, seven):
        own = runs(tasks)
        engine = own.run(own.arrays)
        assert bool((own.excess(own.arrays, engine) >= 0).all())
        for block in own.blocks(own.arrays):
            if not block.family.labels:
                from bmtl.training.network import saturated

                engine.eta[block.name] = saturated(block).expand_as(engine.eta[block.name])
        excess = own.excess(own.arrays, engine)
        perfect = [t for t, family in enumerate(tasks.families) if not family.labels]
        np.testing.assert_allclose(excess.detach()[:, perfect], 0.0, atol=1e-5)
    gaussian = runs(five)
    eta, _ = predictors(gaussian, five)[0]
    half = 0.5 * np.mean((five.y_std(0) - eta) ** 2, axis=-1)
    found = gaussian.excess(gaussian.arrays, gaussian.run(gaussian.arrays))[:, 0].detach()
    np.testing.assert_allclose(found, half, rtol=1e-5)


@pytest.mark.parametrize("which", ["five", "seven", "gaussian", "student_t", "lognormal", "gamma", "categorical"])
def test_profiled_noise_is_the_optimum(which, five, seven, grouped) -> None:
    tasks = {"five": five, "seven": seven}.get(which) or grouped(which)
    own = runs(tasks, "profiled")
    own.profile()
    found = predictors(own, tasks)
    checked = 0
    for t, (family, (eta, noise)) in enumerate(zip(tasks.families, found, strict=True)):
        if family.noise_name is None or family.noise_dims or family.name == "zero_inflated_poisson":
            continue
        y, exposure = tasks.y_std(t), tasks.exposure[t]
        for run in range(2):
            best = float(noise[run].flat[0])
            at = {k: family.log_prob(y, eta[run], k * best, exposure).mean() for k in (0.5, 0.97, 1.0, 1.03, 2.0)}
            low, high = 1e-3 * np.exp(-7), np.exp(5)
            if low < best < 0.99 * high:
                assert max(at, key=lambda k: (at[k], k == 1.0)) == 1.0
                checked += 1
            if family.name == "gaussian":
                assert best == pytest.approx(np.sqrt(np.mean((y - eta[run]) ** 2)), rel=1e-5)
    assert checked > 0


def test_profiled_gradient_is_that_of_the_profile_likelihood(pair) -> None:
    own = runs(pair, "profiled", seeds=(0,))
    own.profile()
    own.losses(own.arrays).sum().backward()
    found = own.free["trunk_w0"].grad.clone()
    own.free["trunk_w0"].grad = None
    eta = own.run(own.arrays).eta["y_gaussian"]
    # ½ log of the mean square, one a task, with nothing held.
    (0.5 * torch.log(torch.mean((own.arrays["y/gaussian"] - eta) ** 2, dim=-1))).sum().backward()
    torch.testing.assert_close(found, own.free["trunk_w0"].grad, rtol=1e-4, atol=1e-5)


def test_profiling_does_not_know_the_unit() -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(40, 2)), np.exp(rng.normal(size=(40, 2)))
    sigma = []
    for unit in (1.0, 1000.0):
        own = runs(bmtl.Tasks.from_arrays(X, Y * [unit, 1.0], ["gaussian", "lognormal"]), "profiled")
        own.profile()
        sigma.append(own.noise().numpy())
    np.testing.assert_allclose(sigma[1], sigma[0] * [1000.0, 1.0], rtol=1e-4)


@pytest.mark.parametrize(
    "trunk",
    [MLP((4, 3), "relu"), Fourier(6), Identity(), Module(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh()))],
)
def test_runs_side_by_side_are_runs_alone(trunk, pair) -> None:
    both, alone = runs(pair, trunk=trunk), runs(pair, trunk=trunk, seeds=(1,))
    torch.testing.assert_close(both.losses(both.arrays)[1], alone.losses(alone.arrays)[0])
    for name, value in both.free.items():
        torch.testing.assert_close(value[1], alone.free[name][0], rtol=0, atol=0)
    assert (both.free["head"][0] != both.free["head"][1]).all()


def test_who_uses_what(pair) -> None:
    shared = runs(pair).users
    assert shared["trunk_w0"].tolist() == [[True, True]]
    assert shared["head"].tolist() == [[True, False], [False, True]]
    assert shared[noise_site("y_gaussian")].tolist() == [[True, False], [False, True]]
    apart = runs(pair, arrangement=Arrangement.decoupled(pair.names)).users
    assert apart["trunk_w0"].tolist() == [[True, False], [False, True]]
    merged = runs(pair, arrangement=Arrangement.merged(pair.names)).users
    assert merged["head"].tolist() == [[True, True]]
    assert merged["intercept"].tolist() == [[True, False], [False, True]]

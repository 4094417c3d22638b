"""Gains against the rule by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bmtl
from bmtl.models import SharedTrunk
from bmtl.training import Gains
from bmtl.trunks import Identity


def steps(gradients: list[list[float]], start: list[float], **options) -> tuple[np.ndarray, np.ndarray]:
    """Weights and gains after each step."""
    weights = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimiser = Gains([weights], **options)
    path, gains = [], []
    for own in gradients:
        weights.grad = torch.tensor(own, dtype=torch.float64)
        optimiser.step()
        path.append(weights.detach().numpy().copy())
        gains.append(optimiser.state[weights]["gain"].numpy().copy())
    return np.array(path), np.array(gains)


def test_rule_by_hand() -> None:
    path, gains = steps([[1.0, -2.0, 3.0], [2.0, 2.0, 0.0], [1.0, 1.0, 1.0]], [0.0, 0.0, 0.0], lr=0.1)
    # The first gradient has none before it. A gradient of 0 agrees with nothing, nor does one after it.
    np.testing.assert_allclose(gains, [[1, 1, 1], [1.05, 0.95, 0.95], [1.1, 1.0, 0.95**2]], rtol=1e-14)
    np.testing.assert_allclose(path[0], [-0.1, 0.2, -0.3])
    np.testing.assert_allclose(path[1], [-0.1 - 0.1 * 1.05 * 2, 0.2 - 0.1 * 0.95 * 2, -0.3])
    np.testing.assert_allclose(path[2] - path[1], [-0.11, -0.1, -0.1 * 0.95**2])


def test_momentum_compares_the_gradient_with_the_velocity() -> None:
    # After 4 the velocity is 4; −1 opposes it and leaves 2.65; another −1 agrees with the gradient before it, but not
    # with the velocity.
    path, gains = steps([[4.0], [-1.0], [-1.0]], [0.0], lr=1.0, momentum=0.9)
    np.testing.assert_allclose(gains[:, 0], [1.0, 0.95, 0.95**2], rtol=1e-14)
    velocity = [4.0, 0.9 * 4.0 - 0.95]
    velocity.append(0.9 * velocity[1] - 0.95**2)
    np.testing.assert_allclose(path[:, 0], -np.cumsum(velocity), rtol=1e-14)
    plain = steps([[4.0], [-1.0], [-1.0]], [0.0], lr=1.0)[1]
    np.testing.assert_allclose(plain[:, 0], [1.0, 0.95, 1.0], rtol=1e-14)


def test_gains_stay_within_bounds() -> None:
    _, gains = steps([[1.0, (-1.0) ** i] for i in range(300)], [0.0, 0.0], lr=0.1)
    assert gains[-1].tolist() == [10.0, 0.1]
    _, gains = steps([[1.0, (-1.0) ** i] for i in range(30)], [0.0, 0.0], lr=0.1, bounds=(0.5, 2.0))
    assert gains[-1].tolist() == [2.0, 0.5]


def test_a_closure_is_called_with_gradients() -> None:
    weights = torch.tensor([2.0], requires_grad=True)
    optimiser = Gains([weights], lr=0.5)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = (weights**2).sum()
        loss.backward()
        return loss

    assert optimiser.step(closure).item() == 4.0
    assert weights.item() == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "lr > 0, got 0.0"),
        ({"lr": 0.1, "momentum": 1.0}, r"momentum in \[0, 1\), got 1.0"),
        ({"lr": 0.1, "bounds": (0.0, 2.0)}, "bounds around 1"),
        ({"lr": 0.1, "bounds": (0.5, 0.9)}, "bounds around 1"),
    ],
)
def test_what_it_refuses(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Gains([torch.zeros(1, requires_grad=True)], **options)


def test_only_pyro_has_it(pair) -> None:
    with pytest.raises(ValueError, match="optimiser='gains' runs on the engine pyro only"):
        bmtl.fit(SharedTrunk(Identity()), pair, engine="numpyro", optimiser="gains")
    with pytest.raises(ValueError, match="unknown optimiser 'sgd'; known: adam, gains"):
        bmtl.fit(SharedTrunk(Identity()), pair, optimiser="sgd")


@pytest.mark.slow
def test_svi_with_gains_finds_the_posterior(pair) -> None:
    fit = bmtl.fit(SharedTrunk(Identity()), pair, optimiser="gains", restarts=1, trunk="guide", max_steps=10_000)
    assert fit.engine == "pyro"
    adam = bmtl.fit(SharedTrunk(Identity()), pair, engine="pyro", restarts=1, trunk="guide", max_steps=10_000)
    # An ELBO is the mean over 100 draws, whose standard deviations are of the order of one nat.
    assert fit.draws.elbo[0] == pytest.approx(adam.draws.elbo[0], abs=1.5)
    noises = [own.weights()[["noise", "noise_low", "noise_high"]].to_numpy() for own in (fit, adam)]
    np.testing.assert_allclose(*noises, rtol=0.15)

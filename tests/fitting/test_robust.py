"""Gradients held within what came before, on both engines."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch

from bmtl.fitting.robust import DECAY, FIRST, LIMIT, Robust, robust


def on_optax(gradients: np.ndarray) -> np.ndarray:
    held = robust()
    state = held.init({"a": jax.numpy.zeros(2), "b": jax.numpy.zeros(1)})
    out = []
    for own in gradients:
        found, state = held.update({"a": jax.numpy.asarray(own[:2]), "b": jax.numpy.asarray(own[2:])}, state)
        out.append(np.concatenate([found["a"], found["b"]]))
    return np.array(out)


def on_torch(gradients: np.ndarray) -> np.ndarray:
    held = Robust([torch.zeros(1, 2), torch.zeros(1, 1)])
    return np.array([
        np.concatenate(held([torch.tensor(own[None, :2]), torch.tensor(own[None, 2:])]), axis=1)[0] for own in gradients
    ])


@pytest.fixture
def gradients() -> np.ndarray:
    """Ordinary ones of different sizes, with a spike in one coordinate at 80 and at 20, and an infinite one at 90."""
    found = np.random.default_rng(0).normal(size=(120, 3)) * [1.0, 100.0, 0.01]
    found[80, 1] = -1e6
    found[20, 0] = 1e3
    found[90, 2] = np.inf
    return found.astype(np.float32)


@pytest.mark.parametrize("held", [on_optax, on_torch])
def test_spikes_are_held_and_nothing_else_is_touched(held, gradients) -> None:
    found = held(gradients)
    # Before there is a mean square to go by, all are taken as they are.
    assert found[20, 0] == 1e3
    square = np.mean(gradients[:80, 1] ** 2)
    assert found[80, 1] == pytest.approx(-LIMIT * np.sqrt(square), rel=1e-4)
    np.testing.assert_array_equal(found[90], 0.0)
    same = np.ones_like(found, dtype=bool)
    same[80, 1] = same[90] = False
    np.testing.assert_array_equal(found[same], gradients[same])
    assert FIRST < 80 and DECAY > 1.0 - 1.0 / 120


def test_both_engines_hold_alike(gradients) -> None:
    np.testing.assert_allclose(on_optax(gradients), on_torch(gradients), rtol=1e-5)


@pytest.mark.parametrize("held", [on_optax, on_torch])
def test_a_lasting_change_of_scale_is_followed(held) -> None:
    gradients = np.ones((200, 3), dtype=np.float32)
    gradients[100:] = 1000.0
    found = held(gradients)
    assert np.all(found[100] == pytest.approx(LIMIT)) and np.all(found[199] == 1000.0)

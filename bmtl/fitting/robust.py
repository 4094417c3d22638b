"""Gradients without spikes, for stochastic optimisers.

One draw from a guide now and then lies far out, where the log-density falls off steeply: its gradient can be thousands
of times the usual one, or not finite. Adam would be thrown off by it, and stand nearly still until it is forgotten.
Each coordinate of a gradient is therefore held within `LIMIT` root mean squares of those before it, and a gradient that
is not finite is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import torch

LIMIT = 10.0
"""Root mean squares."""

DECAY = 0.999
"""Of the mean square, as Adam's."""

FIRST = 50
"""Gradients that are taken as they are, before the mean square says anything."""


class _Seen(NamedTuple):
    count: Any
    square: Any


def robust() -> optax.GradientTransformation:
    """As a transformation of optax."""

    def init(params: Any) -> _Seen:
        return _Seen(jnp.zeros([]), jax.tree.map(jnp.zeros_like, params))

    def update(gradient: Any, seen: _Seen, params: Any = None) -> tuple[Any, _Seen]:
        del params
        finite = jnp.all(jnp.array([jnp.all(jnp.isfinite(own)) for own in jax.tree.leaves(gradient)]))
        count = seen.count + finite
        # The mean of all so far where these are few: no correction of a bias towards zero is needed.
        decay = jnp.minimum(DECAY, 1.0 - 1.0 / jnp.maximum(count, 1.0))

        def held(own: Any, square: Any) -> Any:
            limit = jnp.where(count > FIRST, LIMIT * jnp.sqrt(square), jnp.inf)
            return jnp.where(finite, jnp.clip(own, -limit, limit), 0.0)

        gradient = jax.tree.map(held, gradient, seen.square)
        square = jax.tree.map(
            lambda old, own: jnp.where(finite, decay * old + (1.0 - decay) * own**2, old), seen.square, gradient
        )
        return gradient, _Seen(count, square)

    return optax.GradientTransformation(init, update)


class Robust:
    """The same for gradients in torch, of several runs at once.

    Parameters
    ----------
    params : list of Tensor
        What the gradients are of, each of shape ``(runs, …)``.
    """

    def __init__(self, params: list[torch.Tensor]) -> None:
        self._square = [torch.zeros_like(own) for own in params]
        self._count = params[0].new_zeros(len(params[0]))

    @property
    def state(self) -> list[torch.Tensor]:
        """All that it keeps."""
        return [*self._square, self._count]

    @torch.no_grad()
    def __call__(self, gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The gradients, held."""
        finite = torch.stack([own.flatten(1).sum(1) for own in gradients]).isfinite().all(0)
        self._count += finite
        seen = self._count.clamp(min=1.0)
        weight = torch.clamp(1.0 / seen, min=1.0 - DECAY) * finite
        early = torch.where(self._count <= FIRST, torch.inf, 0.0)
        out = []
        for own, square in zip(gradients, self._square, strict=True):
            shape = -1, *[1] * (own.ndim - 1)
            limit = torch.add(early.reshape(shape), square.sqrt(), alpha=LIMIT)
            held = torch.where(finite.reshape(shape), torch.clamp(own, -limit, limit), 0.0)
            square.lerp_(held * held, weight.reshape(shape))
            out.append(held)
        return out

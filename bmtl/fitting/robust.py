"""Gradients without spikes, for stochastic optimisers.

One draw from a guide now and then lies far out, where the log-density falls off steeply: its gradient can be thousands
of times the usual one, or not finite. Adam would be thrown off by it, and stand nearly still until it is forgotten.
Each coordinate of a gradient is therefore held within `LIMIT` root mean squares of those before it, and a gradient that
is not finite is left out.
"""

from __future__ import annotations

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
    """The same for the gradients of torch parameters, in place."""

    def __init__(self, params: list[torch.Tensor]) -> None:
        self._params = params
        self._square = [torch.zeros_like(own) for own in params]
        self._count = torch.zeros([], device=params[0].device)

    @torch.no_grad()
    def __call__(self) -> None:
        """Hold the gradients."""
        gradients = [own.grad for own in self._params if own.grad is not None]
        squares = [square for own, square in zip(self._params, self._square, strict=True) if own.grad is not None]
        finite = torch.stack([torch.isfinite(own).all() for own in gradients]).all()
        self._count += finite
        decay = torch.clamp(1.0 - 1.0 / self._count.clamp(min=1.0), max=DECAY)
        early = self._count <= FIRST
        for own, square in zip(gradients, squares, strict=True):
            limit = torch.where(early, torch.inf, LIMIT * square.sqrt())
            own.copy_(torch.where(finite, own.clamp(-limit, limit), torch.zeros_like(own)))
            square.copy_(torch.where(finite, decay * square + (1.0 - decay) * own**2, square))

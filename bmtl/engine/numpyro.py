"""Programs on NumPyro."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions

from bmtl.data import Block, Data


class _Defined(numpyro.distributions.Distribution):
    """The distribution that `Engine.defined` describes."""

    def __init__(self, shape: Any, log_prob: Any, noise: Any, draw: Any) -> None:
        self._log_prob, self._noise, self._draw = log_prob, noise, draw
        super().__init__(event_shape=shape)

    @property
    def support(self) -> Any:
        real = numpyro.distributions.constraints.real
        return numpyro.distributions.constraints.independent(real, len(self.event_shape))

    def log_prob(self, value: Any) -> Any:
        return self._log_prob(value)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return self._draw(jax.random.normal(key, (*sample_shape, *self._noise)))


class NumPyroEngine:
    """NumPyro on JAX, on the CPU."""

    name = "numpyro"
    dist = numpyro.distributions
    xp = jnp

    def asarray(self, values: Any) -> Any:
        return jnp.asarray(values, dtype=jnp.float32)

    def take(self, values: Any, index: Any, axis: int) -> Any:
        if isinstance(index, np.ndarray) and np.array_equal(index, np.arange(values.shape[axis])):
            return values  # its gradient would be a scatter, which is slow
        return values[(..., index, *[slice(None)] * (-1 - axis))]

    def sample(self, name: str, distribution: Any) -> Any:
        return numpyro.sample(name, distribution)

    def defined(self, shape: Any, log_prob: Any, noise: Any, draw: Any) -> Any:
        return _Defined(shape, log_prob, noise, draw)

    def given(self, name: str, data: Data) -> Any:
        return data.values[f"given/{name}"]

    def factor(self, name: str, log_density: Any) -> None:
        numpyro.factor(name, log_density)

    def observe(self, block: Block, eta: Any, noise: Any, scale: float) -> None:
        cells = block.family.distribution(self, eta, noise, block.exposure).mask(block.mask)
        with numpyro.handlers.scale(scale=scale):
            numpyro.sample(block.name, cells.to_event(block.y.ndim), obs=block.y)
        if block.power is not None:
            self.factor(f"power_{block.name}", scale * ((block.power - 1.0) * cells.log_prob(block.y)).sum())

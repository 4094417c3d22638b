"""Programs on NumPyro."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions

from bmtl.data import Block


class NumPyroEngine:
    """NumPyro on JAX, on the CPU."""

    name = "numpyro"
    dist = numpyro.distributions
    xp = jnp

    def asarray(self, values: Any) -> Any:
        return jnp.asarray(values, dtype=jnp.float32)

    def sample(self, name: str, distribution: Any) -> Any:
        return numpyro.sample(name, distribution)

    def mixture(self, log_share: Any, components: Any) -> Any:
        return self.dist.MixtureSameFamily(self.dist.Categorical(logits=log_share), components)

    def factor(self, name: str, log_density: Any) -> None:
        numpyro.factor(name, log_density)

    def observe(self, block: Block, eta: Any, noise: Any, scale: float) -> None:
        cells = block.family.distribution(self, eta, noise, block.exposure).mask(block.mask)
        with numpyro.handlers.scale(scale=scale):
            numpyro.sample(block.name, cells.to_event(block.y.ndim), obs=block.y)

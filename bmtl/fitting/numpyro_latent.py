"""A program's latent variables as one flat unconstrained vector, and its log-density there (NumPyro)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to
from numpyro.handlers import seed as seeded
from numpyro.handlers import trace
from numpyro.infer.util import potential_energy

from bmtl.data import Data, Design
from bmtl.engine.numpyro import NumPyroEngine

ONCE: dict[str, str | bool] = {"xla_backend_optimization_level": "0"}
"""How a program that runs once is compiled: optimising it takes longer than running it."""

STARTING_DRAWS = 15
"""Prior draws whose median a chain starts at."""


class Latent:
    """Flat coordinates of a program's latent sites.

    Parameters
    ----------
    program : callable
        Takes arrays and a scale.
    arrays : mapping
        Arrays to run it on once, for the sites' names, shapes and supports.
    point : callable
        Site name to whether the guide estimates it by a point; those coordinates come first.

    Attributes
    ----------
    n_point, size : int
        Number of coordinates estimated by a point, and in all.
    """

    def __init__(self, program: Callable[..., None], arrays: Mapping[str, Any], point: Callable[[str], bool]) -> None:
        self.program = program
        with trace() as found, seeded(rng_seed=0):
            # Shapes only: nothing is computed.
            jax.eval_shape(program, arrays)
        latent = {
            name: site for name, site in found.items() if site["type"] == "sample" and not site["is_observed"]
        }
        self._names = sorted(latent, key=lambda name: (not point(name), name))
        self._transforms = {name: biject_to(latent[name]["fn"].support) for name in self._names}
        shapes = jax.eval_shape(self._prior, jax.random.PRNGKey(0), arrays)
        # A list keeps the order; a dict would be flattened by name.
        flat, self._unravel = ravel_pytree([jnp.zeros(shapes[name].shape) for name in self._names])
        self.size = flat.size
        self.n_point = sum(shapes[name].size for name in self._names if point(name))
        self._sizes = {name: shapes[name].size for name in self._names}

    @classmethod
    def of(
        cls, model: Any, design: Design, arrays: Mapping[str, Any], point: Callable[[str], bool] = lambda site: False
    ) -> Latent:
        """Of a model's program on a design; by default no site is estimated by a point."""
        engine = NumPyroEngine()

        def program(arrays: Mapping[str, Any], scale: Any = 1.0) -> None:
            model.program(engine, Data(design.given(arrays), arrays, scale))

        return cls(program, arrays, point)

    def where(self, chosen: Callable[[str], bool]) -> np.ndarray:
        """Mask of the coordinates of some sites, ``(size,)``."""
        return np.repeat([chosen(name) for name in self._sizes], list(self._sizes.values()))

    def _prior(self, key: Any, arrays: Mapping[str, Any]) -> dict[str, Any]:
        with trace() as found, seeded(rng_seed=key):
            self.program(arrays)
        return {name: self._transforms[name].inv(found[name]["value"]) for name in self._names}

    def start(self, key: Any, arrays: Mapping[str, Any]) -> Any:
        """A draw from the prior, ``(size,)``."""
        drawn = self._prior(key, arrays)
        return ravel_pytree([drawn[name] for name in self._names])[0]

    def medians(self, keys: Any, arrays: Mapping[str, Any]) -> Any:
        """Medians of draws from the prior, one for each key, ``(keys, size)``."""
        draws = jax.vmap(lambda key: jax.random.split(key, STARTING_DRAWS))(keys).reshape(-1, *keys.shape[1:])
        # One after another: side by side, the samplers of gammas take longer to compile than all draws to make.
        many = jax.lax.map(lambda key: self.start(key, arrays), draws)
        return jnp.median(many.reshape(len(keys), STARTING_DRAWS, -1), axis=1)

    def named(self, z: Any) -> dict[str, Any]:
        """Unconstrained values of the sites."""
        return dict(zip(self._names, self._unravel(z), strict=True))

    def constrain(self, z: Any) -> dict[str, Any]:
        """Site values at ``z``."""
        return {name: self._transforms[name](value) for name, value in self.named(z).items()}

    def log_density(self, z: Any, arrays: Mapping[str, Any], scale: Any = 1.0) -> Any:
        """Log of prior times likelihood (times the Jacobian of the transforms) at ``z``."""
        return -potential_energy(self.program, (arrays, scale), {}, self.named(z))

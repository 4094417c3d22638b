"""NumPyro programs of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.handlers import seed, substitute
from numpyro.primitives import Messenger

from bmtl.data import Data
from bmtl.engine.own import PlayedProgram, TaskSites


class Sites(TaskSites, Messenger):
    """A handler of NumPyro's messages."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "param":
            self.at_param(msg["name"])
        if msg["type"] == "sample":
            self.at_site(msg)


def joint(e: Any, model: Any, data: Data) -> None:  # noqa: ARG001
    """Run a program with its outcomes observed."""
    model.run(data, Sites(data))


class Played(PlayedProgram):
    """All draws at once."""

    @cached_property
    def log_prob(self) -> Any:
        return self._each(lambda msg: msg["fn"].log_prob(msg["value"]), given=True)

    @cached_property
    def mean(self) -> Any:
        return self._each(lambda msg: msg["fn"].mean)

    def new(self, key: Any) -> Any:
        return self._each(lambda msg: msg["value"], key)

    def _each(self, read: Callable[[dict[str, Any]], Any], key: Any = None, given: bool = False) -> Any:
        def one(draw: Mapping[str, Any], key: Any) -> Any:
            sites = Sites(self.data, given)
            with seed(rng_seed=key), substitute(data=draw):
                self.model.run(self.data, sites)
            return jnp.stack([read(sites.found[name]) for name in self.data.design.names])

        total = len(next(iter(self.draws.values())))
        return jax.vmap(one)(self.draws, jax.random.split(jax.random.PRNGKey(0) if key is None else key, total))

"""A guide that bends: inverse autoregressive flows on a Gaussian (NumPyro)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import transforms
from numpyro.distributions.flows import InverseAutoregressiveTransform
from numpyro.nn import AutoregressiveNN

from bmtl.fitting.settings import HIDDEN


def autoregressive(size: int) -> Any:
    """The network of one flow: a function that makes its parameters, and one that applies it."""
    return AutoregressiveNN(size, [max(size, HIDDEN)])


def flow(params: Mapping[str, Any]) -> Any:
    """``z = loc + scale · flows(ε)`` with ε standard normal."""
    size = params["loc"].shape[-1]
    apply = autoregressive(size)[1]
    parts: list[Any] = []
    for own in params["flow"]:
        parts += [
            InverseAutoregressiveTransform(partial(apply, own)),
            transforms.PermuteTransform(jnp.arange(size)[::-1]),
        ]
    place = transforms.IndependentTransform(transforms.AffineTransform(params["loc"], jnp.exp(params["log_scale"])), 1)
    return dist.TransformedDistribution(dist.Normal(jnp.zeros(size), 1.0).to_event(1), [*parts, place])


def draw_from(q: Any, key: Any) -> tuple[Any, Any]:
    """A draw and its log density, without inverting the transforms that made it."""
    if not isinstance(q, dist.TransformedDistribution):
        drawn = q.sample(key)
        return drawn, q.log_prob(drawn)
    drawn, between = q.sample_with_intermediates(key)
    return drawn, q.log_prob(drawn, between)

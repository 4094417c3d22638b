"""Guides over a flat latent vector: a Gaussian, or inverse autoregressive flows on one, which bend (NumPyro)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import transforms
from numpyro.distributions.flows import InverseAutoregressiveTransform
from numpyro.nn import AutoregressiveNN

from bmtl.fitting.settings import FLOWS, HIDDEN, MAP, RANK, SVI
from bmtl.fitting.settling import INIT_SCALE


def around(settings: SVI | MAP, z: Any, n_point: int, key: Any) -> dict[str, Any]:
    """Parameters of a narrow guide around a latent vector, whose first coordinates are estimated by a point."""
    free = len(z) - n_point
    params = {"point": z[:n_point], "loc": z[n_point:]}
    if isinstance(settings, MAP):
        return params
    params |= {"log_scale": jnp.full(free, np.log(INIT_SCALE))}
    if settings.guide == "full_rank":
        params |= {"tril": jnp.zeros((free, free))}
    if settings.guide == "flow":
        params |= {"flow": [autoregressive(free)[0](own, (free,))[1] for own in jax.random.split(key, FLOWS)]}
    if settings.guide == "low_rank":
        rank = min(free, RANK)
        params |= {"factor": 0.1 * jax.random.normal(key, (free, rank))}
    return params


def posterior(params: Mapping[str, Any]) -> Any:
    """The distribution over the coordinates that have one."""
    if "flow" in params:
        return flow(params)
    if "log_scale" not in params:
        return dist.Delta(params["loc"], event_dim=1)
    # All in units of each coordinate's own scale: steps that are small for one are then not large for another.
    scale = jnp.exp(params["log_scale"])
    if "tril" in params:
        unit = jnp.eye(len(scale)) + jnp.tril(params["tril"], -1)
        return dist.MultivariateNormal(params["loc"], scale_tril=scale[:, None] * unit)
    if "factor" in params:
        return dist.LowRankMultivariateNormal(params["loc"], scale[:, None] * params["factor"], scale**2)
    return dist.Normal(params["loc"], scale).to_event(1)


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

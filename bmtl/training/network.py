"""The network that is trained: trunk and heads of the models, with a number in the place of every latent variable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bmtl.arrangement import Arrangement
from bmtl.data import Block, Data
from bmtl.engine.pyro import PyroEngine
from bmtl.engine.replay import Replaying
from bmtl.model import functions, in_trunk, observe
from bmtl.noise import Scale
from bmtl.relations import Independent
from bmtl.trunks import Trunk

SMALL = 1e-6
"""Means of discrete outcomes are held this far from where the link is infinite."""


class _Usual:
    """Amplitudes at their usual size: that of a function is in its head."""

    def sample(self, e: Any, name: str, scale: np.ndarray, unit: np.ndarray) -> Any:
        return e.asarray(scale)


class _Around:
    """A positive site, with its natural scale as median."""

    def sample(self, e: Any, name: str, scale: np.ndarray, unit: np.ndarray) -> Any:
        centre = e.xp.log(e.asarray(scale))
        return e.sample(name, e.dist.LogNormal(centre, e.xp.ones_like(centre)).to_event(1))


@dataclass(frozen=True)
class Network:
    """A trunk and linear heads: ``η_t(x) = c_t ± φ(x)·w_h(t)/√k``, the model `SharedTrunk` at one point.

    Its sites are the parameters; their priors say no more than where training begins.

    Parameters
    ----------
    trunk : Trunk
    arrangement : Arrangement, optional
        Which tasks share trunks and heads. Default: one trunk for all, a head each.
    """

    trunk: Trunk
    arrangement: Arrangement | None = None
    noise: Scale = field(default_factory=_Around)

    def arranged(self, names: tuple[str, ...]) -> Arrangement:
        return self.arrangement or Arrangement.shared(names)

    def program(self, e: Any, data: Data) -> None:
        plan = data.design.plan(self.arranged(data.design.names))
        phi = self.trunk.sample(e, data.x, plan.n_trunks)
        heads = Independent().sample(e, plan, data.design, phi.shape[-1], _Usual())
        observe(e, data, functions(e, data, phi, heads.w, plan), heads, plan, self.noise)


class Points(Replaying, PyroEngine):
    """Runs a program at given values, which may be parameters with gradients; runs are the leading dimension.

    Parameters
    ----------
    values : mapping
        Site name to tensor, ``runs × event shape``.
    device : str
    """

    def __init__(self, values: Mapping[str, Any], device: str) -> None:
        PyroEngine.__init__(self, device)
        Replaying.__init__(self, values)

    def log_prob(self, block: Block, eta: Any = None, noise: Any = None) -> Any:
        """Log-likelihood of a block's cells, 0 where none was observed; of other predictors or noises if given."""
        eta = self.eta[block.name] if eta is None else eta
        noise = self.noise[block.name] if noise is None else noise
        found = block.family.distribution(self, eta, noise, block.exposure).log_prob(block.y)
        return torch.where(block.mask, found, 0.0)


class Start(Points):
    """Draws the first value of every site: the trunk and heads from their priors, the others at their centres.

    Attributes
    ----------
    draws : dict
        Site name to first value.
    sites : dict
        Site name to prior.
    """

    def __init__(self) -> None:
        super().__init__({}, "cpu")
        self.draws: dict[str, Any] = {}
        self.sites: dict[str, Any] = {}

    def sample(self, name: str, distribution: Any) -> Any:
        drawn = in_trunk(name) or name == "head"
        self.sites[name] = distribution
        self.draws[name] = distribution.sample() if drawn else _centre(distribution.base_dist)
        return self.draws[name]


def _centre(distribution: Any) -> Any:
    return distribution.loc.exp() if isinstance(distribution, torch.distributions.LogNormal) else distribution.mean


def saturated(block: Block) -> Any | None:
    """Linear predictor of each cell at which the mean (lognormal: the median) is the outcome; None for labels."""
    family, y = block.family, block.y
    if family.labels:
        return None
    if family.link == "identity":
        return y
    if family.link == "log":
        return torch.log(torch.clamp(y, min=SMALL) / block.exposure)
    return torch.logit(torch.clamp(y / block.exposure, SMALL, 1.0 - SMALL))

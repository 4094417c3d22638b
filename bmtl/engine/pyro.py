"""Programs on Pyro."""

from __future__ import annotations

from typing import Any

import array_api_compat.torch
import pyro
import pyro.distributions
import torch

from bmtl.data import Block


class _Mixture(pyro.distributions.MixtureSameFamily):
    """torch's mixture with the support of its components, to which torch knows a transform."""

    @property
    def support(self) -> Any:
        return self.component_distribution.support


class PyroEngine:
    """Pyro on torch.

    Parameters
    ----------
    device : str
        A torch device: ``cpu``, ``cuda``, ``cuda:1``.
    """

    name = "pyro"
    dist = pyro.distributions
    xp = array_api_compat.torch

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)

    def asarray(self, values: Any) -> Any:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)

    def sample(self, name: str, distribution: Any) -> Any:
        return pyro.sample(name, distribution)

    def mixture(self, log_share: Any, components: Any) -> Any:
        return _Mixture(self.dist.Categorical(logits=log_share), components)

    def factor(self, name: str, log_density: Any) -> None:
        pyro.factor(name, log_density)

    def observe(self, block: Block, eta: Any, noise: Any, scale: float) -> None:
        cells = block.family.distribution(self, eta, noise, block.exposure).mask(block.mask)
        with pyro.poutine.scale(scale=scale):
            pyro.sample(block.name, cells.to_event(block.y.ndim), obs=block.y)

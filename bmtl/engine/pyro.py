"""Programs on Pyro."""

from __future__ import annotations

from typing import Any

import array_api_compat.torch
import pyro
import pyro.distributions
import torch

from bmtl.data import Block, Data


class _Defined(pyro.distributions.TorchDistribution):
    """The distribution that `Engine.defined` describes."""

    def __init__(self, shape: Any, log_prob: Any, noise: Any, draw: Any, device: torch.device) -> None:
        self._log_prob, self._noise, self._draw, self._device = log_prob, noise, draw, device
        super().__init__(event_shape=torch.Size(shape), validate_args=False)

    @property
    def support(self) -> Any:
        return torch.distributions.constraints.independent(torch.distributions.constraints.real, self.event_dim)

    def log_prob(self, value: Any) -> Any:
        return self._log_prob(value)

    def sample(self, sample_shape: Any = ()) -> Any:
        return self._draw(torch.randn((*sample_shape, *self._noise), device=self._device))


class PyroEngine:
    """Pyro on torch.

    Parameters
    ----------
    device : str
        A torch device: ``cpu``, ``cuda``, ``cuda:1``.
    """

    name = "pyro"
    dist: Any = pyro.distributions
    xp = array_api_compat.torch

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)

    def asarray(self, values: Any) -> Any:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)

    def take(self, values: Any, index: Any, axis: int) -> Any:
        return self._take(values, torch.as_tensor(index, device=self.device), axis)

    @staticmethod
    def _take(values: Any, index: torch.Tensor, axis: int) -> Any:
        found = torch.index_select(values, axis, index.reshape(-1))
        at = values.ndim + axis
        return found.reshape(*values.shape[:at], *index.shape, *values.shape[at + 1 :])

    def sample(self, name: str, distribution: Any) -> Any:
        return pyro.sample(name, distribution)

    def defined(self, shape: Any, log_prob: Any, noise: Any, draw: Any) -> Any:
        return _Defined(shape, log_prob, noise, draw, self.device)

    def given(self, name: str, data: Data) -> Any:
        return data.values[f"given/{name}"]

    def factor(self, name: str, log_density: Any) -> None:
        pyro.factor(name, log_density)

    def observe(self, block: Block, eta: Any, noise: Any, scale: float) -> None:
        cells = block.family.distribution(self, eta, noise, block.exposure).mask(block.mask)
        with pyro.poutine.scale(scale=scale):
            pyro.sample(block.name, cells.to_event(block.y.ndim), obs=block.y)
        if block.power is not None:
            self.factor(f"power_{block.name}", scale * ((block.power - 1.0) * cells.log_prob(block.y)).sum())

"""Programs scored at given values on torch, without Pyro's tracing: what an optimiser does at every step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import pyro.distributions
import torch

from bmtl.data import Block
from bmtl.engine.pyro import PyroEngine


class _Distributions:
    """`pyro.distributions`, of which those with constant parameters are made once."""

    def __init__(self) -> None:
        self.constants: set[int] = set()
        self._made: dict[Any, Any] = {}

    def __getattr__(self, name: str) -> Any:
        kind = getattr(pyro.distributions, name)

        def make(*args: Any, **named: Any) -> Any:
            key = name, *(id(own) if isinstance(own, torch.Tensor) else own for own in args)
            if named or not all(isinstance(own, int) or id(own) in self.constants for own in args):
                return kind(*args, **named)
            if key not in self._made:
                self._made[key] = kind(*args)
            return self._made[key]

        return make if isinstance(kind, type) else kind


class Score(PyroEngine):
    """Sums the log densities of a program's sites.

    Values may have leading dimensions of runs, and so may arrays that differ from run to run; the score then has them.
    Constants of the program are put on the device once and held there.

    Parameters
    ----------
    device : str
        A torch device.

    Attributes
    ----------
    sites : dict
        Name of each latent site to its distribution, of the program scored last.
    """

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(device)
        self.sites: dict[str, Any] = {}
        self._constants: dict[Any, torch.Tensor] = {}
        self.dist = _Distributions()

    def __call__(
        self, program: Callable[[PyroEngine], None], values: Mapping[str, torch.Tensor], runs: torch.Size,
        without: Collection[str] = (),
    ) -> torch.Tensor:
        """Log density of a program at values of its latent sites, of shape ``runs``, but for sites left out."""
        self._values, self._runs, self._without = values, runs, without
        self._total = torch.zeros(runs, device=self.device)
        program(self)
        return self._total

    def _add(self, log_prob: torch.Tensor) -> None:
        self._total = self._total + log_prob.reshape(*self._runs, -1).sum(-1)

    def asarray(self, values: Any) -> Any:
        if isinstance(values, torch.Tensor):
            return super().asarray(values)
        return self._constant(np.asarray(values, dtype=np.float32))

    def take(self, values: Any, index: Any, axis: int) -> Any:
        if isinstance(index, torch.Tensor):
            return self._take(values, index, axis)
        if index.ndim == 1 and np.array_equal(index, np.arange(values.shape[axis])):
            return values
        return self._take(values, self._constant(index), axis)

    def _constant(self, array: np.ndarray) -> torch.Tensor:
        key = array.dtype, array.shape, array.tobytes()
        if key not in self._constants:
            self._constants[key] = torch.tensor(array, device=self.device)
            self.dist.constants.add(id(self._constants[key]))
        return self._constants[key]

    def sample(self, name: str, distribution: Any) -> Any:
        self.sites[name] = distribution
        if name not in self._without:
            self._add(distribution.log_prob(self._values[name]))
        return self._values[name]

    def each(self, read: Callable[[dict[str, torch.Tensor]], torch.Tensor], apart: Mapping[str, torch.Tensor]) -> None:
        """Add the log densities of a program that knows of one run only.

        Parameters
        ----------
        read : callable
            Takes the values of all latent sites and ``apart``, runs in the leading dimension; gives one number a run.
        apart : mapping
            Arrays that differ between runs.
        """
        runs = self._runs.numel()
        values = {name: own.reshape(runs, *own.shape[len(self._runs) :]) for name, own in self._values.items()}
        self._add(read(values | {name: own.expand(runs, *own.shape[1:]) for name, own in apart.items()}))

    def factor(self, name: str, log_density: Any) -> None:
        self._add(log_density)

    def observe(self, block: Block, eta: Any, noise: Any, scale: Any) -> None:
        cells = block.family.distribution(self, eta, noise, block.exposure).log_prob(block.y)
        cells = torch.where(block.mask, cells, 0.0)
        self._add(scale * (cells if block.power is None else block.power * cells))

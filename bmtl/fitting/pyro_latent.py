"""A program's latent variables as one flat unconstrained vector, and its log-density there (Pyro)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyro
import torch
from torch.distributions import biject_to


class Latent:
    """Flat coordinates of a program's latent sites; the same as `bmtl.fitting.numpyro_latent.Latent`.

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
        self._arrays = arrays
        latent = self._sites()
        self._names = sorted(latent, key=lambda name: (not point(name), name))
        self._transforms = {name: biject_to(latent[name]["fn"].support) for name in self._names}
        free = {name: self._transforms[name].inv(latent[name]["value"]) for name in self._names}
        self._shapes = {name: value.shape for name, value in free.items()}
        self.size = sum(value.numel() for value in free.values())
        self.n_point = sum(value.numel() for name, value in free.items() if point(name))

    def where(self, chosen: Callable[[str], bool]) -> np.ndarray:
        """Mask of the coordinates of some sites, ``(size,)``."""
        return np.repeat([chosen(name) for name in self._shapes], [own.numel() for own in self._shapes.values()])

    def _sites(self) -> dict[str, Any]:
        nodes = pyro.poutine.trace(self.program).get_trace(self._arrays).nodes
        return {name: site for name, site in nodes.items() if site["type"] == "sample" and not site["is_observed"]}

    def start(self) -> torch.Tensor:
        """A draw from the prior, ``(size,)``."""
        drawn = self._sites()
        return torch.cat([self._transforms[name].inv(drawn[name]["value"]).reshape(-1) for name in self._names])

    def _constrained(self, z: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        values, jacobian, at = {}, z.new_zeros(()), 0
        for name in self._names:
            shape = self._shapes[name]
            free = z[at : at + shape.numel()].reshape(shape)
            values[name] = self._transforms[name](free)
            jacobian = jacobian + self._transforms[name].log_abs_det_jacobian(free, values[name]).sum()
            at += shape.numel()
        return values, jacobian

    def constrain(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
        """Site values at ``z``."""
        return self._constrained(z)[0]

    def log_density(self, z: torch.Tensor, arrays: Mapping[str, Any], scale: float = 1.0) -> torch.Tensor:
        """Log of prior times likelihood (times the Jacobian of the transforms) at ``z``."""
        values, jacobian = self._constrained(z)
        program = pyro.poutine.condition(self.program, data=values)
        return pyro.poutine.trace(program).get_trace(arrays, scale).log_prob_sum() + jacobian

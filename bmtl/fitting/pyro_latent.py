"""A program's latent variables as one flat unconstrained vector, and its log-density there (Pyro)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from pyro.poutine.util import site_is_subsample
from torch.distributions import biject_to
from torch.distributions.transforms import ComposeTransform, IndependentTransform

from bmtl.engine.pyro import PyroEngine
from bmtl.engine.score import Score


class Known(NamedTuple):
    """Sites whose prior is a Gaussian that depends on nothing drawn, so that its mean under a guide has a closed form.

    Attributes
    ----------
    names : frozenset of str
    loc, precision : Tensor, shape (size,)
        Of each coordinate; 0 where it belongs to another site.
    constant : Tensor, shape ()
        Log density at ``loc``.
    """

    names: frozenset[str]
    loc: torch.Tensor
    precision: torch.Tensor
    constant: torch.Tensor


class Latent:
    """Flat coordinates of a program's latent sites; the same as `bmtl.fitting.numpyro_latent.Latent`.

    Parameters
    ----------
    program : callable
        Takes an engine, arrays and a scale.
    device : str
        A torch device.
    arrays : mapping
        Arrays to run it on once, for the sites' names, shapes and supports.
    point : callable
        Site name to whether the guide estimates it by a point; those coordinates come first.

    Attributes
    ----------
    n_point, size : int
        Number of coordinates estimated by a point, and in all.
    """

    def __init__(
        self, program: Callable[..., None], device: str, arrays: Mapping[str, Any], point: Callable[[str], bool]
    ) -> None:
        self.program, self.score = program, Score(device)
        self._traced, self._arrays = partial(program, PyroEngine(device)), arrays
        latent = self._sites()
        self._names = sorted(latent, key=lambda name: (not point(name), name))
        self._transforms = {name: biject_to(latent[name]["fn"].support) for name in self._names}
        free = {name: self._transforms[name].inv(latent[name]["value"]) for name in self._names}
        self._shapes = {name: value.shape for name, value in free.items()}
        self._sizes = [shape.numel() for shape in self._shapes.values()]
        self._bent = {name for name in self._names if not _is_identity(self._transforms[name])}
        self.size = sum(self._sizes)
        self.n_point = sum(shape.numel() for name, shape in self._shapes.items() if point(name))

    def where(self, chosen: Callable[[str], bool]) -> np.ndarray:
        """Mask of the coordinates of some sites, ``(size,)``."""
        return np.repeat([chosen(name) for name in self._names], self._sizes)

    def _sites(self) -> dict[str, Any]:
        nodes = pyro.poutine.trace(self._traced).get_trace(self._arrays).nodes
        return {
            name: site for name, site in nodes.items()
            if site["type"] == "sample" and not site["is_observed"] and not site_is_subsample(site)
        }

    def start(self) -> torch.Tensor:
        """A draw from the prior, ``(size,)``."""
        drawn = self._sites()
        return torch.cat([self._transforms[name].inv(drawn[name]["value"]).reshape(-1) for name in self._names])

    def known(self, arrays: Mapping[str, Any], runs: torch.Size) -> Known:
        """Sites with a Gaussian prior that is the same whatever the others are, and in all runs."""
        z = torch.zeros(*runs, self.size, device=self.score.device, requires_grad=True)
        self.log_density(z, arrays)
        names, loc, precision = set(), torch.zeros_like(z[(0,) * len(runs)]), torch.zeros_like(z[(0,) * len(runs)])
        constant, at = loc.new_zeros(()), 0
        for name, size in zip(self._names, self._sizes, strict=True):
            shape = self._shapes[name]
            prior: Any = self.score.sites.get(name)
            while isinstance(prior, torch.distributions.Independent):
                prior = prior.base_dist
            gaussian = isinstance(prior, torch.distributions.Normal) and prior.batch_shape == shape
            if gaussian and not (prior.loc.requires_grad or prior.scale.requires_grad):
                names.add(name)
                loc[at : at + size] = prior.loc.reshape(-1)
                precision[at : at + size] = prior.scale.reshape(-1) ** -2
                constant = constant + prior.log_prob(prior.loc).sum()
            at += size
        return Known(frozenset(names), loc.detach(), precision.detach(), constant.detach())

    def _constrained(self, z: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        runs = z.shape[:-1]
        values, jacobian = {}, z.new_zeros(runs)
        for name, part in zip(self._names, z.split(self._sizes, -1), strict=True):
            free = part.reshape(*runs, *self._shapes[name])
            values[name] = self._transforms[name](free)
            if name in self._bent:
                own = self._transforms[name].log_abs_det_jacobian(free, values[name])
                jacobian = jacobian + own.reshape(*runs, -1).sum(-1)
        return values, jacobian

    def constrain(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
        """Site values at ``z``, of shape ``(…, size)``."""
        return self._constrained(z)[0]

    def log_density(
        self, z: torch.Tensor, arrays: Mapping[str, Any], scale: Any = 1.0, without: frozenset[str] = frozenset()
    ) -> torch.Tensor:
        """Log of prior times likelihood (times the Jacobian of the transforms) at ``z``, one for each leading index.

        Parameters
        ----------
        z : Tensor, shape (…, size)
        arrays : mapping
            Those that differ between runs have the leading dimensions of ``z``.
        without : frozenset of str
            Sites whose prior is left out.
        """
        values, jacobian = self._constrained(z)
        scored = self.score(lambda engine: self.program(engine, arrays, scale), values, z.shape[:-1], without)
        return scored + jacobian


def _is_identity(transform: Any) -> bool:
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return isinstance(transform, ComposeTransform) and not transform.parts

"""Guides over a flat latent vector on torch, of one run or of several side by side."""

from __future__ import annotations

from collections.abc import Mapping
from math import log, pi, prod
from typing import Any

import pyro.distributions as dist
import torch
from pyro.nn import AutoRegressiveNN

from bmtl.fitting.settings import FLOWS, HIDDEN, MAP, RANK, SVI
from bmtl.fitting.settling import INIT_SCALE


class Guide:
    """A Gaussian over the coordinates that have a spread, after those estimated by a point; or flows.

    The parameters of a run are one flat vector, of which `named` gives the parts. All methods take parameters and
    noise with any leading dimensions, such as runs or draws, which broadcast.

    Parameters
    ----------
    settings : SVI or MAP
    n_point, size : int
        Coordinates estimated by a point, and in all.
    device : torch.device

    Attributes
    ----------
    shapes : dict
        Name of each part to its shape.
    n_noise : int
        Standard normal numbers behind a draw.
    flows : torch.nn.ModuleList
        None but for ``guide="flow"``; they serve one run only.
    """

    def __init__(self, settings: SVI | MAP, n_point: int, size: int, device: torch.device) -> None:
        self.kind = "point" if isinstance(settings, MAP) else settings.guide
        self.device, n = device, size - n_point
        self.shapes: dict[str, tuple[int, ...]] = {"point": (n_point,), "loc": (n,)}
        if self.kind != "point":
            self.shapes["log_scale"] = (n,)
        if self.kind == "full_rank":
            self.shapes["tril"] = (n, n)
        rank = min(n, RANK)
        if self.kind == "low_rank":
            self.shapes["factor"] = (n, rank)
        self.sizes = [prod(shape) for shape in self.shapes.values()]
        self.n_noise = 0 if self.kind == "point" else n + rank * (self.kind == "low_rank")
        # In a random order two flows may bend the same coordinates by the same others.
        order: Any = torch.arange(n)
        self.flows = torch.nn.ModuleList(
            dist.transforms.AffineAutoregressive(AutoRegressiveNN(n, [max(n, HIDDEN)], permutation=order))
            for _ in range(FLOWS * (self.kind == "flow"))
        ).to(device)

    def start(self, z: torch.Tensor) -> torch.Tensor:
        """Flat parameters around a latent vector."""
        n_point = self.shapes["point"][0]
        parts = {"point": z[:n_point], "loc": z[n_point:]}
        for name, shape in self.shapes.items():
            if name == "log_scale":
                parts[name] = z.new_full(shape, log(INIT_SCALE))
            if name == "tril":
                parts[name] = z.new_zeros(shape)
            if name == "factor":
                parts[name] = 0.1 * torch.randn(shape, device=z.device)
        return self.flat(parts)

    def flat(self, named: Mapping[str, Any]) -> torch.Tensor:
        """Flat parameters from those of one run by name."""
        return torch.cat([torch.as_tensor(named[name], device=self.device).reshape(-1) for name in self.shapes])

    def named(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Parameters by name, with the leading dimensions of ``flat``."""
        parts = zip(self.shapes.items(), flat.split(self.sizes, -1), strict=True)
        return {name: part.reshape(*part.shape[:-1], *shape) for (name, shape), part in parts}

    def posterior(self, params: Mapping[str, torch.Tensor]) -> Any:
        """The distribution over the coordinates that have a spread."""
        loc = params["loc"]
        if self.kind == "point":
            return dist.Delta(loc, event_dim=1)
        scale = torch.exp(params["log_scale"])
        if self.kind == "flow":
            return self._flow(loc, scale)
        if self.kind == "full_rank":
            return dist.MultivariateNormal(loc, scale_tril=scale[..., None] * self._unit(params["tril"]))
        if self.kind == "low_rank":
            return dist.LowRankMultivariateNormal(loc, scale[..., None] * params["factor"], scale**2)
        return dist.Normal(loc, scale).to_event(1)

    def _unit(self, tril: torch.Tensor) -> torch.Tensor:
        # All in units of each coordinate's own scale: steps that are small for one are then not large for another.
        return torch.eye(tril.shape[-1], device=self.device) + torch.tril(tril, -1)

    def _flow(self, loc: torch.Tensor, scale: torch.Tensor) -> Any:
        """``z = loc + scale · flows(ε)``; the same as `bmtl.fitting.numpyro_guide.flow`."""
        back = torch.arange(loc.shape[-1] - 1, -1, -1, device=self.device)
        parts: list[Any] = []
        for own in self.flows:
            parts += [own, dist.transforms.Permute(back)]
        place = torch.distributions.AffineTransform(loc, scale, event_dim=1, cache_size=1)
        base = dist.Normal(torch.zeros_like(loc), torch.ones_like(loc)).to_event(1)
        return dist.TransformedDistribution(base, [*parts, place])

    def draw(self, params: Mapping[str, torch.Tensor], noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A draw made of standard normal numbers, and its log density."""
        if self.kind == "flow":
            # Scored at once, while the flows remember how they made the draw: to invert them is slow.
            q, free = self.posterior(params), noise
            for part in q.transforms:
                free = part(free)
            return free, q.log_prob(free)
        free = self.place(params, noise)
        return free, self.posterior(params).log_prob(free)

    def place(self, params: Mapping[str, torch.Tensor], noise: torch.Tensor) -> torch.Tensor:
        """Standard normal numbers ``(…, n_noise)`` to a draw of a Gaussian guide."""
        loc = params["loc"]
        if self.kind == "point":
            return loc.expand(*noise.shape[:-1], -1)
        n = loc.shape[-1]
        unit = noise[..., :n]
        if self.kind == "full_rank":
            unit = (self._unit(params["tril"]) @ unit[..., None])[..., 0]
        if self.kind == "low_rank":
            unit = unit + (params["factor"] @ noise[..., n:, None])[..., 0]
        return loc + torch.exp(params["log_scale"]) * unit

    def variance(self, params: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Of each coordinate under a Gaussian guide."""
        if self.kind == "point":
            return torch.zeros_like(params["loc"])
        square = torch.exp(2.0 * params["log_scale"])
        if self.kind == "full_rank":
            return square * (self._unit(params["tril"]) ** 2).sum(-1)
        if self.kind == "low_rank":
            return square * (1.0 + (params["factor"] ** 2).sum(-1))
        return square

    def entropy(self, params: Mapping[str, torch.Tensor]) -> Any:
        """Of a Gaussian guide; 0 of a point."""
        if self.kind == "point":
            return 0.0
        log_scale = params["log_scale"]
        out = log_scale.sum(-1) + 0.5 * log_scale.shape[-1] * (1.0 + log(2.0 * pi))
        if self.kind == "low_rank":
            factor = params["factor"]
            rank = torch.eye(factor.shape[-1], device=self.device)
            tril = torch.linalg.cholesky(rank + factor.mT @ factor)
            out = out + tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return out

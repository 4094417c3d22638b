"""Several runs of one network side by side: parameters with the run in front, losses, and gradients by task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.distributions import LogNormal, biject_to

from bmtl.data import Block, Data, Design, arrays
from bmtl.model import in_trunk, noise_site
from bmtl.tasks import Tasks
from bmtl.training.network import Network, Points, Start, saturated

GOLDEN = (5**0.5 - 1) / 2
SEARCH = (-7.0, 5.0)
"""Logarithms between which a noise without a closed form is sought, in natural scales."""
CUTS = 40
"""Each leaves .62 of the interval: 12 · .62^40 is 5e-8."""
SMALLEST = 1e-4
"""Profiled noises stay above this, in natural scales: a perfect fit would take them to 0."""

Arrays = Mapping[str, torch.Tensor]


class Runs:
    """Parameters of a network, one set a run.

    Parameters
    ----------
    network : Network
    tasks : Tasks
        What is trained on.
    seeds : sequence of int
        One a run: of its first parameters. A run begins alike whichever runs are beside it, on every device.
    noise : {"fixed", "learned", "profiled"}
        See `bmtl.training.Weighting`.
    device : str

    Attributes
    ----------
    arrays : dict
        The cells trained on, on the device.
    free : dict
        Site name to unconstrained tensor, ``runs × event shape``.
    users : dict
        Site name to tensor of bool, ``first event dimension × T``: which tasks use which part.
    scales : dict
        Name of each block whose noises are positive numbers to its natural scales, ``T_f``.
    """

    def __init__(self, network: Network, tasks: Tasks, seeds: Sequence[int], noise: str, device: str) -> None:
        self.network, self.design, self.device = network, Design.of(tasks), device
        self.arrays = self.on_device(tasks)
        starts = [self._start(tasks, seed) for seed in seeds]
        self._transforms = {name: biject_to(prior.support) for name, prior in starts[0].sites.items()}
        self.free = {
            name: transform.inv(torch.stack([own.draws[name] for own in starts])).to(device).requires_grad_()
            for name, transform in self._transforms.items()
        }
        self.users = self._users()
        self.scales, self.profiled = {}, noise == "profiled"
        for block in self.blocks(self.arrays):
            site = noise_site(block.name)
            prior = starts[0].sites.get(site)
            if prior is not None and block.family.noise_dims == 0 and isinstance(prior.base_dist, LogNormal):
                self.scales[block.name] = torch.exp(self.free[site].detach()[0])
                held = self.profiled or (noise == "fixed" and block.family.noise_is_scale)
                self.free[site].requires_grad_(not held)

    def _start(self, tasks: Tasks, seed: int) -> Start:
        start = Start()
        torch.manual_seed(seed)
        values = {name: torch.tensor(value) for name, value in arrays(tasks, self.design).items()}
        self.network.program(start, Data(self.design, values))
        return start

    def _users(self) -> dict[str, torch.Tensor]:
        plan = self.design.plan(self.network.arranged(self.design.names))
        tasks = np.arange(self.design.n_tasks)
        of_head = np.zeros((plan.n_heads, len(tasks)), dtype=bool)
        of_head[plan.head_of, plan.task_of] = True
        of_trunk = np.stack([of_head[plan.trunk_of_head == trunk].any(axis=0) for trunk in range(plan.n_trunks)])
        users = {"head": of_head, "intercept": plan.task_of[:, None] == tasks}
        users |= {noise_site(f"y_{name}"): own[:, None] == tasks for name, own in self.design.groups.items()}
        return {
            name: torch.as_tensor(of_trunk if in_trunk(name) else users[name], device=self.device)
            for name in self.free
        }

    @property
    def n_runs(self) -> int:
        return len(self.free["head"])

    @property
    def trunk(self) -> list[torch.Tensor]:
        """Parameters of the trunk."""
        return [value for name, value in self.free.items() if in_trunk(name)]

    def groups(self) -> list[dict[str, Any]]:
        """Parameters to be optimised, for a torch optimiser: no weight decay acts on noises."""
        learned = {name: value for name, value in self.free.items() if value.requires_grad}
        noises = [value for name, value in learned.items() if name.startswith("noise_")]
        network = [value for name, value in learned.items() if not name.startswith("noise_")]
        return [{"params": network}, *([{"params": noises, "weight_decay": 0.0}] if noises else [])]

    def on_device(self, tasks: Tasks) -> dict[str, torch.Tensor]:
        """Observed cells as tensors."""
        found = arrays(tasks, self.design)
        return {name: torch.tensor(value, device=self.device) for name, value in found.items()}

    def blocks(self, values: Arrays) -> list[Block]:
        """Cells by family."""
        return list(Data(self.design, values).blocks())

    def values(self) -> dict[str, torch.Tensor]:
        """Parameters as the program has them, ``runs × event shape``."""
        return {name: self._transforms[name](value) for name, value in self.free.items()}

    def run(self, values: Arrays) -> Points:
        """The program at the parameters: linear predictors and noises of every block."""
        engine = Points(self.values(), self.device)
        self.network.program(engine, Data(self.design, values))
        return engine

    def losses(self, values: Arrays, engine: Points | None = None) -> torch.Tensor:
        """Mean negative log-likelihood of each task's cells on the modelled scale, ``runs × T``; 0 without cells."""
        engine = engine or self.run(values)
        return -self.means(values, {block.name: engine.log_prob(block) for block in self.blocks(values)})

    def excess(self, values: Arrays, engine: Points) -> torch.Tensor:
        """Losses above those of a perfect fit, ``runs × T``."""
        best = {}
        for block in self.blocks(values):
            eta = saturated(block)
            best[block.name] = 0.0 * block.mask if eta is None else engine.log_prob(block, eta)
        return torch.clamp(self.losses(values, engine) + self.means(values, best), min=0.0)

    def means(self, values: Arrays, cells: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean over each task's observed cells of what every block has a cell, ``runs × T``."""
        total = torch.zeros(self.n_runs, self.design.n_tasks, device=self.device)
        count = torch.zeros(self.design.n_tasks, device=self.device)
        for block in self.blocks(values):
            own = cells[block.name].expand(self.n_runs, *block.mask.shape)
            if "task" in values:
                total = total.index_add(1, values["task"], own)
                count = count.index_add(0, values["task"], block.mask.to(count))
            else:
                members = torch.as_tensor(block.tasks, device=self.device)
                total = total.index_copy(1, members, own.sum(dim=-1))
                count = count.index_copy(0, members, block.mask.sum(dim=-1).to(count))
        return total / torch.clamp(count, min=1.0)

    def pulls(self, losses: torch.Tensor) -> torch.Tensor:
        """Gradient of each task's loss by the trunk, ``runs × T × D``; the graph of the losses is kept."""
        each = []
        for own in losses.unbind(dim=1):
            found = torch.autograd.grad(own.sum(), self.trunk, retain_graph=True)
            each.append(torch.cat([part.flatten(1) for part in found], dim=1))
        return torch.stack(each, dim=1)

    def descend(self, direction: torch.Tensor) -> None:
        """Put ``runs × D`` into the gradient of the trunk."""
        parts = direction.split([own[0].numel() for own in self.trunk], dim=1)
        for own, part in zip(self.trunk, parts, strict=True):
            own.grad = part.reshape(own.shape).clone()

    @torch.no_grad()
    def profile(self, every: bool = False) -> None:
        """Set the noises that are profiled, or all held ones, to their optimum on the cells trained on."""
        if not (every or self.profiled):
            return
        engine = self.run(self.arrays)
        for block in self.blocks(self.arrays):
            if block.name in self.scales and not self.free[noise_site(block.name)].requires_grad:
                self.free[noise_site(block.name)].copy_(self._best(block, engine).log())

    def _best(self, block: Block, engine: Points) -> torch.Tensor:
        """Noises at which the likelihood of a block is highest, ``runs × T_f``."""
        scale, tasks = self.scales[block.name], torch.as_tensor(block.tasks, device=self.device)
        target = block.family.gaussian_scale(block.y.cpu().numpy())
        if target is not None:
            squared = (torch.as_tensor(target, device=self.device) - engine.eta[block.name]) ** 2
            means = self.means(self.arrays, self._only(block, torch.where(block.mask, squared, 0.0)))
            return torch.maximum(means[:, tasks].sqrt(), SMALLEST * scale)

        def loss(log: torch.Tensor) -> torch.Tensor:
            noise = torch.exp(log) * scale
            noise = noise[:, self.arrays["task"]] if "task" in self.arrays else noise[..., None]
            return -self.means(self.arrays, self._only(block, engine.log_prob(block, noise=noise)))[:, tasks]

        return torch.exp(golden(loss, torch.zeros(self.n_runs, len(tasks), device=self.device))) * scale

    def _only(self, block: Block, cells: torch.Tensor) -> dict[str, torch.Tensor]:
        """These cells of one block, zeros for the others."""
        return {own.name: cells if own.name == block.name else 0.0 * own.mask for own in self.blocks(self.arrays)}

    def noise(self) -> torch.Tensor:
        """Noise of each task in the user's units, ``runs × T``; NaN where there is none, or a vector."""
        out = torch.full((self.n_runs, self.design.n_tasks), torch.nan, device=self.device)
        values = self.values()
        for name, members in self.design.groups.items():
            own = values.get(noise_site(f"y_{name}"))
            if own is not None and own.ndim == 2:
                out[:, torch.as_tensor(members, device=self.device)] = own.detach()
        return out * torch.tensor(self.design.unit, dtype=out.dtype, device=self.device)

    @torch.no_grad()
    def sites(self) -> dict[str, np.ndarray]:
        """Parameters as arrays, ``runs × event shape``."""
        return {name: value.cpu().numpy() for name, value in self.values().items()}

    @torch.no_grad()
    def put_back(self, before: Mapping[str, torch.Tensor], active: torch.Tensor) -> None:
        """Undo what a step did to parts that only stopped tasks use."""
        for name, value in self.free.items():
            live = (active[:, None, :] & self.users[name]).any(dim=-1)
            value.copy_(torch.where(live.reshape(*live.shape, *[1] * (value.ndim - 2)), value, before[name]))


def golden(loss: Callable[[torch.Tensor], torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """Minimum of a loss of each number in `SEARCH`, each with one valley, by golden-section search."""
    low, high = torch.full_like(like, SEARCH[0]), torch.full_like(like, SEARCH[1])
    for _ in range(CUTS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        below = loss(left) < loss(right)
        low, high = torch.where(below, low, left), torch.where(below, right, high)
    return 0.5 * (low + high)

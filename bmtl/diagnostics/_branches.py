"""Trunks that tasks leave at different depths: fixed ones, and one that searches for the depths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from bmtl.arrangement import Arrangement
from bmtl.tasks import Tasks
from bmtl.training.network import Network
from bmtl.training.runs import Runs
from bmtl.trunks import MLP
from bmtl.trunks._base import layers

GATE = "trunk_gate"

WARM = 0.6
"""Share of the steps before gates move: until then every branch has its turn, for one that has learned less than the
others would be shut, and then learn no more."""

TEMPERATURE = 0.3
"""Of the relaxed gates: low, so that a branch learns to do without the others."""

GATE_RATE = 0.05
"""Learning rate of Adam on the gates' logits."""


class Branch(NamedTuple):
    """Where a task leaves the shared layers, and the width of the layers of its own that follow.

    The width is None where none follow: the task's layers are then those of the shared trunk.
    """

    depth: int
    width: int | None


def branches(trunk: MLP, widths: tuple[int, ...]) -> list[Branch]:
    """All there are, those that share more first."""
    count = len(trunk.widths)
    own = [Branch(depth, width) for depth in range(count - 1, -1, -1) for width in widths]
    return [Branch(count, None), *own]


def _stem(e: Any, x: Any, trunk: MLP) -> list[Any]:
    """The inputs and what every shared layer makes of them, ``… × 1 × rows × width``."""
    out = [x[None]]
    for layer, width in enumerate(trunk.widths):
        out.append(layers(e, f"trunk_shared{layer}_", out[-1], 1, (width,), trunk.activation))
    return out


def _own(e: Any, stem: list[Any], trunk: MLP, branch: Branch, copies: int, name: str) -> Any:
    """Features at the end of a branch, ``… × copies × rows × width``."""
    if branch.width is None:
        return stem[-1].expand(*stem[-1].shape[:-3], copies, *stem[-1].shape[-2:])
    widths = (branch.width,) * (len(trunk.widths) - branch.depth)
    return layers(e, f"trunk_{name}_", stem[branch.depth], copies, widths, trunk.activation)


def _joined(parts: list[Any], gates: list[Any]) -> Any:
    """Features side by side, each part times its gate, so that a head sums functions of unit scale."""
    total = sum(part.shape[-1] for part in parts)
    scaled = [(total / part.shape[-1]) ** 0.5 * gate * part for part, gate in zip(parts, gates, strict=True)]
    return torch.cat(scaled, dim=-1)


@dataclass(frozen=True)
class Branched:
    """A perceptron that each copy, a task's, leaves at its own depth, for layers of its own.

    Parameters
    ----------
    trunk : MLP
        The shared layers.
    branches : tuple of Branch
        One a copy.
    """

    trunk: MLP
    branches: tuple[Branch, ...]

    linear: ClassVar[bool] = False
    learned: ClassVar[bool] = True

    def sample(self, e: Any, x: Any, copies: int) -> Any:
        stem = _stem(e, x, self.trunk)
        parts = [_own(e, stem, self.trunk, own, 1, f"own{copy}") for copy, own in enumerate(self.branches)]
        width = max(part.shape[-1] for part in parts)
        # Zeros fill up what is narrower; heads are scaled by the common width.
        filled = [
            torch.nn.functional.pad((width / part.shape[-1]) ** 0.5 * part, (0, width - part.shape[-1]))
            for part in parts
        ]
        return torch.cat(filled, dim=-3)


class Searched:
    """All branches of every copy at once, each behind a gate: a relaxed categorical variable a copy.

    Gates are Concrete (Maddison, Mnih & Teh; Jang, Gu & Poole; both ICLR 2017), drawn anew whenever the trunk is run.
    """

    linear, learned = False, True

    def __init__(self, trunk: MLP, options: list[Branch]) -> None:
        self.trunk, self.options = trunk, options

    def sample(self, e: Any, x: Any, copies: int) -> Any:
        zero, near = e.asarray(0.0), e.asarray(1e-3)
        logits = e.sample(GATE, e.dist.Normal(zero, near).expand([copies, len(self.options)]).to_event(2))
        gumbel = -torch.log(-torch.log(torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)))
        gate = torch.softmax((logits + gumbel) / TEMPERATURE, dim=-1)
        stem = _stem(e, x, self.trunk)
        parts = [_own(e, stem, self.trunk, own, copies, f"branch{o}") for o, own in enumerate(self.options)]
        return _joined(parts, [gate[..., o, None, None] for o in range(len(self.options))])


def search(
    trunk: MLP, options: list[Branch], tasks: Tasks, judged: Tasks, seeds: tuple[int, ...], steps: int, rate: float,
    device: str,
) -> np.ndarray:
    """Posterior of every task's branch, ``runs × T × options``.

    Layers and heads descend the losses of ``tasks``; gates the negative ELBO of the cells of ``judged``, with a flat
    prior on branches (in the spirit of Liu, Simonyan & Yang, "DARTS: differentiable architecture search", ICLR 2019).
    """
    arrangement = Arrangement.decoupled(tasks.names)
    with torch.random.fork_rng(devices=[torch.device(device)] if torch.device(device).type == "cuda" else []):
        runs = Runs(Network(Searched(trunk, options), arrangement), tasks, seeds, "learned", device)
        torch.manual_seed(seeds[0])
        unseen = runs.on_device(judged)
        cells = torch.tensor(judged.n_cells, dtype=torch.float32, device=device)
        gate = runs.free[GATE]
        network = torch.optim.Adam([own for name, own in runs.free.items() if name != GATE], lr=rate)
        gates = torch.optim.Adam([gate], lr=GATE_RATE)
        for step in range(steps):
            network.zero_grad()
            runs.losses(runs.arrays).sum().backward()
            network.step()
            if step < WARM * steps:
                continue
            gates.zero_grad()
            q = torch.softmax(gate, dim=-1)
            divergence = (q * (torch.log_softmax(gate, dim=-1) + np.log(len(options)))).sum()
            ((runs.losses(unseen) * cells).sum() + divergence).backward()
            gates.step()
        found = torch.softmax(gate.detach(), dim=-1).cpu().numpy()
    return found[:, copies(arrangement, tasks.names)]


def copies(arrangement: Arrangement, names: tuple[str, ...]) -> list[int]:
    """The trunk of each task where every task has its own."""
    order = [members[0][0] for members in arrangement.trunks]
    return [order.index(name) for name in names]


def fixed(trunk: MLP, chosen: tuple[Branch, ...], names: tuple[str, ...]) -> Branched:
    """The trunk in which each task, in the order of the names, has its branch."""
    at = np.argsort(copies(Arrangement.decoupled(names), names))
    return Branched(trunk, tuple(chosen[t] for t in at))

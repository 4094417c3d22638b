"""How others would group tasks: pairwise higher-order approximation, inter-task affinity, gradient similarity.

All of them choose sets of tasks to train together, each task being served by one of the chosen sets. Affinities are
those of a network of the same shape, trained on the sum of the tasks' losses, with a Gaussian task's noise learned.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch

from bmtl import grouping
from bmtl.tasks import Tasks

STEPS, EVERY, RATE = 300, 10, 0.01
ALONE = 1e-6
"""Affinity of a task to itself where it is trained alone, as in the code of Fifty et al."""

Sets = dict[str, frozenset[str]]
"""Task to the set that serves it."""


class _Network(torch.nn.Module):
    """A tanh layer for all tasks and a linear head each."""

    def __init__(self, n_inputs: int, width: int, families: list[str]) -> None:
        super().__init__()
        self.trunk = torch.nn.Sequential(torch.nn.Linear(n_inputs, width), torch.nn.Tanh())
        self.heads = torch.nn.Linear(width, len(families))
        self.log_noise = torch.nn.Parameter(torch.zeros(len(families)))
        self.families = families

    def losses(self, X: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
        """Mean negative log-likelihood of each task over its cells, (T,)."""
        eta = self.heads(self.trunk(X))
        out = []
        for t, family in enumerate(self.families):
            there = torch.isfinite(Y[:, t])
            f, y = eta[there, t], Y[there, t]
            if family == "gaussian":
                out.append((0.5 * ((y - f) / self.log_noise[t].exp()) ** 2 + self.log_noise[t]).mean())
            elif family == "bernoulli":
                out.append(torch.nn.functional.binary_cross_entropy_with_logits(f, y))
            elif family == "poisson":
                out.append((f.exp() - y * f).mean())
            else:
                raise ValueError(f"no loss for {family}")
        return torch.stack(out)


def affinities(tasks: Tasks, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inter-task affinity (of the column's task, from a step on the row's), and cosine of gradients, (T, T) each.

    Means over training of 1 − L_j(θ − η ∇L_i) / L_j(θ) (Fifty et al., "Efficiently identifying task groupings for
    multi-task learning", NeurIPS 2021) and of the cosine of ∇L_i and ∇L_j, in the trunk. Losses can be negative, so
    their size is divided by instead.
    """
    Y = np.full((tasks.n_rows, tasks.n_tasks), np.nan)
    for t, rows in enumerate(tasks.rows):
        Y[rows, t] = tasks.y_std(t)
    X, outcomes = torch.tensor(tasks.Z, dtype=torch.float32), torch.tensor(Y, dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _Network(X.shape[1], width, [family.name for family in tasks.families])
    shared = list(network.trunk.parameters())
    adam = torch.optim.Adam(network.parameters(), lr=RATE)
    affinity, cosine = np.zeros((2, tasks.n_tasks, tasks.n_tasks))
    looks = range(0, STEPS, EVERY)
    for step in range(STEPS):
        losses = network.losses(X, outcomes)
        if step in looks:
            gradients = [torch.autograd.grad(own, shared, retain_graph=True) for own in losses]
            flat = torch.stack([torch.cat([part.ravel() for part in own]) for own in gradients])
            unit = flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-12)
            cosine += (unit @ unit.T).numpy() / len(looks)
            before = losses.detach()
            for i, own in enumerate(gradients):
                _move(shared, own, -RATE)
                with torch.no_grad():
                    ahead = network.losses(X, outcomes)
                _move(shared, own, RATE)
                affinity[i] += ((before - ahead) / before.abs().clamp(min=1e-3)).numpy() / len(looks)
        adam.zero_grad()
        losses.sum().backward()
        adam.step()
    return affinity, cosine


def _move(params: list[torch.nn.Parameter], by: tuple[torch.Tensor, ...], times: float) -> None:
    with torch.no_grad():
        for own, part in zip(params, by, strict=True):
            own += times * part


def by_affinity(names: tuple[str, ...], affinity: np.ndarray) -> Sets:
    """The sets in which the tasks' mean affinity from their companions is greatest."""
    losses: dict[frozenset[str], dict[str, float]] = {}
    for size in range(1, len(names) + 1):
        for members in combinations(range(len(names)), size):
            mean = {
                names[j]: -ALONE if size == 1 else -float(np.mean([affinity[i, j] for i in members if i != j]))
                for j in members
            }
            losses[frozenset(mean)] = mean
    return _served(grouping.search(losses, budget=len(names)))


def by_pairs(losses: dict[frozenset[str], dict[str, float]]) -> Sets:
    """Standley et al.'s higher-order approximation: losses of larger sets are means of those of their pairs."""
    names = frozenset().union(*losses)
    every = grouping.higher_order(losses) if len(names) > 2 else losses
    return _served(grouping.search(every, budget=len(names)))


def _served(found: grouping.Grouping) -> Sets:
    return {task: network.tasks for task, network in found.serves.items()}

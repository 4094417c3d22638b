"""Gradients without their conflicting parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from bmtl.tasks import Tasks
from bmtl.training.weightings._base import Step, Update, gradients


@dataclass(frozen=True)
class PCGrad:
    """Each task's gradient on the trunk loses what opposes the others', taken in random order; then they are summed.

    ``g_i ← g_i − (g_i·g_j / ‖g_j‖²) g_j`` for every j with g_i·g_j < 0 (Yu et al., "Gradient surgery for multi-task
    learning", NeurIPS 2020, algorithm 1). Heads descend their own losses.
    """

    noise: ClassVar[str] = "fixed"
    pulls: ClassVar[bool] = True

    def start(self, tasks: Tasks, seeds: Sequence[int], like: torch.Tensor) -> Any:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    def update(self, state: list[torch.Generator], step: Step) -> tuple[Update, list[torch.Generator]]:
        pulls = gradients(step)
        tasks = pulls.shape[1]
        orders = [torch.rand(tasks, tasks, generator=own).argsort(dim=-1) for own in state]
        share = shares(pulls @ pulls.mT, torch.stack(orders).to(pulls.device))
        return Update(torch.ones_like(step.losses), torch.einsum("rt,rtd->rd", share, pulls)), state


def shares(gram: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """How often each gradient is in the sum of the projected ones, ``runs × T``, from their inner products.

    A projected gradient is a combination of all; its inner products follow from those of the gradients.

    Parameters
    ----------
    gram : tensor, shape (runs, T, T)
    order : tensor of int, shape (runs, T, T)
        ``order[r, i]``: in which order gradient i meets the others.
    """
    own = torch.arange(gram.shape[-1], device=gram.device)
    mix = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device).expand_as(gram).clone()
    for other in order.unbind(dim=-1):
        row = torch.gather(gram, 1, other[..., None].expand_as(gram))
        inner = (mix * row).sum(-1)
        square = torch.gather(row, 2, other[..., None])[..., 0]
        opposed = (inner < 0) & (other != own)
        # A gradient of zero opposes nothing; its square must not be divided by all the same.
        part = torch.where(opposed, inner / torch.where(opposed, square, 1.0), 0.0)
        mix.scatter_add_(2, other[..., None], -part[..., None])
    return mix.sum(dim=1)

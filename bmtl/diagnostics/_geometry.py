"""The surroundings of a point on the way: how sharp the loss is, how much outcomes say, whether cells agree."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from bmtl.data import take_rows
from bmtl.training.runs import Runs

MEASURES = ("sharpness", "fisher", "coherence")

CELLS = 64
"""Cells a task, evenly spread, whose own gradients are computed."""

STEPS = 12
"""Steps of Lanczos iteration: products with the Hessian."""


def geometry(runs: Runs) -> dict[str, np.ndarray]:
    """Measures of each task's loss by the trunk, ``runs × T``.

    ``sharpness`` is the largest eigenvalue of the Hessian of the mean loss, by Lanczos iteration. ``fisher`` is
    the trace of the Fisher information: the mean squared length of a cell's gradient of the log-likelihood, at an
    outcome drawn from the network. ``coherence`` is ``‖mean g‖² / mean ‖g‖²`` over the cells' gradients at their own
    outcomes: 1 if all agree, 1 / cells if they are orthogonal.
    """
    with torch.enable_grad():
        found = [(_sharpness(runs, t), *_by_cell(runs, t)) for t in range(runs.design.n_tasks)]
    return {
        name: torch.stack([own[k] for own in found], dim=1).detach().cpu().numpy() for k, name in enumerate(MEASURES)
    }


def _flat(parts: tuple[torch.Tensor, ...], lead: int) -> torch.Tensor:
    return torch.cat([own.flatten(lead) for own in parts], dim=-1)


def _sharpness(runs: Runs, t: int) -> torch.Tensor:
    trunk = runs.trunk
    loss = runs.losses(runs.arrays)[:, t].sum()
    gradient = _flat(torch.autograd.grad(loss, trunk, create_graph=True), 1)
    basis: list[torch.Tensor] = []
    # From the gradient itself, which lies mostly in the directions of large eigenvalues.
    ahead, diagonal, beside = gradient.detach(), [], []
    for _ in range(min(STEPS, gradient.shape[1])):
        size = torch.linalg.vector_norm(ahead, dim=1, keepdim=True)
        v = ahead / torch.clamp(size, min=torch.finfo(size.dtype).tiny)
        beside.append(size[:, 0])
        basis.append(v)
        ahead = _flat(torch.autograd.grad((gradient * v).sum(), trunk, retain_graph=True), 1)
        diagonal.append((v * ahead).sum(dim=1))
        for own in basis:
            # Against all before, not the last two alone: rounding would bring directions back.
            ahead = ahead - (own * ahead).sum(dim=1, keepdim=True) * own
    off = torch.stack(beside, dim=1)[:, 1:]
    small = torch.diag_embed(torch.stack(diagonal, dim=1)) + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    return torch.linalg.eigvalsh(small)[:, -1]


def _by_cell(runs: Runs, t: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Trace of the Fisher information, and coherence."""
    (block,) = (own for own in runs.blocks(runs.arrays) if t in own.tasks)
    j = int(np.flatnonzero(block.tasks == t)[0])
    long = "task" in runs.arrays
    rows = torch.nonzero(block.mask & (runs.arrays["task"] == t) if long else block.mask[j])[:, 0]
    spread = torch.linspace(0, len(rows) - 1, min(CELLS, len(rows)), device=rows.device).round().long()
    values: Mapping[str, torch.Tensor] = take_rows(runs.arrays, rows[spread])
    (block,) = (own for own in runs.blocks(values) if t in own.tasks)
    engine = runs.run(values)
    outcome = engine.outcome(block)
    own, drawn = (cells if long else cells[:, j] for cells in (
        outcome.log_prob(block.y), outcome.log_prob(outcome.sample())
    ))
    each = torch.eye(own.shape[1], device=own.device)[:, None, :].expand(-1, own.shape[0], -1)

    def gradients(cells: torch.Tensor) -> torch.Tensor:
        """``cells × runs × D``."""
        return _flat(torch.autograd.grad(cells, runs.trunk, each, retain_graph=True, is_grads_batched=True), 2)

    observed = gradients(own)
    squares = (observed**2).sum(dim=-1).mean(dim=0)
    coherence = (observed.mean(dim=0) ** 2).sum(dim=-1) / torch.clamp(squares, min=torch.finfo(squares.dtype).tiny)
    return (gradients(drawn) ** 2).sum(dim=-1).mean(dim=0), coherence

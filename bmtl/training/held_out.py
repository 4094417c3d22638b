"""Rows that are not trained on."""

from __future__ import annotations

import numpy as np

from bmtl._inputs import MIN_CELLS
from bmtl.errors import TaskError
from bmtl.tasks import Tasks


def split(tasks: Tasks, share: float, seed: int) -> tuple[Tasks, Tasks | None]:
    """Tasks to train on and, of a share of the rows at random, tasks to judge by; both standardised as all rows are.

    Raises
    ------
    ValueError
        If the share is not in [0, 1).
    TaskError
        If a task has fewer than three cells left to train on, or none to judge by.
    """
    if not 0 <= share < 1:
        raise ValueError(f"held_out must lie in [0, 1), got {share}")
    if share == 0:
        return tasks, None
    out = np.zeros(tasks.n_rows, dtype=bool)
    rng = np.random.default_rng([seed, 6])
    # Of rows that each belong to one task, the share of every task's.
    parts = [np.arange(tasks.n_rows)] if tasks.layout == "wide" else list(tasks.rows)
    for rows in parts:
        out[rng.permutation(rows)[: round(share * len(rows))]] = True
    masks = [out[rows] for rows in tasks.rows]
    for name, mask in zip(tasks.names, masks, strict=True):
        if np.sum(~mask) < MIN_CELLS or not mask.any():
            raise TaskError(
                f"task {name!r} has {np.sum(~mask)} cells to train on and {mask.sum()} to judge by, with "
                f"held_out={share:g} of the rows; it needs at least {MIN_CELLS} and 1"
            )
    return tasks.keep_cells([~mask for mask in masks]), tasks.keep_cells(masks)

"""Rows that are not trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
    return part(tasks, ~out, out, f"held_out={share:g} of the rows")


def part(tasks: Tasks, train: NDArray[np.bool_], out: NDArray[np.bool_], how: str) -> tuple[Tasks, Tasks]:
    """Tasks to train on and tasks to judge by, of rows under two masks; both standardised as all rows are.

    Raises
    ------
    TaskError
        If a task has fewer than three cells to train on, or none to judge by.
    """
    for name, rows in zip(tasks.names, tasks.rows, strict=True):
        if train[rows].sum() < MIN_CELLS or not out[rows].any():
            raise TaskError(
                f"task {name!r} has {train[rows].sum()} cells to train on and {out[rows].sum()} to judge by, with "
                f"{how}; it needs at least {MIN_CELLS} and 1"
            )
    kept, held = (tasks.keep_cells([mask[rows] for rows in tasks.rows]) for mask in (train, out))
    return kept, held

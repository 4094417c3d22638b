"""Which cells a step sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bmtl.tasks import Tasks

Cells = list[NDArray[np.intp]]
"""For each task the positions of the batch's cells among all of its cells."""


@dataclass(frozen=True)
class Sampling:
    """How often each task is seen, and in what batches.

    A task's share of the cells seen is ``p_t ∝ n_t^(1/temperature)`` (Arivazhagan et al., "Massively multilingual
    neural machine translation in the wild", 2019). What is minimised is ``T Σ_t p_t w_t L_t`` with mean losses L_t,
    whatever the batches.

    Parameters
    ----------
    batch_size : int, optional
        Cells a step. Default: all of every task; the shares are then factors on the losses.
    temperature : float
        ≥ 1. 1 is proportional to the tasks' cells, as in a joint likelihood; infinity is uniform.
    within_task : bool
        Whether all cells of a batch are of one task, drawn by the shares, instead of each task having its share of
        every batch (and one cell at least).

    Raises
    ------
    ValueError
        If a number is out of range, or batches within tasks have no size.
    """

    batch_size: int | None = None
    temperature: float = 1.0
    within_task: bool = False

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"Sampling needs a batch_size ≥ 1, got {self.batch_size}")
        if not self.temperature >= 1:
            raise ValueError(f"Sampling needs a temperature ≥ 1, got {self.temperature}")
        if self.within_task and self.batch_size is None:
            raise ValueError("Sampling within tasks needs a batch_size")

    def shares(self, n_cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share of each task, shape (T,)."""
        power = np.asarray(n_cells, dtype=float) ** (1.0 / self.temperature)
        return power / power.sum()


class Batches:
    """Batches of one run, without end.

    Every task goes through its cells in random order, again and again. Tasks that are observed on the same rows see
    them in the same order, so that a batch has few rows.

    Parameters
    ----------
    sampling : Sampling
        With a batch size.
    tasks : Tasks
    seed : int
    """

    def __init__(self, sampling: Sampling, tasks: Tasks, seed: int) -> None:
        self._sampling, self._rows, self._n_rows = sampling, tasks.rows, tasks.n_rows
        self._seed = seed
        self._rng = np.random.default_rng([seed, 4])
        self._share = sampling.shares(tasks.n_cells)
        self._left: Cells = [np.empty(0, dtype=np.intp) for _ in tasks.names]
        self._passes = [0] * tasks.n_tasks
        size = int(sampling.batch_size or 0)
        self._size = size
        self._sizes = np.maximum(1, np.rint(self._share * size)).astype(int)
        self.steps = -(-int(tasks.n_cells.sum()) // size)

    def epoch(self) -> Iterator[tuple[Cells, NDArray[np.float64]]]:
        """As many batches as hold all cells once, and the factor on each task's mean loss in each of them."""
        n_tasks = len(self._rows)
        for _ in range(self.steps):
            if not self._sampling.within_task:
                yield [self._next(t, size) for t, size in enumerate(self._sizes)], n_tasks * self._share
                continue
            drawn = self._rng.choice(n_tasks, p=self._share)
            cells = [self._next(t, self._size if t == drawn else 0) for t in range(n_tasks)]
            yield cells, np.where(np.arange(n_tasks) == drawn, float(n_tasks), 0.0)

    def _next(self, t: int, size: int) -> NDArray[np.intp]:
        """The next cells of a task: never one twice in a batch."""
        size = min(size, self._rows[t].size)
        if self._left[t].size < size:
            key = np.random.default_rng([self._seed, 5, self._passes[t]]).permutation(self._n_rows)
            self._passes[t] += 1
            order, left = np.argsort(key[self._rows[t]]), self._left[t]
            again = np.isin(order, left)
            self._left[t] = np.concatenate([left, order[~again], order[again]])
        found, self._left[t] = self._left[t][:size], self._left[t][size:]
        return found

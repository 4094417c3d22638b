"""Early stopping, task by task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Stopping:
    """A task stops once its held-out loss has not improved for some epochs, while the others go on.

    Its loss is dropped, and what only stopped tasks use is frozen: its head, intercept and noise, and its trunk if that
    is its own. On a shared trunk its predictions go on changing with the trunk; the history shows by how much.

    Parameters
    ----------
    patience : int
        Epochs without improvement, ≥ 1.
    min_gain : float
        What counts as improvement, in nats a cell, ≥ 0.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    patience: int = 50
    min_gain: float = 0.0

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ValueError(f"Stopping needs patience ≥ 1, got {self.patience}")
        if not self.min_gain >= 0:
            raise ValueError(f"Stopping needs min_gain ≥ 0, got {self.min_gain}")


class Watch:
    """The best held-out loss so far, and the epoch at which each task stopped; −1 before.

    Parameters
    ----------
    stopping : Stopping or None
        None never stops.
    shape : tuple of int
        Runs and tasks.
    """

    def __init__(self, stopping: Stopping | None, shape: tuple[int, int]) -> None:
        self._stopping = stopping
        self._best = np.full(shape, np.inf)
        self._since = np.zeros(shape, dtype=int)
        self.stopped = np.full(shape, -1)

    @property
    def active(self) -> np.ndarray:
        """Tasks that have not stopped, ``runs × T``."""
        return self.stopped < 0

    def look(self, epoch: int, losses: np.ndarray) -> None:
        """Take in the held-out losses of an epoch, ``runs × T``."""
        if self._stopping is None:
            return
        better = losses < self._best - self._stopping.min_gain
        self._best = np.where(better, losses, self._best)
        self._since = np.where(better, epoch, self._since)
        over = self.active & (epoch - self._since >= self._stopping.patience)
        self.stopped[over] = epoch

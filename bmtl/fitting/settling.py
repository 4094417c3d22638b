"""When to stop an optimiser that only sees a noisy objective."""

from __future__ import annotations

import numpy as np

CHUNK = 250
"""Steps between two looks at the objective."""

STAGES = (1.0, 0.3, 0.1)
"""Learning-rate factors, one after another."""

PATIENCE = 2
"""Chunks without improvement that end a stage."""

MIN_GAIN = 2e-4
"""Improvement of the loss a chunk, in nats an observed cell, below which more of it changes no verdict."""


WARMUP = (10.0, 10.0, 5.0, 2.0)
"""Factors on the likelihood in the first chunks: a prior felt from the start can trap a task at "no signal"."""

INIT_SCALE = 0.05
"""Standard deviation of the guide at the start, on the unconstrained scale."""

EVALUATION_DRAWS = 100
"""Guide draws behind the final ELBO of each restart."""


class Settling:
    """Watches the loss of one or several runs and lowers the learning rate as they settle.

    A run's stage ends once `PATIENCE` chunks in a row have not improved on its best by more than `MIN_GAIN` per cell;
    after the last stage it has settled, and stays as it is while others go on.

    Parameters
    ----------
    runs : int
        Number of runs trained side by side.
    cells : float
        Observed cells behind the loss.
    """

    def __init__(self, runs: int, cells: float) -> None:
        self.tolerance = MIN_GAIN * cells
        self.stage = np.zeros(runs, dtype=int)
        self.best = np.full(runs, np.inf)
        self.waited = np.zeros(runs, dtype=int)
        self.trace: list[np.ndarray] = []

    @property
    def settled(self) -> np.ndarray:
        """Which runs have settled."""
        return self.stage == len(STAGES)

    @property
    def factor(self) -> np.ndarray:
        """Factor on the learning rate of each run now; 0 once it has settled."""
        return np.array([*STAGES, 0.0])[self.stage]

    @property
    def likelihood(self) -> float:
        """Factor on the likelihood now: above one in the warm-up only."""
        return WARMUP[len(self.trace)] if len(self.trace) < len(WARMUP) else 1.0

    def look(self, losses: np.ndarray) -> None:
        """Take in one chunk's losses, ``runs × steps``."""
        loss = np.mean(losses, axis=1)
        if len(self.trace) < len(WARMUP):
            # Another objective, not to be compared with what follows.
            self.trace.append(np.full_like(loss, np.nan))
            return
        self.trace.append(loss)
        better = loss < self.best - self.tolerance
        self.waited = np.where(better, 0, self.waited + 1)
        self.best = np.minimum(self.best, loss)
        over = (self.waited >= PATIENCE) & ~self.settled
        self.stage += over
        self.waited[over] = 0
        self.best[over] = loss[over]

"""When to stop an optimiser that only sees a noisy objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

CHUNK = 250
"""Steps between two looks at the objective."""

STAGES = (1.0, 0.3, 0.1)
"""Learning-rate factors, one after another."""

WINDOW = 4
"""Chunks whose mean loss is compared with that of as many before them: single ones are too noisy."""

DUE = (0.6, 0.8)
"""Shares of all chunks after which the later stages begin in any case: at a high rate some runs never settle."""

MIN_GAIN = 2e-4
"""Improvement of the loss a chunk, in nats an observed cell, below which more of it changes no verdict."""


WARMUP = (10.0, 10.0, 5.0, 2.0)
"""Factors on the likelihood in the first chunks: a prior felt from the start can trap a task at "no signal"."""

INIT_SCALE = 0.05
"""Standard deviation of the guide at the start, on the unconstrained scale."""

EVALUATION_DRAWS = 100
"""Guide draws behind the final ELBO of each restart."""


def chunks(max_steps: int) -> int:
    """Chunks that hold so many steps."""
    return -(-max_steps // CHUNK)


class Settling:
    """Watches the loss of one or several runs and lowers the learning rate as they settle.

    A run's stage ends once the mean loss of its last `WINDOW` chunks is not better than that of the `WINDOW` before by
    more than `MIN_GAIN` a cell and chunk; after the last stage it has settled, and stays as it is while others go on.

    Parameters
    ----------
    runs : int
        Number of runs trained side by side.
    cells : float
        Observed cells behind the loss.
    max_chunks : int
        All that there can be.
    warm : bool
        Whether runs start near where they will end: then without the warm-up and the first stage.
    """

    def __init__(self, runs: int, cells: float, max_chunks: int, warm: bool = False) -> None:
        self.warmup = () if warm else WARMUP
        self.max_chunks = max_chunks
        self.due = [round(share * max_chunks) for share in DUE]
        self.tolerance = MIN_GAIN * cells
        self.stage = np.full(runs, int(warm))
        self.since = np.full(runs, len(self.warmup))
        self.trace: list[np.ndarray] = []
        self.failed = np.zeros(runs, dtype=bool)

    @property
    def settled(self) -> np.ndarray:
        """Which runs have settled, or failed."""
        return self.stage == len(STAGES)

    @property
    def factor(self) -> np.ndarray:
        """Factor on the learning rate of each run now; 0 once it has settled."""
        return np.array([*STAGES, 0.0])[self.stage]

    @property
    def last(self) -> np.ndarray:
        """Chunks of each run in the last stage, with the present one: it ends at their mean. 0 in others."""
        return np.where(self.stage == len(STAGES) - 1, len(self.trace) - self.since + 1, 0)

    @property
    def likelihood(self) -> float:
        """Factor on the likelihood now: above one in the warm-up only."""
        return self.warmup[len(self.trace)] if len(self.trace) < len(self.warmup) else 1.0

    def state(self) -> dict[str, Any]:
        """What it has seen and decided so far."""
        return {"stage": self.stage, "since": self.since, "trace": self.trace, "failed": self.failed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier `state` of the same runs."""
        vars(self).update(state)

    def look(self, losses: np.ndarray) -> None:
        """Take in one chunk's losses, ``runs × steps``.

        A run has failed if more than half of them are not finite. Those of single steps are left out, as their
        gradients are.
        """
        finite = np.isfinite(losses)
        self.failed |= np.mean(finite, axis=1) < 0.5
        finite |= ~finite.any(axis=1, keepdims=True)
        loss = np.mean(losses, axis=1, where=finite, dtype=float)
        self.stage[self.failed] = len(STAGES)
        if len(self.trace) < len(self.warmup):
            # Another objective, not to be compared with what follows.
            self.trace.append(np.full_like(loss, np.nan))
            return
        self.trace.append(loss)
        if len(self.trace) < len(self.warmup) + 2 * WINDOW:
            return
        # Losses of runs that fail can be infinite.
        with np.errstate(invalid="ignore"):
            gain = np.mean(self.trace[-2 * WINDOW : -WINDOW], axis=0) - np.mean(self.trace[-WINDOW:], axis=0)
        long = len(self.trace) - self.since >= 2 * WINDOW
        due = self.stage < sum(len(self.trace) >= mark for mark in self.due)
        over = (due | long & ~(gain > WINDOW * self.tolerance)) & ~self.settled
        self.stage += over
        self.since[over] = len(self.trace)

"""Many seeds: what one run hides, task by task."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bmtl.arrangement import Arrangement
from bmtl.diagnostics._training import Study, mean_and_se
from bmtl.findings import Finding
from bmtl.tasks import Tasks
from bmtl.trunks import Trunk

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLEAR = 2.0
"""Paired standard errors beyond which a difference is not test noise."""


@dataclass(frozen=True, eq=False)
class Restarts:
    """Runs that differ in their seed only. Made by `restarts`.

    Attributes
    ----------
    names : tuple of str
    seeds : tuple of int
    pointwise : tuple of ndarray, one a task, shape (runs, cells)
        Log predictive density of the held-out cells, nats in the user's units.
    """

    names: tuple[str, ...]
    seeds: tuple[int, ...]
    pointwise: tuple[np.ndarray, ...]

    @cached_property
    def scores(self) -> np.ndarray:
        """Mean log predictive density of each run's held-out cells, ``runs × T``."""
        return np.column_stack([own.mean(axis=1) for own in self.pointwise])

    @cached_property
    def pareto(self) -> np.ndarray:
        """Whether no other run is as good on every task and better on one, ``(runs,)``."""
        s = self.scores
        return np.array([not np.any((s >= own).all(axis=1) & (s > own).any(axis=1)) for own in s])

    def table(self) -> pd.DataFrame:
        """One row a run and task.

        Returns
        -------
        DataFrame
            Columns run, seed, task, lpd, se, aggregate (mean over tasks of the run's lpd) and pareto.
        """
        rows = [
            (run, self.seeds[run], name, *mean_and_se(self.pointwise[t][run]), own.mean(), self.pareto[run])
            for run, own in enumerate(self.scores) for t, name in enumerate(self.names)
        ]
        return pd.DataFrame(rows, columns=["run", "seed", "task", "lpd", "se", "aggregate", "pareto"])

    @cached_property
    def _differences(self) -> tuple[list[tuple[int, int]], np.ndarray, np.ndarray]:
        """Pairs of runs, and by how much the first is better on each task, with paired errors: ``pairs × T``."""
        both = list(combinations(range(len(self.seeds)), 2))
        found = np.array([[mean_and_se(own[a] - own[b]) for own in self.pointwise] for a, b in both])
        return both, found[..., 0], found[..., 1]

    @cached_property
    def _clear(self) -> np.ndarray:
        _, gain, se = self._differences
        return np.abs(gain) > CLEAR * se

    def pairs(self) -> pd.DataFrame:
        """One row a pair of runs.

        Returns
        -------
        DataFrame
            Columns run_a, run_b, difference (of the aggregates), se, tied (within two paired standard errors of test
            noise), a_better, b_better (the tasks on which one is better beyond two) and trap: tied, and yet each is
            the better one of some task.
        """
        both, gain, se = self._differences
        rows = []
        for (a, b), own, error, clear in zip(both, gain, se, self._clear, strict=True):
            total, spread = own.mean(), np.sqrt(np.sum(error**2)) / len(own)
            better = [[name for name, g, c in zip(self.names, sign * own, clear, strict=True) if c and g > 0]
                      for sign in (1, -1)]
            tied = abs(total) <= CLEAR * spread
            rows.append((a, b, total, spread, tied, *map(", ".join, better), tied and all(better)))
        columns = ["run_a", "run_b", "difference", "se", "tied", "a_better", "b_better", "trap"]
        return pd.DataFrame(rows, columns=columns)

    def misleading(self) -> pd.DataFrame:
        """The chance that one run misleads: two drawn at random differ beyond test noise, though only in their seed.

        Returns
        -------
        DataFrame
            Columns task, p_misled (share of pairs of runs that differ by more than two paired standard errors), sd
            (of the lpd over runs), worst, best. The last row, ``any``, is of any task.
        """
        rows = [
            (name, self._clear[:, t].mean(), own.std(ddof=1), own.min(), own.max())
            for t, (name, own) in enumerate(zip(self.names, self.scores.T, strict=True))
        ]
        rows.append(("any", self._clear.any(axis=1).mean(), np.nan, np.nan, np.nan))
        return pd.DataFrame(rows, columns=["task", "p_misled", "sd", "worst", "best"])

    def findings(self) -> list[Finding]:
        """A sentence a task on what one run hides, and one on every two tasks that runs trade against each other."""
        found = [
            Finding("restarts", (str(row.task),), (
                f"Of {len(self.seeds)} runs that differ in their seed only, two differ on {row.task} beyond test noise "
                f"with probability {row.p_misled:.0%}; their log density a held-out cell goes from {row.worst:+.2f} to "
                f"{row.best:+.2f} nats."
            ))
            for row in self.misleading().iloc[:-1].itertuples()
        ]
        _, gain, _ = self._differences
        sign, tied = np.sign(gain) * self._clear, self.pairs()["tied"].to_numpy()
        for a, b in combinations(range(len(self.names)), 2):
            traded = int(np.sum(tied & (sign[:, a] * sign[:, b] < 0)))
            if traded:
                one, other = self.names[a], self.names[b]
                found.append(Finding("restarts", (one, other), (
                    f"Runs trade {one} against {other}: of {len(tied)} pairs of runs, {traded} tie in the mean over "
                    f"tasks although one is clearly better on {one} and the other on {other}."
                )))
        return found

    def plot(self) -> Figure:
        """Scores of all runs on each task, a line a run; those on the Pareto front in colour."""
        from bmtl.diagnostics.training_plots import restarts as draw

        return draw(self)

    def __repr__(self) -> str:
        pairs = self.pairs()
        lines = [
            f"bmtl.Restarts: {len(self.seeds)} runs, {self.pareto.sum()} on the Pareto front",
            f"{pairs['tied'].mean():.0%} of the pairs tie in aggregate; {pairs['trap'].mean():.0%} tie although each "
            "is the better one of some task",
        ]
        return "\n".join([*lines, self.misleading().to_string(index=False, float_format=lambda v: f"{v:.3g}")])


def restarts(
    trunk: Trunk,
    tasks: Tasks,
    *,
    runs: int = 20,
    held_out: float = 0.25,
    arrangement: Arrangement | None = None,
    device: str = "auto",
    seed: int = 0,
    executor: Executor | None = None,
    **options: Any,
) -> Restarts:
    """Train with many seeds, and compare the runs task by task on the same held-out rows.

    An average over tasks can be the same for runs that are good at different tasks (the "aggregate trap").

    Parameters
    ----------
    trunk, tasks, arrangement, device, **options
        As in `bmtl.train`.
    runs : int
        ≥ 2; their seeds are ``seed``, ``seed + 1``, ….
    held_out : float
        In (0, 1): share of the rows to judge by.
    seed : int
        Of the held-out rows and the first run.
    executor : concurrent.futures.Executor, optional
        Whose workers train. The result is the same with and without.

    Raises
    ------
    ValueError, TypeError, TaskError, FitError
        As `bmtl.train`, and if there are fewer than two runs or nothing is held out.
    """
    study = Study.of(tasks, runs, held_out, device, seed, options, least=2)
    if study.held is None:
        raise ValueError("restarts are judged by held-out rows: held_out must be > 0")
    ((found, _),) = study.judge([(trunk, arrangement)], executor)
    return Restarts(tasks.names, study.seeds, tuple(found))


__all__ = ["Restarts", "restarts"]

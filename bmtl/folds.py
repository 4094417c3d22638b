"""Which rows are left out together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmtl.errors import TaskError
from bmtl.fitting.checkpoint import digest
from bmtl.tasks import Tasks

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Folds:
    """How refits leave rows out. Make one with `by_row`, `by_group` or `by_time`.

    Attributes
    ----------
    kind : {"row", "group", "time"}
    k : int
        Parts that are left out, one after another; fewer if there are fewer groups or times.
    by : str or sequence, optional
        An input of the tasks, or one value a row.
    """

    kind: str
    k: int
    by: Any = None

    def __post_init__(self) -> None:
        if self.k < 1 or (self.k < 2 and self.kind != "time"):
            raise ValueError(f"folds must be at least {1 if self.kind == 'time' else 2}, got {self.k}")

    @classmethod
    def by_row(cls, k: int = 5) -> Folds:
        """Rows at random: for rows that are independent given the inputs."""
        return cls("row", k)

    @classmethod
    def by_group(cls, by: Any, k: int = 5) -> Folds:
        """Whole groups of rows (people, sites): will the verdict hold for groups that are not in the data?

        Parameters
        ----------
        by : str or sequence of n_rows labels
            An input of the tasks, or the group of each row.
        """
        return cls("group", k, by)

    @classmethod
    def by_time(cls, by: Any, k: int = 5) -> Folds:
        """Later rows, given the earlier ones only: will the verdict hold next year?

        Rows are cut by time into k + 1 blocks of about equal size; each but the first is predicted from all before.

        Parameters
        ----------
        by : str or sequence of n_rows numbers or dates
            An input of the tasks, or the time of each row. Rows of one time stay together.
        """
        return cls("time", k, by)

    @property
    def in_words(self) -> str:
        """How rows are left out."""
        return {"row": "rows left out", "group": "groups left out", "time": "later rows left out"}[self.kind]

    def spec(self, tasks: Tasks) -> dict[str, Any]:
        """What decides which rows are left out, as JSON."""
        codes = None if self.kind == "row" else digest(self._codes(tasks)[1])
        return {"kind": self.kind, "k": self.k, "codes": codes}

    def split(self, tasks: Tasks, seed: int) -> list[tuple[Mask, Mask]]:
        """Rows to learn from and rows to predict, for each fold.

        Raises
        ------
        TaskError
            If an input is not there, values are missing or not one a row, or there are too few rows, groups or times.
        """
        rng = np.random.default_rng([seed, 1])
        n = tasks.n_rows
        if self.kind == "row":
            if self.k > n:
                raise TaskError(f"folds must lie between 2 and the {n} rows, got {self.k}")
            part = rng.permutation(np.arange(n) % self.k)
            return [(part != fold, part == fold) for fold in range(self.k)]
        levels, code = self._codes(tasks)
        counts = np.bincount(code)
        if len(levels) < 2:
            raise TaskError(f"folds by {self.kind} need two {self.kind}s, but all rows have {str(levels[0])!r}")
        if self.kind == "group":
            k = min(self.k, len(levels))
            fold_of, size = np.empty(len(levels), dtype=int), np.zeros(k)
            # Large groups first, each to the smallest fold; in random order among equals.
            for group in sorted(rng.permutation(len(levels)), key=lambda own: -counts[own]):
                fold_of[group] = np.argmin(size)
                size[fold_of[group]] += counts[group]
            return [(fold_of[code] != fold, fold_of[code] == fold) for fold in range(k)]
        # A time belongs to the block in which the middle of its rows lies.
        middle = (np.cumsum(counts) - 0.5 * counts) / n
        _, block = np.unique(np.minimum((middle * (self.k + 1)).astype(int), self.k), return_inverse=True)
        if block.max() == 0:
            block = (np.arange(len(levels)) > 0).astype(int)
        return [(block[code] < fold, block[code] == fold) for fold in range(1, block.max() + 1)]

    def _codes(self, tasks: Tasks) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Sorted distinct values, and the position of each row's among them."""
        values: NDArray[Any]
        if isinstance(self.by, str):
            if self.by not in tasks.inputs:
                raise TaskError(
                    f"folds by {self.kind}: no input {self.by!r}; give one value a row, or one of {list(tasks.inputs)}"
                )
            values = np.asarray(tasks.X)[:, tasks.inputs.index(self.by)]
        else:
            values = np.asarray(self.by)
        if values.shape != (tasks.n_rows,):
            raise TaskError(f"folds by {self.kind} need one value for each of {tasks.n_rows} rows, got {values.shape}")
        missing = np.array([value is None or value != value for value in values])
        if missing.any():
            raise TaskError(f"folds by {self.kind}: no value at row {np.flatnonzero(missing)[0]}")
        levels, code = np.unique(values, return_inverse=True)
        return levels, code


__all__ = ["Folds"]

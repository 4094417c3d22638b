"""Which tasks age, and does sharing a trunk make them age faster?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bmtl.arrangement import Arrangement
from bmtl.diagnostics._training import ARMS, Study, arms, of_runs, pointwise
from bmtl.diagnostics.restarts import CLEAR
from bmtl.findings import Finding, signed
from bmtl.folds import Folds
from bmtl.tasks import Tasks
from bmtl.training.held_out import part
from bmtl.trunks import Trunk

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Parts = list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]
"""Rows to learn from and rows to predict."""

WAYS = ("forward", "random")
"""From earlier rows, and from as many rows of any time."""


@dataclass(frozen=True, eq=False)
class Drift:
    """Later cells, predicted from earlier rows and from rows of any time. Made by `drift`.

    Attributes
    ----------
    names : tuple of str
    pointwise : dict
        Arm (``shared``, ``single``) to way (``forward``, ``random``) to a list by task of arrays ``runs × cells``: log
        predictive density of the later cells, nats in the user's units, the same cells in the same order in all.
    block : list of ndarray
        For each task which block of time each of these cells is in, from 1.
    """

    names: tuple[str, ...]
    pointwise: dict[str, dict[str, list[np.ndarray]]]
    block: list[np.ndarray]

    def table(self) -> pd.DataFrame:
        """One row an arm, block of time and task.

        Returns
        -------
        DataFrame
            Columns arm, block, task, n, forward, random (mean log predictive density a cell, from earlier rows and from
            as many rows of any time), ageing (their difference: below 0 the task ages) and se (of the difference,
            paired over cells, and from runs).
        """
        rows = []
        for arm in ARMS:
            for t, name in enumerate(self.names):
                for block in np.unique(self.block[t]):
                    cells = self.block[t] == block
                    both = [self.pointwise[arm][way][t][:, cells] for way in WAYS]
                    means = [own.mean() for own in both]
                    rows.append((arm, block, name, cells.sum(), *means, *_ageing(*both)))
        table = pd.DataFrame(rows, columns=["arm", "block", "task", "n", "forward", "random", "ageing", "se"])
        return table.sort_values(["arm", "block"], kind="stable", ignore_index=True)

    def summary(self) -> pd.DataFrame:
        """One row a task, over all later cells; what ages worst is first.

        Returns
        -------
        DataFrame
            Columns task, ageing_shared, se_shared, ageing_single, se_single, difference (of the two: below 0 sharing
            ages worse), se, ages (the arms that age beyond two standard errors: ``shared``, ``single``, ``both``,
            ``neither``) and worse (the arm that ages worse beyond them, or ``neither``).
        """
        rows = []
        for t, name in enumerate(self.names):
            shared, single = ([self.pointwise[arm][way][t] for way in WAYS] for arm in ARMS)
            each = [_ageing(*shared), _ageing(*single)]
            difference, se = _ageing(*(a - b for a, b in zip(shared, single, strict=True)))
            old = [arm for arm, (mean, error) in zip(ARMS, each, strict=True) if mean < -CLEAR * error]
            ages = {0: "neither", 1: "".join(old), 2: "both"}[len(old)]
            worse = "neither" if abs(difference) <= CLEAR * se else ARMS[int(difference > 0)]
            rows.append((name, *each[0], *each[1], difference, se, ages, worse))
        columns = ["task", "ageing_shared", "se_shared", "ageing_single", "se_single", "difference", "se", "ages",
                   "worse"]
        table = pd.DataFrame(rows, columns=columns)
        worst = table[["ageing_shared", "ageing_single"]].min(axis=1)
        return table.loc[worst.sort_values(kind="stable").index].reset_index(drop=True)

    def findings(self) -> list[Finding]:
        """A sentence a task: whether it ages, and on which trunk faster."""
        return [Finding("drift", (str(row.task),), _said(row)) for row in self.summary().itertuples()]

    def plot(self) -> Figure:
        """What each task loses by age in both arms, with two standard errors."""
        from bmtl.diagnostics.training_plots import drift as draw

        return draw(self)

    def __repr__(self) -> str:
        table = self.summary().to_string(index=False, float_format=lambda v: f"{v:.3g}")
        return f"bmtl.Drift: later cells predicted from earlier rows, against rows of any time, nats a cell\n{table}"


def _ageing(forward: np.ndarray, random: np.ndarray) -> tuple[float, float]:
    """Mean difference of scores ``runs × cells`` and its standard error.

    There is one past to learn from. Had it been any other as many rows, its score would have varied as those do that
    the runs at random learn from: that is its own error, beside that of their mean.
    """
    cells = forward.mean(axis=0) - random.mean(axis=0)
    return float(cells.mean()), float(np.sqrt(cells.var() / cells.size + (len(random) + 1) * of_runs(random)))


def _said(row: Any) -> str:
    """A row of the summary in words."""
    shared, single = signed(row.ageing_shared, row.se_shared), signed(row.ageing_single, row.se_single)
    says = {"neither": "does not age measurably", "both": "ages", "shared": "ages on a shared trunk",
            "single": "ages on a trunk of its own"}[row.ages]
    text = (
        f"{row.task} {says}: learning from earlier rows, instead of as many of any time, changes the log density of "
        f"its later cells by {shared} nats a cell on a shared trunk and by {single} on one of its own."
    )
    faster = {"shared": " Sharing makes it age faster.", "single": " Sharing makes it age more slowly."}
    return text + faster.get(row.worse, "")


def drift(
    trunk: Trunk,
    tasks: Tasks,
    column: Any,
    *,
    folds: int = 5,
    runs: int = 5,
    device: str = "auto",
    seed: int = 0,
    **options: Any,
) -> Drift:
    """Predict later rows from earlier ones, and the same rows from as many others of any time.

    Rows are cut by time as `bmtl.Folds.by_time` cuts them: each block but the first is predicted from all rows before
    it. Against that stand random parts of the same rows, of the same sizes, each predicted from as many rows as its
    block was, drawn from all others; every run draws its own. Both ways predict each cell once a run, from as much
    data: what is lost is lost to time.
    Cells are taken as independent; of rows that resemble their neighbours in time, errors are too small.

    Parameters
    ----------
    trunk, tasks, device, **options
        As in `bmtl.train`. A time among the inputs is extrapolated.
    column : str or sequence of n_rows numbers or dates
        An input of the tasks, or the time of each row.
    folds : int
        Blocks of time that are predicted, ≥ 1.
    runs : int
        Seeds, ≥ 2: ``seed``, ``seed + 1``, …; also of the random parts.

    Raises
    ------
    ValueError, TypeError, TaskError, FitError
        As `bmtl.train` and `bmtl.Folds.by_time`, and if there are fewer than two tasks or runs, or too few cells of a
        task in a part.
    """
    tasks.require(2, "drift")
    study = Study.of(tasks, runs, 0.0, device, seed, options, least=2)
    forward = Folds.by_time(column, folds).split(tasks, seed)
    at_random = [(replace(study, seeds=(own,)), _at_random(forward, own)) for own in study.seeds]
    block = np.sum([number * out for number, (_, out) in enumerate(forward, 1)], axis=0)
    later = [rows[block[rows] > 0] for rows in tasks.rows]

    def predicted(own: Study, parts: Parts, arrangement: Arrangement) -> list[np.ndarray]:
        """Scores of later cells in the order of the tasks' own, whichever part predicts them."""
        cells = [np.empty((len(own.seeds), len(rows))) for rows in later]
        for train, out in parts:
            kept, held = part(tasks, train, out, f"{out.sum()} rows predicted from {train.sum()}")
            scores = pointwise(replace(own, train=kept, held=held).follow(trunk, arrangement), held)
            for rows, target, score in zip(later, cells, scores, strict=True):
                target[:, out[rows]] = score
        return cells

    found = {}
    for arm, arrangement in arms(tasks.names).items():
        each = [predicted(own, parts, arrangement) for own, parts in at_random]
        random = [np.concatenate(own) for own in zip(*each, strict=True)]
        found[arm] = dict(zip(WAYS, (predicted(study, forward, arrangement), random), strict=True))
    return Drift(tasks.names, found, [block[rows] for rows in later])


def _at_random(forward: Parts, seed: int) -> Parts:
    """The same rows to predict in random parts, from as many rows: sizes are those of the folds."""
    rng = np.random.default_rng([seed, 7])
    (rows,) = np.nonzero(np.logical_or.reduce([out for _, out in forward]))
    sizes = np.cumsum([out.sum() for _, out in forward])[:-1]
    parts: Parts = []
    for (train, _), chosen in zip(forward, np.split(rng.permutation(rows), sizes), strict=True):
        out, kept = np.zeros_like(train), np.zeros_like(train)
        out[chosen] = True
        kept[rng.choice(np.flatnonzero(~out), train.sum(), replace=False)] = True
        parts.append((kept, out))
    return parts


__all__ = ["Drift", "drift"]

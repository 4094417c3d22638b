"""Does sharing hurt because the trunk is too small?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bmtl.diagnostics._training import ARMS, Study, arms, of_runs
from bmtl.diagnostics.restarts import CLEAR
from bmtl.findings import Finding, signed
from bmtl.tasks import Tasks
from bmtl.trunks import MLP, Trunk

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Capacity:
    """One trunk for all tasks against a trunk each, over widths. Made by `capacity`.

    Attributes
    ----------
    names : tuple of str
    widths : tuple of int
        Ascending.
    pointwise : dict
        Arm (``shared``, ``single``) to lists by width and task of arrays ``runs × cells``: log predictive density of
        held-out cells, nats in the user's units.
    train : dict
        Arm to array ``widths × T``: training loss at the end, mean over runs.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    pointwise: dict[str, list[list[np.ndarray]]]
    train: dict[str, np.ndarray]

    def table(self) -> pd.DataFrame:
        """One row a width and task.

        Returns
        -------
        DataFrame
            Columns width, task, shared, single (mean log predictive density of a held-out cell, over runs), gap (of
            sharing; below 0 it hurts), se (of the gap, from cells and from runs), train_shared and train_single.
        """
        rows = []
        for w, width in enumerate(self.widths):
            for t, name in enumerate(self.names):
                shared, single = (self.pointwise[arm][w][t] for arm in ARMS)
                cells = shared.mean(axis=0) - single.mean(axis=0)
                se = np.sqrt(cells.var() / cells.size + sum(of_runs(own) for own in (shared, single)))
                train = [self.train[arm][w, t] for arm in ARMS]
                rows.append((width, name, shared.mean(), single.mean(), cells.mean(), se, *train))
        columns = ["width", "task", "shared", "single", "gap", "se", "train_shared", "train_single"]
        return pd.DataFrame(rows, columns=columns)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """What the widths say of each task.

        Returns
        -------
        DataFrame
            Columns task; competes (sharing hurts at some width beyond two standard errors, and not at the widest);
            width (the smallest from which on it does not hurt beyond them; missing if it still does at the widest);
            helps (at the widest it is better beyond them); second_descent (of the shared network: held-out density
            falls with width beyond them and rises again).
        """
        rows = []
        for name, own in self.table().groupby("task", sort=False):
            hurts = (own["gap"] < -CLEAR * own["se"]).to_numpy()
            last = int(np.flatnonzero(hurts)[-1]) if hurts.any() else -1
            enough = self.widths[last + 1] if last + 1 < len(self.widths) else None
            helps = bool(own["gap"].iloc[-1] > CLEAR * own["se"].iloc[-1])
            competes = bool(hurts.any()) and enough is not None
            rows.append((name, competes, enough, helps, self._second_descent(str(name))))
        table = pd.DataFrame(rows, columns=["task", "competes", "width", "helps", "second_descent"])
        return table.astype({"width": "Int64"})

    @property
    def width(self) -> int | None:
        """The smallest width from which on sharing hurts no task; None if there is none among those tried."""
        found = self.summary["width"]
        return None if found.isna().any() else int(found.max())

    def _second_descent(self, name: str) -> bool:
        """Whether some width is clearly worse than a smaller and a larger one."""
        t = self.names.index(name)
        own = [by_task[t] for by_task in self.pointwise["shared"]]

        def above(a: int, b: int) -> bool:
            cells = own[a].mean(axis=0) - own[b].mean(axis=0)
            return bool(cells.mean() > CLEAR * np.sqrt(cells.var() / cells.size + of_runs(own[a]) + of_runs(own[b])))

        return any(
            any(above(a, b) for a in range(b)) and any(above(c, b) for c in range(b + 1, len(own)))
            for b in range(1, len(own) - 1)
        )

    def findings(self) -> list[Finding]:
        """A sentence a task: whether sharing costs it anything, and at which widths."""
        table = self.table().set_index("task")
        rows = self.summary.itertuples()
        return [Finding("capacity", (str(row.task),), _said(row, table.loc[[row.task]])) for row in rows]

    def plot(self) -> Figure:
        """Gap of sharing over widths, a line a task."""
        from bmtl.diagnostics.training_plots import capacity as draw

        return draw(self)

    def __repr__(self) -> str:
        hurt = self.summary.query("competes")["task"].tolist()
        if self.width is None:
            still = self.summary.loc[self.summary["width"].isna(), "task"].tolist()
            verdict = f"sharing still hurts {', '.join(still)} at width {self.widths[-1]}"
        elif hurt:
            verdict = f"tasks compete for a narrow trunk ({', '.join(hurt)}): widen to {self.width} before decoupling"
        else:
            verdict = "sharing hurts no task at any width"
        table = self.table().to_string(index=False, float_format=lambda v: f"{v:.3g}")
        return f"bmtl.Capacity: {verdict}\n{table}"


def _said(row: Any, own: pd.DataFrame) -> str:
    """A row of the summary in words, with its gaps."""

    def at(width: int) -> str:
        gap = own[own["width"] == width].iloc[0]
        return f"{signed(gap['gap'], gap['se'])} nats a held-out cell at width {width}"

    first, last = int(own["width"].iloc[0]), int(own["width"].iloc[-1])
    if pd.isna(row.width):
        return f"Sharing harms {row.task} even at the widest trunk: {at(last)}."
    if row.competes:
        worst = int(own.loc[own["gap"] == own["gap"].min(), "width"].iloc[0])
        return (
            f"{row.task} competes for a narrow trunk: sharing harms it ({at(worst)}), but not measurably from width "
            f"{row.width} on ({at(int(row.width))}). Widen before you decouple."
        )
    effect = "helps" if row.helps else "neither measurably helps nor harms"
    text = f"Sharing {effect} {row.task} at the widest trunk ({at(last)}; {at(first)})"
    return f"{text}, and harms it measurably at no width."


def capacity(
    trunk: MLP | Callable[[int], Trunk],
    tasks: Tasks,
    *,
    widths: Sequence[int] = (4, 8, 16, 32, 64),
    runs: int = 5,
    held_out: float = 0.25,
    device: str = "auto",
    seed: int = 0,
    executor: Executor | None = None,
    **options: Any,
) -> Capacity:
    """Train one trunk for all tasks, and a trunk for each, at several widths.

    Tasks that compete for the capacity of a narrow trunk are hurt by sharing it, and are not once it is wide enough:
    then widen before you decouple. Where sharing helps at every width it regularises.

    Parameters
    ----------
    trunk : MLP, or callable of int to Trunk
        A perceptron, all of whose layers are given the width, or what makes a trunk of a width.
    widths : sequence of int
    runs : int
        Seeds of each width and arm, ≥ 1.
    tasks, held_out, device, seed, executor, **options
        As in `bmtl.diagnostics.restarts`.

    Raises
    ------
    ValueError, TypeError, TaskError, FitError
        As `bmtl.train`, and if there are fewer than two tasks, no width, or nothing is held out.
    """
    tasks.require(2, "capacity")
    widths = tuple(sorted(set(widths)))
    if not widths:
        raise ValueError("capacity needs a width")
    make = trunk if not isinstance(trunk, MLP) else lambda width: replace(trunk, widths=(width,) * len(trunk.widths))
    study = Study.of(tasks, runs, held_out, device, seed, options)
    if study.held is None:
        raise ValueError("capacity is judged by held-out rows: held_out must be > 0")
    found = study.judge([(make(width), own) for width in widths for own in arms(tasks.names).values()], executor)
    seen = {arm: [cells for cells, _ in found[at :: len(ARMS)]] for at, arm in enumerate(ARMS)}
    train = {arm: [losses.mean(axis=0) for _, losses in found[at :: len(ARMS)]] for at, arm in enumerate(ARMS)}
    return Capacity(tasks.names, widths, seen, {arm: np.array(own) for arm, own in train.items()})


__all__ = ["Capacity", "capacity"]

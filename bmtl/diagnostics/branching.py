"""Where should tasks part?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bmtl.arrangement import Arrangement
from bmtl.diagnostics._branches import Branch, branches, fixed, search
from bmtl.diagnostics._training import Study, of_runs, pointwise
from bmtl.findings import Finding, signed
from bmtl.tasks import Tasks
from bmtl.training.held_out import split
from bmtl.trunks import MLP

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JUDGED = 0.4
"""Share of the rows trained on by which the search judges branches."""

MOST_CHOICES = 4096
"""Joint choices that are ranked; of more, those of each task's likeliest branches."""

Choice = tuple[Branch, ...]
"""A branch for every task."""


@dataclass(frozen=True, eq=False)
class Branching:
    """At which layer each task leaves the shared ones. Made by `branching`.

    Attributes
    ----------
    names : tuple of str
    options : list of Branch
        ``(depth, width)``: shared layers, and the width of those of the task's own that follow (None if none do).
    posterior : ndarray, shape (runs, T, options)
        Of the search.
    choices : list of tuple of Branch
        Those that were refitted: all shared, none shared, and the likeliest of the search.
    pointwise : list of list of ndarray, choices, then tasks, each of shape (runs, cells)
        Log predictive density of held-out cells, nats in the user's units.
    """

    names: tuple[str, ...]
    options: list[Branch]
    posterior: np.ndarray
    choices: list[Choice]
    pointwise: list[list[np.ndarray]]

    @property
    def layers(self) -> int:
        """Layers of the trunk."""
        return self.options[0].depth

    def table(self) -> pd.DataFrame:
        """One row a task and branch.

        Returns
        -------
        DataFrame
            Columns task, depth, width (missing where all layers are shared), probability (mean over runs).
        """
        rows = [
            (name, own.depth, own.width, p)
            for name, ps in zip(self.names, self.posterior.mean(axis=0), strict=True)
            for own, p in zip(self.options, ps, strict=True)
        ]
        return pd.DataFrame(rows, columns=["task", "depth", "width", "probability"]).astype({"width": "Int64"})

    def depths(self) -> pd.DataFrame:
        """How many layers each task shares with any other: a row a task, a column a number, and probabilities.

        A layer that one task alone goes through is not shared. Tasks are taken as independent in each run.
        """
        by_depth = np.array([own.depth for own in self.options])
        # Of each run and task: that it goes through at least so many of the shared layers, and so does another.
        beyond = np.stack([self.posterior[..., by_depth >= count].sum(axis=-1) for count in range(self.layers + 2)])
        tasks = range(len(self.names))
        others = np.stack([1.0 - np.prod(1.0 - np.delete(beyond, t, axis=2), axis=2) for t in tasks], axis=2)
        with_another = beyond * others
        with_another[0] = 1.0
        exactly = (with_another[:-1] - with_another[1:]).mean(axis=1)
        return pd.DataFrame(exactly.T, index=pd.Index(self.names, name="task"), columns=range(self.layers + 1))

    def shares(self, choice: Choice) -> list[int]:
        """Layers that each task shares with any other under a choice."""
        depth = [own.depth for own in choice]
        return [min(own, max(depth[:t] + depth[t + 1 :])) for t, own in enumerate(depth)]

    def refits(self) -> pd.DataFrame:
        """One row a choice that was refitted, and task; choices in the order of their mean gain.

        Returns
        -------
        DataFrame
            Columns choice (its number), task, depth (layers shared with any other task), width (of the layers of its
            own that follow; missing where they are those of the trunk), lpd (of a held-out cell, mean over runs), gain
            (against all layers shared) and se (of the gain, paired over cells, and from runs).
        """
        rows, shared = [], self.pointwise[0]
        for number, choice in enumerate(self.choices):
            for t, name in enumerate(self.names):
                own = self.pointwise[number][t]
                cells = own.mean(axis=0) - shared[t].mean(axis=0)
                se = np.sqrt(cells.var() / cells.size + of_runs(own) + of_runs(shared[t])) if number else 0.0
                rows.append((number, name, self.shares(choice)[t], choice[t].width, own.mean(), cells.mean(), se))
        columns = ["choice", "task", "depth", "width", "lpd", "gain", "se"]
        table = pd.DataFrame(rows, columns=columns).astype({"width": "Int64"})
        order = table.groupby("choice")["gain"].mean().sort_values(ascending=False, kind="stable").index
        return table.set_index("choice").loc[order].reset_index()

    @property
    def best(self) -> Choice:
        """The choice that predicts held-out cells best, mean over tasks."""
        return self.choices[int(self.refits()["choice"].iloc[0])]

    def findings(self) -> list[Finding]:
        """A sentence a task on where it parts, and one a pair on what they share."""
        depths, best = self.depths().to_numpy(), self.best
        # The best choice comes first, its tasks in their order.
        gains = self.refits()[["gain", "se"]].to_numpy(dtype=float)
        found = []
        for t, (name, count) in enumerate(zip(self.names, self.shares(best), strict=True)):
            gain = signed(*gains[t])
            found.append(Finding("branching", (name,), (
                f"In the best refit {name} shares {self._layers(count)} (probability {depths[t, count]:.2f} by the "
                f"search); against sharing all it gains {gain} nats a held-out cell."
            )))
        by_depth = np.array([own.depth for own in self.options])
        for a, b in combinations(range(len(self.names)), 2):
            count = min(best[a].depth, best[b].depth)
            common = np.minimum(by_depth[:, None], by_depth) == count
            p = np.einsum("ro,rp,op->r", self.posterior[:, a], self.posterior[:, b], common).mean()
            found.append(Finding("branching", (self.names[a], self.names[b]), (
                f"{self.names[a]} and {self.names[b]} share {self._layers(count)} with each other in the best refit "
                f"(probability {p:.2f} by the search)."
            )))
        return found

    def _layers(self, count: int) -> str:
        """The first so many of them, in words."""
        if count in (0, self.layers):
            return "all layers" if count else "no layer"
        return f"the first {count} of {self.layers} layers"

    def plot(self) -> Figure:
        """Posterior of the number of layers that each task shares, with the best refit marked."""
        from bmtl.diagnostics.training_plots import branching as draw

        return draw(self)

    def __repr__(self) -> str:
        depths = self.depths().to_string(float_format=lambda v: f"{v:.2f}")
        refits = self.refits().to_string(index=False, float_format=lambda v: f"{v:.3g}")
        return f"bmtl.Branching: probability of the number of shared layers\n{depths}\nRefits\n{refits}"


def branching(
    trunk: MLP,
    tasks: Tasks,
    *,
    widths: Sequence[int] | None = None,
    top: int = 3,
    steps: int = 1000,
    rate: float = 0.02,
    runs: int = 5,
    held_out: float = 0.25,
    device: str = "auto",
    seed: int = 0,
    **options: Any,
) -> Branching:
    """Search for the layer at which each task leaves the shared ones, and refit the likeliest choices.

    One network holds every branch of every task: after d shared layers, layers of its own, of every width there is to
    choose from. A relaxed categorical gate a task mixes its branches. Layers are trained on some of the rows, gates
    jointly on others (`JUDGED`): their posterior is that of the branch given those cells, under a flat prior, averaged
    over runs. What it finds likeliest is then trained anew, without gates, beside all layers shared and none, and
    judged by rows that neither has seen: the refits decide.

    Parameters
    ----------
    trunk : MLP
        The shared layers.
    widths : sequence of int, optional
        Of a task's own layers. Default: that of the trunk's last layer, and half of it.
    top : int
        Likeliest joint choices to refit, ≥ 1.
    steps, rate : int, float
        Of the search: steps of Adam, ≥ 1, and its learning rate, > 0.
    runs : int
        Seeds of the search and of every refit, ≥ 1.
    tasks, held_out, device, seed, **options
        As in `bmtl.diagnostics.restarts`; options are of the refits. Early stopping is not one.

    Raises
    ------
    ValueError, TypeError, TaskError, FitError
        As `bmtl.train`, and if there are fewer than two tasks, the trunk is not a perceptron, something is out of
        range, or nothing is held out.
    """
    tasks.require(2, "branching")
    if not isinstance(trunk, MLP):
        raise TypeError(f"branching parts the layers of an MLP, got {type(trunk).__name__}")
    own = (max(trunk.widths[-1] // 2, 1), trunk.widths[-1]) if widths is None else tuple(sorted(set(widths)))
    if not own or min(own) < 1 or top < 1 or steps < 1 or not rate > 0:
        raise ValueError(f"branching needs widths, top and steps ≥ 1 and a rate > 0, got {own}, {top}, {steps}, {rate}")
    study = Study.of(tasks, runs, held_out, device, seed, options)
    if study.held is None:
        raise ValueError("branching is judged by held-out rows: held_out must be > 0")
    if study.recipe.stopping is not None:
        raise ValueError("branching trains every task for all epochs: give no stopping")
    train, judged = split(study.train, JUDGED, seed)
    assert judged is not None
    every = branches(trunk, own)
    posterior = search(trunk, every, train, judged, study.seeds, steps, rate, study.device)
    alone = next(branch for branch in reversed(every) if branch.depth == 0)
    choices = list(dict.fromkeys([
        (every[0],) * tasks.n_tasks, (alone,) * tasks.n_tasks, *_likeliest(every, posterior.mean(axis=0), top)
    ]))
    seen = []
    for choice in choices:
        found = study.follow(fixed(trunk, choice, tasks.names), Arrangement.decoupled(tasks.names))
        seen.append(pointwise(found, study.held))
    return Branching(tasks.names, every, posterior, choices, seen)


def _likeliest(options: list[Branch], p: np.ndarray, top: int) -> list[Choice]:
    """The likeliest joint choices, tasks taken as independent."""
    kept = max(int(MOST_CHOICES ** (1 / len(p))), 1)
    each = [np.argsort(-own, kind="stable")[:kept] for own in p]
    ranked = sorted(product(*each), key=lambda own: -np.prod([p[t, o] for t, o in enumerate(own)]))
    return [tuple(options[o] for o in own) for own in ranked[:top]]


__all__ = ["Branching", "branching"]
